//! The relay: publishes what the writer hands over, and from time to time what lies in the outbox and nobody holds. Two
//! relays that publish the same are harmless: whoever listens has heard it before.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use rand::Rng as _;
use sea_orm::DatabaseConnection;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Bus, Envelope, Outbox, Time, backoff, bus};

/// Events published at a time; JetStream takes at most 1,000 in one atomic batch.
const BATCH: usize = 500;
/// Batches on their way at a time: one that waits for a subscriber's retry must not hold up the others.
const UNDER_WAY: usize = 32;
/// How long fresh events wait for others: nobody notices, and at low rates it saves most of the wakeups.
const LINGER: Duration = Duration::from_millis(5);
/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rows younger than this are probably held by the relay of the process that wrote them.
const STALE: Duration = Duration::from_secs(2);

pub(crate) struct Relay {
    outbox: Outbox,
    pool: DatabaseConnection,
    bus: Bus,
    fresh: mpsc::Receiver<Vec<Arc<Envelope>>>,
    /// Those on their way.
    held: HashSet<Uuid>,
    sweep: Option<Sweep>,
}

/// A walk through all that is unpublished.
struct Sweep {
    after: Option<Uuid>,
    before: Uuid,
}

impl Relay {
    pub(crate) fn new(
        outbox: Outbox,
        pool: DatabaseConnection,
        bus: Bus,
        fresh: mpsc::Receiver<Vec<Arc<Envelope>>>,
    ) -> Self {
        // at first all that came before us: whoever held it is gone
        let sweep = Some(Sweep { after: None, before: Uuid::now_v7() });
        Self { outbox, pool, bus, fresh, held: HashSet::new(), sweep }
    }

    /// Works until the process drains. What is on its way then is published again after the next start.
    pub(crate) async fn run(mut self, draining: CancellationToken) -> anyhow::Result<()> {
        let first = LOOK_EVERY.mul_f64(rand::rng().random_range(0.5..1.5)); // not all relays at once
        let mut look = interval_at(Instant::now() + first, LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = FuturesUnordered::new();
        loop {
            let room = under_way.len() < UNDER_WAY;
            let events = tokio::select! {
                () = draining.cancelled() => return Ok(()),
                Some((ids, published)) = under_way.next() => {
                    self.told(ids, published);
                    continue;
                }
                Some(fresh) = self.fresh.recv(), if room => self.gather(fresh).await,
                // rows that wait in `fresh` are not lost: to look now would only publish them twice
                _ = look.tick(), if self.sweep.is_none() && self.fresh.is_empty() => {
                    self.sweep = Some(Sweep { after: None, before: id_at(Time::now().minus(STALE)) });
                    continue;
                }
                events = sweep(&self.outbox, &self.pool, &mut self.sweep), if self.sweep.is_some() && room => events,
            };
            let events: Vec<_> =
                events.into_iter().filter(|event| self.held.insert(event.id)).collect();
            if !events.is_empty() {
                under_way.push(publish(self.bus.clone(), events));
            }
        }
    }

    async fn gather(&mut self, mut events: Vec<Arc<Envelope>>) -> Vec<Arc<Envelope>> {
        backoff::pause(LINGER).await;
        while events.len() < BATCH
            && let Ok(more) = self.fresh.try_recv()
        {
            events.extend(more);
        }
        events
    }

    fn told(&mut self, ids: Vec<Uuid>, published: Result<(), bus::Error>) {
        for id in &ids {
            self.held.remove(id);
        }
        match published {
            Ok(()) => self.outbox.published(ids),
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "{} events wait to be published again", ids.len());
            }
        }
    }
}

async fn publish(bus: Bus, events: Vec<Arc<Envelope>>) -> (Vec<Uuid>, Result<(), bus::Error>) {
    let ids = events.iter().map(|event| event.id).collect();
    (ids, bus.publish(events).await)
}

/// One step on; the last step ends it. Nothing is lost when the step is dropped midway.
async fn sweep(
    outbox: &Outbox,
    pool: &DatabaseConnection,
    sweep: &mut Option<Sweep>,
) -> Vec<Arc<Envelope>> {
    let Some(Sweep { after, before }) = sweep else { return Vec::new() };
    let most = u64::try_from(BATCH).expect("a small number");
    match outbox.unpublished(pool, *after, *before, most).await {
        Ok(events) if events.len() == BATCH => {
            *after = events.last().map(|event| event.id);
            events
        }
        Ok(events) => {
            *sweep = None;
            events
        }
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(error, "cannot look for events to publish");
            *sweep = None;
            Vec::new()
        }
    }
}

/// The smallest `UUIDv7` of this time.
fn id_at(time: Time) -> Uuid {
    let millis = u64::try_from(time.micros() / 1_000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let now = Time::now();
        assert!(id_at(now.minus(Duration::from_millis(2))) < Uuid::now_v7());
        assert!(Uuid::now_v7() < id_at(now.plus(Duration::from_secs(60))));
    }
}
