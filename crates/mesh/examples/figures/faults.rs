//! How much more a service is asked while it fails: with the breaker, which spares it, and without, when only the budget does.

use super::{
    Row,
    echo::{Manner, Served, Side, ask, channel},
};
use anyhow::ensure;
use chassis::Host;
use mesh::Policies;
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};

/// Calls a second: enough that a tenth of them is more than what time pays, few enough for a process to wait for all of them.
const EVERY: Duration = Duration::from_millis(5);
/// With less time the retries that a process begins with are most of what is seen.
const LEAST: Duration = Duration::from_secs(2);
const NO_BREAKER: &str = "[echo]\nbreaker.enabled = false\n";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Always,
    Half,
    Frozen,
}

pub(crate) async fn run(time: Duration) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("policies.toml");
    std::fs::write(&file, NO_BREAKER)?;
    for (fault, what) in [
        (Fault::Always, "fails always"),
        (Fault::Half, "fails half the time"),
        (Fault::Frozen, "stands still"),
    ] {
        for (file, breaker) in [(None, "with the breaker"), (Some(file.as_path()), "without it")] {
            let policies = Policies::open(&Host::new(), file, "--policies")?;
            attempts(fault, policies, format!("attempts while it {what}, {breaker}"), time).await?;
        }
    }
    Ok(())
}

async fn attempts(
    fault: Fault,
    policies: Policies,
    what: String,
    time: Duration,
) -> anyhow::Result<()> {
    let manner = match fault {
        Fault::Always => Manner::Failing(1, <_>::default()),
        Fault::Half => Manner::Failing(2, <_>::default()),
        Fault::Frozen => Manner::Well,
    };
    let served = Served::start(Side::Mesh, manner)?;
    let channel = channel(served.address, policies)?;
    let frozen = (fault == Fault::Frozen).then_some(async || {
        // a connection is there, and bore an answer
        ask(channel.clone(), None).await?;
        anyhow::Ok(served.freeze())
    });
    let _until_the_end = match frozen {
        Some(freeze) => Some(freeze().await?),
        None => None,
    };
    let (begun, mut tick, mut calls) = (Instant::now(), interval(EVERY), JoinSet::new());
    while begun.elapsed() < time.max(LEAST) {
        tick.tick().await;
        calls.spawn(ask(channel.clone(), None));
    }
    let answered = calls.join_all().await.into_iter().filter(Result::is_ok).count();
    let took = begun.elapsed();
    ensure!(fault == Fault::Half || answered == 0, "it answers");
    let counts = channel.snapshot().counts;
    let [calls, attempts] = [counts.calls, counts.attempts].map(u32::try_from);
    let (calls, attempts) = (calls?, attempts?);
    let most = 1.1 * f64::from(calls) + took.as_secs_f64();
    Row::new(what, "≤ 1.1 × calls + 1/s").met(
        f64::from(attempts) <= most,
        format!(
            "{attempts} of {most:.0} for {calls} calls in {:.1} s; {answered} answered, {} refused",
            took.as_secs_f64(),
            counts.refused
        ),
    );
    Ok(())
}
