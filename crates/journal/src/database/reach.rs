//! A database server that is to be reached at the start: it may come up later than we do, but not at any time.

use std::time::Duration;

use anyhow::anyhow;
use sea_orm::sqlx;
use tokio::time::{Instant, timeout};

use super::Source;
use crate::backoff::{self, Backoff};

/// One try to connect and to look around: longer than any server that is well takes.
const TRY: Duration = Duration::from_secs(5);
/// One try, when there is little or no time to wait.
const LAST_TRY: Duration = Duration::from_secs(2);
/// Soon enough that nobody waits for us; several replicas do not come at once.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };

/// Why a server cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may be gone when it is asked again.
    Passing(anyhow::Error),
    /// A person has to do something.
    Lasting(anyhow::Error),
}

/// Tries until it succeeds, a person is needed, or the time for it is over. Says once that it waits.
pub(super) async fn reach<T>(
    source: &Source,
    mut attempt: impl AsyncFnMut() -> Result<T, Fault>,
) -> anyhow::Result<T> {
    let wait = source.config.wait;
    let began = Instant::now();
    let mut failures = 0;
    loop {
        let left = wait.saturating_sub(began.elapsed());
        let within = TRY.min(left.max(LAST_TRY));
        let error = match timeout(within, attempt()).await {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(Fault::Lasting(error))) => return Err(error),
            Ok(Err(Fault::Passing(error))) => error,
            Err(_late) => anyhow!("it does not answer within {within:?}"),
        };
        failures += 1;
        let waited = began.elapsed();
        if waited >= wait {
            let waited =
                Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
            return Err(error.context(format!(
                "it cannot be reached; waited {waited:?} for it (--database-wait)"
            )));
        }
        // the last try is at the end of the wait
        let pause = AGAIN.after(failures).min(wait.saturating_sub(waited));
        if failures == 1 {
            tracing::warn!(
                "waiting up to {wait:?} (--database-wait) for the database {source}: {error:#}"
            );
        }
        backoff::pause(pause).await;
    }
}

/// What a server or the system said, in their own words and once.
pub(super) fn said(error: sqlx::Error) -> anyhow::Error {
    match error {
        sqlx::Error::Io(error) => anyhow!(error),
        sqlx::Error::Database(answer) => anyhow!("{}", answer.message()),
        error => anyhow!(error),
    }
}
