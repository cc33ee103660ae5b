//! The bus within one process. The outbox is its only store: who publishes waits until every subscriber has handled an
//! event, and only then marks the row.

use std::{
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::try_join_all;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::bus::{self, Delivery, Envelope, Error};

/// Parcels that may wait for one subscriber; above it, publishing waits.
const WAITING: usize = 64;
/// How long a subscriber may take; longer than a bad event takes to be laid aside. Then its publisher has other things to do,
/// and comes back.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bus within this process.
#[derive(Clone)]
pub struct Embedded {
    subscribers: Arc<RwLock<Vec<Subscriber>>>,
    /// Closed, once, when all have subscribed: then it lets everybody pass.
    gate: Arc<Semaphore>,
}

#[derive(Clone)]
struct Subscriber {
    kinds: Arc<[Arc<str>]>,
    parcels: mpsc::Sender<Parcel>,
}

/// What one publisher hands to one subscriber.
struct Parcel {
    events: Vec<Arc<Envelope>>,
    handled: oneshot::Sender<()>,
}

/// A place to hear events at.
pub struct Subscription(mpsc::Receiver<Parcel>);

/// Tells the publisher when the last event of a parcel is handled.
pub(crate) struct Receipt(Arc<Open>);

struct Open {
    left: AtomicUsize,
    handled: Mutex<Option<oneshot::Sender<()>>>,
}

impl Default for Embedded {
    fn default() -> Self {
        Self { subscribers: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

impl Embedded {
    pub(crate) fn open(&self) {
        self.gate.close();
    }

    pub(crate) async fn publish(&self, events: &[Arc<Envelope>]) -> Result<(), Error> {
        let _open = self.gate.acquire().await;
        let subscribers = self.subscribers.read().expect("no panic while locked").clone();
        // all at once: one who is busy must not keep it from the others
        try_join_all(subscribers.iter().map(|subscriber| subscriber.hand(events))).await?;
        Ok(())
    }

    pub(crate) fn subscribe(&self, kinds: Vec<Arc<str>>) -> Subscription {
        let (parcels, waiting) = mpsc::channel(WAITING);
        let subscriber = Subscriber { kinds: kinds.into(), parcels };
        self.subscribers.write().expect("no panic while locked").push(subscriber);
        Subscription(waiting)
    }
}

impl Subscriber {
    /// Hands over what is wanted of these, and waits until it is handled.
    async fn hand(&self, events: &[Arc<Envelope>]) -> Result<(), Error> {
        let wanted = |event: &&Arc<Envelope>| self.kinds.contains(&event.kind);
        let events: Vec<_> = events.iter().filter(wanted).cloned().collect();
        if events.is_empty() {
            return Ok(());
        }
        let (handled, told) = oneshot::channel();
        let parcel = Parcel { events, handled };
        let handed = async {
            self.parcels.send(parcel).await.map_err(|_parcel| Error::SubscriberGone)?;
            told.await.map_err(|_dropped| Error::SubscriberGone)
        };
        tokio::time::timeout(PATIENCE, handed).await.unwrap_or(Err(Error::SubscriberBusy))
    }
}

impl Subscription {
    pub(crate) async fn next(&mut self, most: usize) -> Option<Vec<Delivery>> {
        let mut deliveries = Vec::new();
        self.0.recv().await?.unpack(&mut deliveries);
        self.more(&mut deliveries, most);
        Some(deliveries)
    }

    pub(crate) fn more(&mut self, deliveries: &mut Vec<Delivery>, most: usize) {
        while deliveries.len() < most
            && let Ok(parcel) = self.0.try_recv()
        {
            parcel.unpack(deliveries);
        }
    }
}

impl Parcel {
    fn unpack(self, deliveries: &mut Vec<Delivery>) {
        let left = AtomicUsize::new(self.events.len());
        let open = Arc::new(Open { left, handled: Mutex::new(Some(self.handled)) });
        let delivery = |event| Delivery {
            event,
            unreadable: None,
            receipt: bus::Receipt::Embedded(Receipt(open.clone())),
        };
        deliveries.extend(self.events.into_iter().map(delivery));
    }
}

impl Receipt {
    /// Whoever is dropped without it leaves the parcel unhandled: the last to go drops the sender.
    pub(crate) fn done(self) {
        if self.0.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(handled) = self.0.handled.lock().expect("no panic while locked").take()
        {
            let _publisher_gone = handled.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bus;
    use futures::FutureExt as _;
    use prost_types::Timestamp;
    use uuid::Uuid;

    fn events(count: u128) -> Vec<Arc<Envelope>> {
        let event = |n| Arc::new(Envelope::of("/test", Uuid::from_u128(n), &Timestamp::default()));
        (0..count).map(event).collect()
    }

    fn timestamps() -> Vec<Arc<str>> {
        vec!["google.protobuf.Timestamp".into()]
    }

    /// Regression: the relay began before all had subscribed, and orders were marked that nobody had heard of.
    #[tokio::test]
    async fn nothing_is_published_before_the_bus_is_open() {
        let bus = Bus::embedded();
        let publish = bus.publish(events(1));
        tokio::pin!(publish);
        assert!(publish.as_mut().now_or_never().is_none(), "nobody has subscribed yet");
        let mut subscription = bus.subscribe(None, timestamps());
        bus.open();
        let (published, heard) = tokio::join!(publish, async {
            let heard = subscription.next(10).await.expect("the bus lives");
            heard.into_iter().map(Delivery::done).count()
        });
        published.expect("it was handled");
        assert_eq!(heard, 1);
    }

    #[tokio::test]
    async fn an_event_is_published_when_every_subscriber_has_handled_it() {
        let bus = Bus::embedded();
        let (mut one, mut other) =
            (bus.subscribe(None, timestamps()), bus.subscribe(None, timestamps()));
        let mut deaf = bus.subscribe(None, vec!["starcoffee.Nothing".into()]);
        bus.open();
        let publish = bus.publish(events(2));
        tokio::pin!(publish);
        assert!(publish.as_mut().now_or_never().is_none());
        let mut heard = one.next(10).await.expect("the bus lives");
        heard.extend(other.next(10).await.expect("the bus lives"));
        let last = heard.pop().expect("two and two");
        heard.into_iter().for_each(Delivery::done);
        assert!(publish.as_mut().now_or_never().is_none(), "one has one event left");
        last.done();
        publish.await.expect("all have handled it");
        assert!(deaf.next(10).now_or_never().is_none(), "it listens to other kinds");
    }

    #[tokio::test]
    async fn what_a_subscriber_drops_counts_as_unpublished() {
        let bus = Bus::embedded();
        let mut subscription = bus.subscribe(None, timestamps());
        bus.open();
        let (published, ()) = tokio::join!(bus.publish(events(2)), async {
            let mut heard = subscription.next(10).await.expect("the bus lives");
            heard.pop().expect("two").done();
            drop(heard);
        });
        assert!(matches!(published, Err(Error::SubscriberGone)));
        drop(subscription);
        assert!(matches!(bus.publish(events(1)).await, Err(Error::SubscriberGone)));
    }
}
