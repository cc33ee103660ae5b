//! The host of all tasks of a process: none dies unseen, and none outlives the drain.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::Signals;

/// Of the drain's time, what is kept for the tasks that must come last.
const LAST: Duration = Duration::from_secs(1);

/// How a process ends.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Stopping")]
pub struct DrainConfig {
    /// How long to go on serving after a request to stop, for those who have not heard of it yet
    #[arg(long = "drain-delay", env = "STARCOFFEE_DRAIN_DELAY", value_name = "DURATION", default_value = "0s", value_parser = crate::args::duration)]
    pub delay: Duration,
    /// How long what is under way may then take, whatever is still connected
    #[arg(long = "drain-timeout", env = "STARCOFFEE_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "9s", value_parser = crate::args::duration)]
    pub timeout: Duration,
}

/// The host of a process's tasks. A clone is the same host.
#[derive(Clone, Debug)]
pub struct Host {
    process: Arc<Process>,
    stage: Arc<Stage>,
}

#[derive(Debug, Default)]
struct Process {
    stopping: CancellationToken,
    closing: CancellationToken,
    /// In the order in which they drain.
    stages: Mutex<Vec<Arc<Stage>>>,
    last: TaskTracker,
    why: Mutex<Option<Why>>,
}

/// Tasks that drain together.
#[derive(Debug, Default)]
struct Stage {
    draining: CancellationToken,
    work: TaskTracker,
}

/// Why the process stops.
#[derive(Debug)]
enum Why {
    Asked(String),
    Failed(anyhow::Error),
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::stage(Arc::default())
    }

    /// The same process, for what its other tasks need while they drain: it drains when theirs have ended. Of several, each
    /// drains after those that were made before.
    #[must_use]
    pub fn behind(&self) -> Self {
        Self::stage(self.process.clone())
    }

    fn stage(process: Arc<Process>) -> Self {
        let stage = Arc::new(Stage::default());
        process.stages.lock().expect("no panic while locked").push(stage.clone());
        Self { process, stage }
    }

    /// Cancelled when the process is to stop: readiness says no from then on, all else goes on.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.process.stopping.clone()
    }

    /// Cancelled when nothing new is to be begun: listeners, watches and loops end; what is under way is finished.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.stage.draining.clone()
    }

    /// Cancelled when all else has ended: what others needed until then ends, too.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.process.closing.clone()
    }

    /// Runs what the process cannot do without until [`Self::draining`]. If it fails, panics or ends before, the process
    /// stops and says why.
    pub fn spawn<F>(&self, name: impl Into<String>, work: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let watched = watched(self.process.clone(), name.into(), self.draining(), work);
        self.stage.work.spawn(watched);
    }

    /// As [`Self::spawn`], for what others need while they drain: it runs until [`Self::closing`].
    pub fn spawn_last<F>(&self, name: impl Into<String>, work: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let watched = watched(self.process.clone(), name.into(), self.closing(), work);
        self.process.last.spawn(watched);
    }

    /// Runs something to its end, whether or not anybody waits for it; a drain waits.
    pub fn track<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.stage.work.spawn(work)
    }

    /// Asks the process to stop, as a signal does.
    pub fn stop(&self, why: impl Into<String>) {
        self.process.end(Why::Asked(why.into()));
    }

    /// Waits until the process is to stop: by a signal (SIGTERM or Ctrl-C), by [`Self::stop`], or because a task ended.
    /// Then drains it, at most as long as `drain` says. A second signal ends the wait at once.
    ///
    /// # Errors
    /// A task ended that should not have, before the drain or while it went on.
    pub async fn run(&self, drain: &DrainConfig) -> anyhow::Result<()> {
        self.run_hearing(Signals::new()?, drain).await
    }

    /// As [`Self::run`], for who has listened to signals before: none of them is missed in between.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_hearing(
        &self,
        mut signals: Signals,
        drain: &DrainConfig,
    ) -> anyhow::Result<()> {
        tokio::select! {
            name = signals.next() => self.stop(name),
            () = self.process.stopping.cancelled() => {}
        }
        let failed = match self.process.why() {
            Some(Why::Failed(error)) => Some(error),
            Some(Why::Asked(why)) => {
                tracing::info!("stopping: {why}");
                None
            }
            None => None,
        };
        tokio::select! {
            () = self.process.drain(drain, failed.is_some()) => {}
            name = signals.next() => tracing::warn!("stopping at once: {name} again"),
        }
        match (failed, self.process.why()) {
            (Some(error), _) | (None, Some(Why::Failed(error))) => Err(error),
            (None, _) => Ok(()),
        }
    }
}

