//! The whole shop, as people run it: each story opens the binary, in one process or in one for each service, with its own
//! data.

mod breaking;
mod cancelling;
mod commands;
mod crashing;
mod demonstrating;
mod events;
mod filling;
mod loading;
mod opening;
mod ordering;
mod original;
mod parting;
mod people;
mod repeating;
mod replicating;
mod returning;
mod rolling;
mod securing;
mod serving;
mod settling;
mod stopping;
mod tables;

use std::path::Path;
use testbed::Shop;

/// The binary these tests were built with.
fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_starcoffee"))
}

/// A new shop; `arguments` follow `up`.
async fn open(arguments: &[&str]) -> anyhow::Result<Shop> {
    Shop::open(binary(), arguments).await
}

/// How long or how often: `usual`, unless the variable says otherwise, as `just soak` does.
#[allow(clippy::disallowed_methods, reason = "cargo test hands tests no arguments of ours")]
fn amount(variable: &str, usual: u32) -> u32 {
    let Ok(text) = std::env::var(variable) else { return usual };
    text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a number is wanted"))
}
