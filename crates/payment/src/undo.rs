//! The undoer: takes every payment that is to be undone to the provider, until it acknowledges. The row says so before the
//! provider is told and hears of the acknowledgement after, never the other way round: so a process that dies in between
//! has only forgotten what the table remembers.

use crate::{
    Payment,
    payment::{Command, Refusal},
    provider::{self, Provider},
    store,
};
use chassis::Host;
use futures::{StreamExt as _, stream::FuturesUnordered};
use journal::{Cause, Watcher, Writer, database, watch, writer};
use sea_orm::DatabaseConnection;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

/// Cancels at the provider at a time. More would only lengthen its queue; fewer would leave the writer's batches empty.
const CONCURRENT: usize = 64;
/// Payments taken from the table with one look; the next look takes more.
const LOOK: u64 = 1000;
/// Payments in hand. Above it the table is the queue.
const IN_HAND: usize = 10_000;
/// How often the table is looked at. Changes of this process are heard at once: a look finds what failed before, what a
/// former process left behind, and what a replica that died had begun.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the provider may take to acknowledge.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failure a payment is left alone for this long, twice as long after each further one.
const BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

pub(crate) struct Undoer {
    pub(crate) writer: Writer<Payment>,
    pub(crate) pool: DatabaseConnection,
    pub(crate) provider: Provider,
}

/// Why a payment is not undone yet.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the payment provider did not acknowledge a cancel")]
    Provider(#[from] provider::Error),
    #[error("the payment provider did not acknowledge a cancel in time")]
    Late,
    #[error("an acknowledged cancel was not recorded")]
    Record(#[from] writer::Error<Refusal>),
}

impl Undoer {
    /// Works until the process drains. What is under way then may be cut off: it is repeated after the next start.
    pub(crate) async fn work(self, host: Host) -> anyhow::Result<()> {
        let mut changes = self.changes();
        let mut look = interval(LOOK_EVERY); // the first at once: what a former process left behind
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut desk = Desk::default();
        let mut under_way = FuturesUnordered::new();
        let draining = host.draining();
        loop {
            while under_way.len() < CONCURRENT
                && let Some(order_id) = desk.waiting.pop_front()
            {
                under_way.push(self.undo(order_id));
            }
            tokio::select! {
                () = draining.cancelled() => return Ok(()),
                Some((order_id, outcome)) = under_way.next() => desk.done(order_id, outcome),
                changed = changes.batch() => match changed {
                    Ok(owed) => desk.put(owed),
                    // so much at once: the table is the queue
                    Err(watch::Error::Behind) => changes = self.changes(),
                    Err(watch::Error::Gone) => return Ok(()),
                },
                _ = look.tick() => match database::patiently(store::owed(&self.pool, LOOK)).await {
                    Ok(owed) => desk.put(owed),
                    Err(error) => warn(&error, "cannot look for payments to undo"),
                },
            }
        }
    }

    fn changes(&self) -> Watcher<Payment> {
        self.writer.watch(Payment::is_owed)
    }

    async fn undo(&self, order_id: Uuid) -> (Uuid, Result<(), Error>) {
        let undone = async {
            let cancelled = self.provider.open(order_id);
            tokio::time::timeout(PATIENCE, cancelled.cancel())
                .await
                .map_err(|_elapsed| Error::Late)??;
            // a fact for the writer, not a command of a caller's: a full queue must not keep the money
            self.writer.record(Command::Undone { order_id }, Cause::default()).await?;
            Ok(())
        };
        (order_id, undone.await)
    }
}

/// What lies before the undoer.
#[derive(Default)]
struct Desk {
    waiting: VecDeque<Uuid>,
    /// Waiting or under way: a look at the table finds these as well.
    taken: HashSet<Uuid>,
    failed: HashMap<Uuid, Failure>,
}

struct Failure {
    not_before: Instant,
    back_off: Duration,
}

impl Desk {
    fn put(&mut self, owed: Vec<Payment>) {
        let now = Instant::now();
        // who woke up long ago without being seen again was undone by somebody else
        let taken = &self.taken;
        self.failed.retain(|order_id, failure| {
            taken.contains(order_id) || failure.not_before + LONGEST_BACK_OFF > now
        });
        for Payment { order_id, .. } in owed {
            let rests = self.failed.get(&order_id).is_some_and(|failure| failure.not_before > now);
            if !rests && self.taken.len() < IN_HAND && self.taken.insert(order_id) {
                self.waiting.push_back(order_id);
            }
        }
    }

    fn done(&mut self, order_id: Uuid, outcome: Result<(), Error>) {
        self.taken.remove(&order_id);
        let Err(error) = outcome else {
            self.failed.remove(&order_id);
            tracing::debug!(order.id = %order_id, "undid the payment of {order_id}");
            return;
        };
        let before = self.failed.get(&order_id).map_or(BACK_OFF / 2, |failure| failure.back_off);
        let back_off = (before * 2).min(LONGEST_BACK_OFF);
        let not_before = Instant::now() + back_off;
        self.failed.insert(order_id, Failure { not_before, back_off });
        warn(&error, &format!("the payment of {order_id} is still to be undone"));
    }
}

fn warn(error: &(dyn std::error::Error + 'static), what: &str) {
    tracing::warn!(error, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_payment_that_another_replica_undid_is_not_remembered_for_ever() {
        let (mut desk, order) = (Desk::default(), Uuid::from_u128(1));
        desk.done(order, Err(Error::Late));
        tokio::time::advance(BACK_OFF).await;
        desk.put(Vec::new());
        assert!(desk.failed.contains_key(&order), "the next look may find it");
        desk.taken.insert(order);
        tokio::time::advance(2 * LONGEST_BACK_OFF).await;
        desk.put(Vec::new());
        assert!(desk.failed.contains_key(&order), "it waits, and may fail again");
        desk.taken.remove(&order);
        desk.put(Vec::new());
        assert!(desk.failed.is_empty());
    }
}
