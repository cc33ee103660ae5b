//! Whether a database can be used, as those are told who decide where calls are sent.

use std::time::Duration;

use chassis::Host;
use tokio::time::{Instant, timeout};

use super::Database;
use crate::backoff;

/// How often it is looked at: a service is back in use so soon after its database.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a look may take: about as long as a caller waits for a read.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// How long it must have failed. A restart or a failover is shorter, and calls that fail meanwhile say so themselves; to take all
/// replicas out of use for it would only make it last longer.
const AWAY_AFTER: Duration = Duration::from_secs(10);

impl Database {
    /// Watches it until the host drains, and tells whenever it has not answered for 10 seconds (false), and when it answers
    /// again (true). It is taken to answer at first.
    pub fn watch(&self, host: &Host, tell: impl Fn(bool) + Send + Sync + 'static) {
        let (database, draining) = (self.clone(), host.draining());
        host.spawn(format!("the watch of {}", self.source), async move {
            let watched = draining.run_until_cancelled(database.keep_watch(tell)).await;
            watched.map_or(Ok(()), |never| match never {})
        });
    }

    async fn keep_watch(&self, tell: impl Fn(bool)) -> std::convert::Infallible {
        let (mut answered, mut told) = (Instant::now(), true);
        loop {
            backoff::pause(LOOK_EVERY).await;
            let answers = matches!(timeout(LOOK_WITHIN, self.now()).await, Ok(Ok(_)));
            if answers {
                answered = Instant::now();
            }
            let usable = answers || answered.elapsed() < AWAY_AFTER;
            if usable == told {
                continue;
            }
            told = usable;
            match usable {
                true => tracing::info!("the database {} answers again", self.source),
                false => tracing::warn!(
                    "the database {} ({}) has not answered for {AWAY_AFTER:?}: calls are better sent elsewhere",
                    self.source,
                    self.source.flag
                ),
            }
            tell(usable);
        }
    }
}
