//! Real shops for tests: the binary people run, in a process of its own or in one for each service, on free ports and in a
//! directory of its own, so that a test can kill it, stop it, start it again on the same data, and look into it in between.
//!
//! Only a dev-dependency. Nothing here sleeps: a test waits for a condition, with a deadline that ends in a clear error.

pub mod certificates;
mod doors;
mod ear;
mod engine;
mod fleet;
pub mod matrix;
mod nats;
mod ports;
mod proxy;
mod server;
mod shop;
mod view;
mod wire;

pub use doors::Doors;
pub use ear::{Ear, names};
pub use engine::{DatabaseServer, Engine};
pub use fleet::{Fleet, Plan, Service};
pub use matrix::{TestDatabase, database, database_on};
pub use nats::Nats;
pub use proxy::{Block, Faults, Proxy};
pub use shop::{Addresses, Process, Shop, run};
pub use view::View;
pub use wire::Wire;

use std::{future::Future, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often a condition is looked at: often enough that a test loses no time, seldom enough to leave two cores alone.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until `condition` gives something, at most `within`.
///
/// # Errors
/// The time is over: names `what` was waited for.
pub async fn until<T, F>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + within;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if let Some(found) = condition().await {
            return Ok(found);
        }
        anyhow::ensure!(Instant::now() < deadline, "waited {within:?} in vain for {what}");
    }
}
