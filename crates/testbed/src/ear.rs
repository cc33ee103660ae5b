//! An ear on a bus: all that is said there, in the order in which it is said.

use journal::{Bus, Envelope};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Events taken at once; a test has few.
const BATCH: usize = 100;
/// Long enough for a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Hears all events of some kinds.
pub struct Ear(watch::Receiver<Vec<Arc<Envelope>>>);

impl Ear {
    /// Begins to hear; misses nothing if the bus is not yet open.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "it ends with its test's bus")]
    pub fn on(bus: &Bus, kinds: impl IntoIterator<Item = String>) -> Self {
        let mut subscription = bus.subscribe(None, kinds.into_iter().map(Into::into).collect());
        let (tell, heard) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Some(deliveries) = subscription.next(BATCH).await {
                for delivery in deliveries {
                    tell.send_if_modified(|heard: &mut Vec<Arc<Envelope>>| {
                        let event = &delivery.event;
                        let new = heard.iter().all(|known| known.id != event.id); // "at least once"
                        if new {
                            heard.push(event.clone());
                        }
                        new
                    });
                    delivery.done();
                }
            }
        });
        Self(heard)
    }

    /// Waits for the first event that is `wanted`: all that was said until then, and the event itself.
    ///
    /// # Panics
    /// It is not said in time: what was waited for.
    pub async fn hears(
        &self,
        what: &str,
        wanted: impl Fn(&Envelope) -> bool,
    ) -> (Vec<Arc<Envelope>>, Arc<Envelope>) {
        let find = |heard: &[Arc<Envelope>]| heard.iter().position(|event| wanted(event));
        let mut heard = self.0.clone();
        let heard = heard.wait_for(|heard| find(heard).is_some());
        let heard = tokio::time::timeout(SOON, heard).await;
        let heard = heard.unwrap_or_else(|_late| panic!("waited in vain for {what}"));
        let mut heard = heard.expect("the bus lives").clone();
        heard.truncate(find(&heard).expect("it was waited for") + 1);
        let event = heard.pop().expect("it was waited for");
        (heard, event)
    }
}

/// As people say them: `OrderPlaced`.
#[must_use]
pub fn names(events: &[Arc<Envelope>]) -> Vec<String> {
    let name = |event: &Arc<Envelope>| event.kind.rsplit('.').next().unwrap_or_default().to_owned();
    events.iter().map(name).collect()
}
