//! A database server that is to be reached at the start: it may come up later than we do, but not at any time.

use std::time::Duration;

use anyhow::anyhow;
use sea_orm::sqlx;
use tokio::time::{Instant, timeout};

use super::Source;
use crate::backoff::{self, Backoff};

/// One try to connect and to look around: longer than any server that is well takes.
const TRY: Duration = Duration::from_secs(5);
/// Soon enough that nobody waits for us; several replicas do not come at once.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };

/// Why a server cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may be gone when it is asked again.
    Passing(sqlx::Error),
    /// A person has to do something.
    Lasting(anyhow::Error),
}

/// Tries until it succeeds, a person is needed, or the time for it is over. Says once that it waits.
pub(super) async fn reach<T>(
    source: &Source,
    mut attempt: impl AsyncFnMut() -> Result<T, Fault>,
) -> anyhow::Result<T> {
    let wait = source.config.wait;
    let deadline = Instant::now() + wait;
    let mut failures = 0;
    loop {
        let error = match timeout(TRY, attempt()).await {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(Fault::Lasting(error))) => return Err(error),
            Ok(Err(Fault::Passing(error))) => anyhow!(error),
            Err(_late) => anyhow!("it does not answer within {TRY:?}"),
        };
        failures += 1;
        let pause = AGAIN.after(failures);
        if Instant::now() + pause >= deadline {
            return Err(error.context(format!(
                "it cannot be reached; waited {wait:?} for it (--database-wait)"
            )));
        }
        if failures == 1 {
            tracing::warn!(
                "waiting up to {wait:?} (--database-wait) for the database {source}: {error:#}"
            );
        }
        backoff::pause(pause).await;
    }
}
