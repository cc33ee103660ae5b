//! The settler: asks after every payment that nobody told us of in time. So a customer who was told "error" and went away is
//! never charged later. Every replica may do it, and twice: Payment's row decides.

use crate::{order::Model as Order, store, till::Till};
use chassis::Host;
use futures::future::join_all;
use journal::{Database, Time, database};
use mesh::client::Stage;
use sea_orm::DbErr;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

/// How often the table is looked at: each look is one or two small queries.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Orders settled at a time, so that a Payment that comes back after hours is not run over.
const AT_A_TIME: u64 = 20;
/// A cancel asks Payment itself, at once; only what it did not manage within this time is for the settler.
const CANCEL_AFTER: Duration = Duration::from_secs(1);
/// After a failure an order is left alone for this long, twice as long after each further one.
const BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// Between clocks that are kept, there are milliseconds; so many seconds are a good part of the time that an order has.
const CLOCK_OFF: Duration = Duration::from_secs(5);

pub(crate) struct Settler {
    pub(crate) till: Arc<Till>,
    pub(crate) db: Database,
    /// How long an order may be PLACED.
    pub(crate) after: Duration,
}

impl Settler {
    /// Works until the process drains; what is under way then is finished by the host.
    pub(crate) async fn work(self, host: Host) -> anyhow::Result<()> {
        let draining = host.draining();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut resting = Resting::default();
        loop {
            tokio::select! {
                () = draining.cancelled() => return Ok(()),
                () = async {
                    look.tick().await;
                    while self.settle_some(&mut resting).await {}
                } => {}
            }
        }
    }

    /// Whether there is more to do at once: nothing failed, and more orders may wait.
    async fn settle_some(&self, resting: &mut Resting) -> bool {
        if self.till.way.refuses() {
            // nobody would be asked: the next look is soon enough
            return false;
        }
        // one probe at a time is let through to a Payment that may be back
        let most = match self.till.way.snapshot().breaker.stage {
            Stage::Closed => AT_A_TIME,
            Stage::Open | Stage::HalfOpen => 1,
        };
        let unsettled = match self.unsettled(resting, most).await {
            Ok(unsettled) => unsettled,
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "cannot look for orders to settle");
                return false;
            }
        };
        let settle = async |order: &Order| (order.order_id, self.till.void(order).await);
        let mut all = unsettled.len() == usize::try_from(most).expect("a small number");
        for (order_id, settled) in join_all(unsettled.iter().map(settle)).await {
            resting.note(order_id, settled);
            all &= settled;
        }
        all
    }

    async fn unsettled(&self, resting: &mut Resting, most: u64) -> Result<Vec<Order>, DbErr> {
        let now = earlier(database::patiently(self.db.now()).await?, Time::now());
        let (placed, cancelled) = (now.minus(self.after), now.minus(CANCEL_AFTER));
        let rests = resting.now();
        let unsettled = store::unsettled(&self.db.pool, placed, cancelled, rests, most);
        database::patiently(unsettled).await
    }
}

/// Orders carry the time of the process that took them. Where its clock is behind the database's, an order that is being paid
/// looks old: so it is asked after by the clock that says less. One that is ahead only settles later.
fn earlier(database: Time, own: Time) -> Time {
    if database.since(own) > CLOCK_OFF {
        tracing::warn!(
            "this machine's clock is {} s behind the database's: orders seem older than they are; set it, with NTP",
            database.since(own).as_secs()
        );
    }
    database.min(own)
}

/// Orders that are left alone for a while. At most [`AT_A_TIME`] are added a second, so there are never many.
#[derive(Default)]
struct Resting(HashMap<Uuid, Rest>);

struct Rest {
    until: Instant,
    back_off: Duration,
}

impl Resting {
    /// Those who rest now. Who woke up long ago without being seen again was settled by somebody else.
    fn now(&mut self) -> Vec<Uuid> {
        let now = Instant::now();
        self.0.retain(|_, rest| rest.until + LONGEST_BACK_OFF > now);
        self.0.iter().filter(|(_, rest)| rest.until > now).map(|(id, _)| *id).collect()
    }

    fn note(&mut self, order_id: Uuid, settled: bool) {
        if settled {
            self.0.remove(&order_id);
            return;
        }
        let rest = self
            .0
            .entry(order_id)
            .or_insert(Rest { until: Instant::now(), back_off: BACK_OFF / 2 });
        rest.back_off = (rest.back_off * 2).min(LONGEST_BACK_OFF);
        rest.until = Instant::now() + rest.back_off;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_no_older_than_the_slower_clock_says() {
        let (slow, quick) = (Time::from_micros(1), Time::from_micros(35_000_001));
        assert_eq!(earlier(quick, slow), slow, "ours is behind: what we took is being paid");
        assert_eq!(earlier(slow, quick), slow);
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_cannot_be_settled_rests_longer_each_time() {
        let (mut resting, order) = (Resting::default(), Uuid::from_u128(1));
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            resting.note(order, false);
            tokio::time::advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            assert_eq!(resting.now(), [order]);
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(resting.now(), Vec::<Uuid>::new());
        }
        resting.note(order, true);
        resting.note(order, false);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(resting.now(), Vec::<Uuid>::new(), "it begins anew");
        tokio::time::advance(LONGEST_BACK_OFF).await;
        resting.now();
        assert!(resting.0.is_empty(), "nobody is remembered for ever");
    }
}
