//! The mesh's figures, goal beside figure: `cargo run --release -p mesh --example figures -- --seconds 60`.
//!
//! Each server has a thread, and all callers together another, as two processes would; both speak over loopback. Ratios are of
//! one run on one machine, and count more than absolute figures. What needs a whole shop is measured elsewhere.

mod cost;
mod echo;
mod faults;
mod overload;

use anyhow::Context as _;
use std::time::Duration;

/// How long an overload is to last that is worth the name.
const SECONDS: u32 = 60;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let seconds = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => SECONDS,
        ["--seconds", seconds] => seconds.parse().context("how many seconds?")?,
        _ => anyhow::bail!("figures [--seconds SECONDS]"),
    };
    let whole = Duration::from_secs(u64::from(seconds.max(1)));
    if cfg!(debug_assertions) {
        println!("this is a debug build: it shows that the figures can be taken, no more");
    }
    cost::calls(whole / 40).await?;
    cost::breaker((whole / 40).max(Duration::from_millis(200))).await?;
    cost::shed().await?;
    overload::run(whole).await?;
    faults::run(whole / 6).await
}

/// A line of the table.
struct Row {
    what: String,
    goal: &'static str,
}

impl Row {
    fn head() {
        println!("| what | goal | seen | |\n|---|---|---|---|");
    }

    fn new(what: impl Into<String>, goal: &'static str) -> Self {
        Self { what: what.into(), goal }
    }

    fn met(self, met: bool, seen: impl std::fmt::Display) {
        let verdict = if met { "met" } else { "missed" };
        println!("| {} | {} | {seen} | {verdict} |", self.what, self.goal);
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut of: Vec<f64>) -> f64 {
    percentile(&mut of, 50)
}

/// Of nothing it is infinite: nothing was answered.
fn percentile(of: &mut [f64], percent: usize) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get((of.len() * percent / 100).min(of.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::INFINITY)
}