impl Process {
    async fn drain(&self, drain: &DrainConfig, failed: bool) {
        if !failed {
            sleep_until(Instant::now() + drain.delay).await;
        }
        let end = Instant::now() + drain.timeout;
        let stages = self.stages.lock().expect("no panic while locked").clone();
        let reserve = LAST.min(drain.timeout / 2);
        for (Stage { draining, work }, behind) in
            stages.iter().map(|stage| &**stage).zip((0..stages.len()).rev())
        {
            draining.cancel();
            work.close();
            // those behind need some time, too
            let behind = u32::try_from(behind).unwrap_or(u32::MAX);
            let end = end - reserve - (reserve / 2).saturating_mul(behind).min(drain.timeout / 4);
            if timeout_at(end, work.wait()).await.is_err() {
                tracing::warn!(
                    "{} tasks did not end in time and are cut off (--drain-timeout)",
                    work.len()
                );
            }
        }
        self.closing.cancel();
        self.last.close();
        if timeout_at(end, self.last.wait()).await.is_err() {
            tracing::warn!(
                "{} of the last tasks did not end in time (--drain-timeout)",
                self.last.len()
            );
        }
    }

    /// The first reason counts; what fails because of it is no reason.
    fn end(&self, why: Why) {
        self.why.lock().expect("no panic while locked").get_or_insert(why);
        self.stopping.cancel();
    }

    fn why(&self) -> Option<Why> {
        self.why.lock().expect("no panic while locked").take()
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place that looks after spawned tasks")]
async fn watched<F>(process: Arc<Process>, name: String, until: CancellationToken, work: F)
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(Ok(())) if until.is_cancelled() => {}
        Ok(Ok(())) => process.end(Why::Failed(anyhow::anyhow!("{name} ended before its time"))),
        Ok(Err(error)) => process.end(Why::Failed(error.context(format!("{name} failed")))),
        Err(error) => {
            let panicked = anyhow::anyhow!("{name} panicked: {}", panic_message(error));
            process.end(Why::Failed(panicked));
        }
    }
}

fn panic_message(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was cancelled".to_owned() };
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without words").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain() -> DrainConfig {
        DrainConfig { delay: Duration::ZERO, timeout: Duration::from_secs(9) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_before_its_time_stops_the_process_with_its_reason() {
        type Work = fn() -> anyhow::Result<()>;
        let failures: [(Work, &str); 3] = [
            (|| Err(anyhow::anyhow!("no milk")), "the fridge failed: no milk"),
            (|| Ok(()), "the fridge ended before its time"),
            (|| panic!("it melted"), "the fridge panicked: it melted"),
        ];
        for (work, said) in failures {
            let host = Host::new();
            host.spawn("the fridge", async move { work() });
            let error = host.run(&drain()).await.expect_err("the process cannot do without");
            assert_eq!(format!("{error:#}"), said);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_finishes_what_is_under_way_and_then_what_comes_last() {
        let host = Host::new();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = |what: &'static str| {
            let told = told.clone();
            move || told.lock().expect("no panic while locked").push(what)
        };
        let (draining, closing) = (host.draining(), host.closing());
        let (work, last) = (tell("work"), tell("last"));
        host.spawn_last("last", async move {
            closing.cancelled().await;
            last();
            Ok(())
        });
        host.track(async move {
            draining.cancelled().await;
            sleep_until(Instant::now() + Duration::from_secs(2)).await;
            work();
        });
        host.stop("closing time");
        host.run(&drain()).await.expect("it was asked to");
        assert_eq!(*told.lock().expect("no panic while locked"), ["work", "last"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_need_drains_behind_them() {
        let host = Host::new();
        let behind = host.behind();
        let (first, needed) = (host.draining(), behind.draining());
        let still_there = host.track(async move {
            first.cancelled().await;
            sleep_until(Instant::now() + Duration::from_secs(2)).await;
            !needed.is_cancelled()
        });
        behind.track({
            let draining = behind.draining();
            async move { draining.cancelled().await }
        });
        host.stop("closing time");
        host.run(&drain()).await.expect("it was asked to");
        assert!(still_there.await.expect("it ended"));
        assert!(behind.draining().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_while_the_process_stops_is_told_of() {
        let host = Host::new();
        let closing = host.closing();
        host.spawn_last("the fridge", async move {
            closing.cancelled().await;
            anyhow::bail!("it melted")
        });
        host.stop("closing time");
        let error = host.run(&drain()).await.expect_err("what it held is lost");
        assert_eq!(format!("{error:#}"), "the fridge failed: it melted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_whatever_hangs() {
        let host = Host::new();
        host.track(std::future::pending::<()>());
        host.spawn_last("last", std::future::pending());
        let begun = Instant::now();
        host.stop("closing time");
        host.run(&drain()).await.expect("it was asked to");
        assert_eq!(begun.elapsed(), Duration::from_secs(9));
    }
}
