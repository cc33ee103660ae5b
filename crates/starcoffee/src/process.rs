//! What `up` and `serve` have in common: the settings of a process that serves, and its life.

use crate::ready_file::ReadyFile;
use chassis::{DrainConfig, Guard, Host, LogConfig, Signals};
use clap::builder::RangedU64ValueParser;
use contract::{DESCRIPTORS, money::Currency, payment::v1::payment_service_server::SERVICE_NAME};
use futures::poll;
use mesh::{Channel, Policies, Upstream, tls};
use serde::Serialize;
use std::{path::PathBuf, pin::pin, task::Poll};
use tokio::runtime::{Builder, Runtime};

/// The settings of a process that serves.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Config {
    /// Threads that run the services; with 1 no work is handed from thread to thread
    #[arg(long, env = "STARCOFFEE_RUNTIME_THREADS", value_name = "N", default_value = "1")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    #[arg(help_heading = "Process")]
    pub(crate) runtime_threads: usize,
    #[command(flatten)]
    pub(crate) guard: Guard,
    #[command(flatten)]
    pub(crate) drain: DrainConfig,
    #[command(flatten)]
    pub(crate) log: LogConfig,
}

/// What those who deal with money are given.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Till {
    /// The shop's only currency, by its ISO 4217 code; the menu's prices must be in it
    #[arg(long, env = "STARCOFFEE_CURRENCY", value_name = "CODE", default_value = "USD")]
    #[arg(help_heading = "Money")]
    pub(crate) currency: Currency,
}

/// How other services are called.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Calls {
    /// How calls to other services are made, a TOML file that is read again when it changes: deadlines, attempts, breakers
    /// [default: what is built in, see `starcoffee mesh`]
    #[arg(long, env = "STARCOFFEE_POLICIES", value_name = "FILE")]
    #[arg(help_heading = "Calls to other services")]
    policies: Option<PathBuf>,
}

impl Calls {
    /// The way to Payment; the flag is what sets the URLs.
    ///
    /// # Errors
    /// A URL or the policies are malformed.
    pub(crate) fn payment(
        &self,
        host: &Host,
        urls: String,
        flag: &'static str,
        tls: Option<tls::Client>,
    ) -> anyhow::Result<Channel> {
        let policies = Policies::open(host, self.policies.as_deref(), "--policies")?;
        let (name, service, descriptors) = ("payment", SERVICE_NAME, DESCRIPTORS);
        Channel::open(host, Upstream { name, urls, flag, service, descriptors, policies, tls })
    }
}

impl Config {
    /// Runs what serves, to its end. It comes boxed: it may be the state of a whole shop.
    ///
    /// # Errors
    /// The process's settings make no sense, or what it ended with.
    pub(crate) fn run(
        &self,
        work: std::pin::Pin<Box<impl Future<Output = anyhow::Result<()>>>>,
    ) -> anyhow::Result<()> {
        self.log.init()?;
        let runtime = runtime(self.runtime_threads)?;
        let ended = runtime.block_on(work);
        // a thread that waits, for a file on a server that is gone for example, must not keep the process alive
        runtime.shutdown_background();
        ended
    }
}

/// Opens something, unless the process is asked to stop before it is done, as it may wait for a database for long: nothing is
/// served yet, and what was begun is taken up by the next start, so that there is nothing to drain.
///
/// # Errors
/// It cannot be opened.
pub(crate) async fn unless_stopped<T>(
    signals: &mut Signals,
    open: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        biased;
        name = signals.next() => {
            tracing::info!("stopping: {name}, before anything was served");
            Ok(None)
        }
        opened = open => opened.map(Some),
    }
}

/// Tells that all of it serves, where and to whom `open` likes to tell it, and stays until the process is to end.
///
/// # Errors
/// The ready file cannot be written, or a task ended before its time.
pub(crate) async fn keep(
    host: &Host,
    signals: Signals,
    drain: &DrainConfig,
    ready_file: ReadyFile,
    addresses: &impl Serialize,
    open: impl FnOnce(),
) -> anyhow::Result<()> {
    let mut run = pin!(host.run_hearing(signals, drain));
    if let Poll::Ready(ended) = poll!(run.as_mut()) {
        return ended;
    }
    ready_file.write(addresses)?;
    open();
    let stopping = host.stopping();
    host.track(async move {
        stopping.cancelled().await;
        drop(ready_file);
    });
    run.await
}

/// A runtime; one thread is the calling one.
pub(crate) fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?)
}
