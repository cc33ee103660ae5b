//! What `up` and `serve` have in common: the settings of a process that serves.

use chassis::{DrainConfig, Guard, LogConfig};
use clap::builder::RangedU64ValueParser;
use contract::money::Currency;
use tokio::runtime::{Builder, Runtime};

/// The settings of a process that serves.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Config {
    /// The shop's only currency, by its ISO 4217 code; the menu's prices must be in it
    #[arg(long, env = "STARCOFFEE_CURRENCY", value_name = "CODE", default_value = "USD")]
    pub(crate) currency: Currency,
    /// Threads that run the services; with 1 no work is handed from thread to thread
    #[arg(long, env = "STARCOFFEE_RUNTIME_THREADS", value_name = "N", default_value = "1")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub(crate) runtime_threads: usize,
    #[command(flatten)]
    pub(crate) guard: Guard,
    #[command(flatten)]
    pub(crate) drain: DrainConfig,
    #[command(flatten)]
    pub(crate) log: LogConfig,
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
