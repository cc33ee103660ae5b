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
#[derive(Clone, Debug, Default)]
pub struct Host(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stopping: CancellationToken,
    draining: CancellationToken,
    closing: CancellationToken,
    work: TaskTracker,
    last: TaskTracker,
    why: Mutex<Option<Why>>,
}

/// Why the process stops.
#[derive(Debug)]
enum Why {
    Asked(String),
    Failed(anyhow::Error),
}

impl Host {
    /// A host without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process is to stop: readiness says no from then on, all else goes on.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// Cancelled when nothing new is to be begun: listeners, watches and loops end; what is under way is finished.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// Cancelled when all else has ended: what others needed until then ends, too.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }

    /// Runs what the process cannot do without until [`Self::draining`]. If it fails, panics or ends before, the process
    /// stops and says why.
    pub fn spawn<F>(&self, name: impl Into<String>, work: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let watched = self.clone().watched(name.into(), self.draining(), work);
        self.0.work.spawn(watched);
    }

    /// As [`Self::spawn`], for what others need while they drain: it runs until [`Self::closing`].
    pub fn spawn_last<F>(&self, name: impl Into<String>, work: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let watched = self.clone().watched(name.into(), self.closing(), work);
        self.0.last.spawn(watched);
    }

    /// Runs something to its end, whether or not anybody waits for it; a drain waits.
    pub fn track<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.0.work.spawn(work)
    }

    /// Asks the process to stop, as a signal does.
    pub fn stop(&self, why: impl Into<String>) {
        self.end(Why::Asked(why.into()));
    }

    /// Waits until the process is to stop: by a signal (SIGTERM or Ctrl-C), by [`Self::stop`], or because a task ended.
    /// Then drains it, at most as long as `drain` says. A second signal ends the wait at once.
    ///
    /// # Errors
    /// A task ended that should not have.
    pub async fn run(&self, drain: &DrainConfig) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        tokio::select! {
            name = signals.next() => self.stop(name),
            () = self.0.stopping.cancelled() => {}
        }
        let failed = match self.why() {
            Some(Why::Failed(error)) => Some(error),
            Some(Why::Asked(why)) => {
                tracing::info!("stopping: {why}");
                None
            }
            None => None,
        };
        tokio::select! {
            () = self.drain(drain, failed.is_some()) => {}
            name = signals.next() => tracing::warn!("stopping at once: {name} again"),
        }
        failed.map_or(Ok(()), Err)
    }

    async fn drain(&self, drain: &DrainConfig, failed: bool) {
        let Inner { draining, closing, work, last, .. } = &*self.0;
        if !failed {
            sleep_until(Instant::now() + drain.delay).await;
        }
        let end = Instant::now() + drain.timeout;
        draining.cancel();
        work.close();
        if timeout_at(end - LAST.min(drain.timeout / 2), work.wait()).await.is_err() {
            tracing::warn!(
                "{} tasks did not end in time and are cut off (--drain-timeout)",
                work.len()
            );
        }
        closing.cancel();
        last.close();
        if timeout_at(end, last.wait()).await.is_err() {
            tracing::warn!(
                "{} of the last tasks did not end in time (--drain-timeout)",
                last.len()
            );
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that looks after spawned tasks")]
    async fn watched<F>(self, name: String, until: CancellationToken, work: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let failure = match tokio::spawn(work).await {
            Ok(Ok(())) if until.is_cancelled() => return,
            Ok(Ok(())) => anyhow::anyhow!("{name} ended before its time"),
            Ok(Err(error)) => error.context(format!("{name} failed")),
            Err(error) => anyhow::anyhow!("{name} panicked: {}", panic_message(error)),
        };
        if until.is_cancelled() {
            tracing::warn!("while stopping: {failure:#}");
        } else {
            self.end(Why::Failed(failure));
        }
    }

    /// The first reason counts; what fails because of it is no reason.
    fn end(&self, why: Why) {
        self.0.why.lock().expect("no panic while locked").get_or_insert(why);
        self.0.stopping.cancel();
    }

    fn why(&self) -> Option<Why> {
        self.0.why.lock().expect("no panic while locked").take()
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

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[allow(clippy::unnecessary_wraps, reason = "the shape that other systems need")]
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(_cannot_listen) => std::future::pending().await,
        }
    }
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
