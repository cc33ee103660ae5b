//! `starcoffee load`: real orders at a shop, how fast it takes them, and whether all it says afterwards is consistent.
//!
//! The load and its check use nothing but the shop's APIs, so they run against any shop, and they keep what they were told
//! to hold it against the shop later. The workers share one task: on a small machine the client's own cost counts.

mod basket;
mod check;
mod connection;
mod customer;
mod pace;
mod quiet;
mod report;
mod snapshot;

pub(crate) use connection::Urls;

use anyhow::{Context as _, bail};
use basket::Basket;
use check::Violation;
use clap::builder::RangedU64ValueParser;
use connection::Shop;
use contract::{
    money::Currency,
    order::v1::{ListMenuRequest, MenuItem, OrderState},
};
use customer::{Accepted, Cancel, Errors, Outcome, Plan, Sent, Worker};
use futures::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use pace::Pace;
use quiet::End;
use report::Report;
use snapshot::Snapshot;
use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::{Instant, interval};
use uuid::Uuid;

/// At a rate, as many orders can be under way: two seconds' worth, and a shop that is slower than that is too slow.
const IN_FLIGHT_SECONDS: u32 = 2;
const IN_FLIGHT_MOST: u32 = 2000;
/// Requests that are repeated when all is over, to see whether the answer is the same order.
const REPEATS: usize = 20;
/// Events in flight at the end arrive within this, or never.
const ARRIVAL: Duration = Duration::from_secs(5);
/// More do not make it clearer.
const VIOLATIONS_SHOWN: usize = 20;

/// What to load a shop with.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Orders under way at a time: each worker places its next when the last is answered
    #[arg(long, value_name = "N", default_value = "128", conflicts_with = "rate", value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000))]
    concurrency: u32,
    /// Orders a second, whether the shop keeps up or not; latency then counts from the time an order was due
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000_000))]
    rate: Option<u32>,
    /// For how long orders are placed
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The share of placed orders that is cancelled at once, from 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share)]
    cancel_share: f64,
    /// Customers who order, each `load-<run>-<n>`
    #[arg(long, value_name = "N", default_value = "64", value_parser = RangedU64ValueParser::<u16>::new().range(1..=10_000))]
    customers: u16,
    /// HTTP/2 connections to Order; one carries at most 128 calls at a time
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u16>::new().range(1..=1_000))]
    connections: Option<u16>,
    /// How long orders may stand still, PLACED or CANCELLING, before they count as stuck; longer than Order's settle-after
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    patience: Duration,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is from 0 to 1".to_owned()),
    }
}

impl Args {
    fn workers(&self) -> u32 {
        match self.rate {
            Some(rate) => rate.saturating_mul(IN_FLIGHT_SECONDS).clamp(64, IN_FLIGHT_MOST),
            None => self.concurrency,
        }
    }

    /// More connections than needed only split what could be written in one go.
    fn connections(&self) -> u16 {
        let needed = self.workers().div_ceil(100);
        self.connections.unwrap_or_else(|| u16::try_from(needed).unwrap_or(u16::MAX))
    }
}

/// Loads the shop, checks it, and reports on stdout; all else is said on stderr.
///
/// # Errors
/// The shop cannot be reached, orders are stuck, or an invariant is broken.
pub(crate) async fn run(args: Args, urls: Urls, json: bool) -> anyhow::Result<()> {
    let shop = Shop::connect(&urls, args.connections())?;
    let before = menu(&shop).await.with_context(|| format!("no menu from {}", urls.order))?;
    let (currency, mut baskets) = basket::baskets(&before)?;
    let run = Uuid::new_v4().simple().to_string();
    let mut customers: Vec<_> =
        (1..=args.customers).map(|n| format!("load-{}-{n}", &run[..8])).collect();
    let plan = Plan {
        customers: customers.clone(),
        baskets: baskets.iter().map(|basket| basket.lines.clone()).collect(),
        currency,
        cancel_share: args.cancel_share,
        pace: Pace::begin(args.duration, args.rate),
        answered: AtomicU64::new(0),
    };
    let (mut sent, mut errors) = place(&args, &shop, &plan).await;
    let end = settle(&args, &shop, &customers).await;

    if menu(&shop).await.is_ok_and(|now| now != before) {
        eprintln!("the menu has changed meanwhile: prices are not compared with it");
        baskets.iter_mut().for_each(|basket| basket.price = None);
    }
    repeat(&shop, &plan, &mut sent, &mut errors).await;
    customers.push(format!("load-{}-refused", &run[..8]));
    let probes = probe(&shop, &customers, &mut baskets, currency).await;
    let known = Snapshot { sent, probes, baskets, ..Snapshot::default() };
    let (snapshot, violations) = verify(&shop, &customers, currency, known).await?;

    let report = Report::of(&snapshot, violations.len(), errors);
    let text = if json { serde_json::to_string_pretty(&report)? } else { report.to_string() };
    // whoever closes the pipe has read enough: the verdict is the exit code
    let _read_enough = writeln!(io::stdout(), "{text}");
    judge(&report, &violations, end)
}

async fn menu(shop: &Shop) -> anyhow::Result<Vec<MenuItem>> {
    Ok(shop.order(0).list_menu(ListMenuRequest {}).await?.into_inner().menu_items)
}

/// Runs the workers until the time is over or Ctrl-C ends it early; the check follows in both cases.
async fn place(args: &Args, shop: &Shop, plan: &Plan) -> (Vec<Sent>, Errors) {
    let bar = bar(args.duration);
    let mut look = interval(Duration::from_millis(200));
    let interrupt = tokio::signal::ctrl_c();
    let workers = join_all(
        (0..args.workers())
            .map(|n| Worker::new(plan, shop, usize::try_from(n).unwrap_or_default()).work()),
    );
    tokio::pin!(interrupt, workers);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut workers => break done,
            _ = look.tick() => {
                let elapsed = plan.pace.elapsed();
                bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or_default());
                bar.set_message(format!("{} orders", plan.answered.load(Ordering::Relaxed)));
            }
            _ = &mut interrupt, if !plan.pace.stopped() => plan.pace.stop(),
        }
    };
    bar.finish_and_clear();
    let mut all = (Vec::new(), Errors::new());
    for (sent, errors) in done {
        all.0.extend(sent);
        add(&mut all.1, errors);
    }
    all
}

fn add(errors: &mut Errors, more: Errors) {
    for (reason, count) in more {
        *errors.entry(reason).or_default() += count;
    }
}

fn bar(duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {msg}");
    bar.with_style(style.expect("the template is well-formed"))
}

async fn settle(args: &Args, shop: &Shop, customers: &[String]) -> End {
    let spinner = ProgressBar::new_spinner();
    let left = |left| {
        spinner.set_message(format!("{left} orders are still on their way"));
        spinner.tick();
    };
    let end = quiet::wait(shop, customers, args.patience, left).await;
    spinner.finish_and_clear();
    if end == End::NobodyMakesCoffee {
        eprintln!(
            "no ticket has moved for 5 s: nobody makes coffee (`starcoffee up --auto-barista 2s` does)"
        );
    }
    end
}

/// Sends some requests again: they are answered with the same orders. One that is READY by now cannot be cancelled.
async fn repeat(shop: &Shop, plan: &Plan, sent: &mut [Sent], errors: &mut Errors) {
    let mut worker = Worker::new(plan, shop, 0);
    let apart = sent.len().div_ceil(REPEATS).max(1);
    for sent in sent.iter_mut().step_by(apart) {
        let Outcome::Accepted(_) = sent.outcome else { continue };
        worker.place(sent).await;
        if let Outcome::Accepted(Accepted { order_id, state: OrderState::Ready, .. }) = sent.outcome
            && sent.cancel == Cancel::None
        {
            sent.cancel = worker.cancel(order_id).await;
        }
    }
    add(errors, worker.finish().1);
}

/// Sends, for the last of `customers`, what the shop must refuse; it is none of the load, and in none of its figures.
async fn probe(
    shop: &Shop,
    customers: &[String],
    baskets: &mut Vec<Basket>,
    currency: Currency,
) -> Vec<Sent> {
    let first = baskets.len();
    baskets.extend(basket::refused());
    let plan = Plan {
        customers: customers.to_vec(),
        baskets: baskets.iter().map(|basket| basket.lines.clone()).collect(),
        currency,
        cancel_share: 0.0,
        pace: Pace::begin(Duration::ZERO, None),
        answered: AtomicU64::new(0),
    };
    let mut worker = Worker::new(&plan, shop, 0);
    let mut probes = Vec::new();
    for basket in first..baskets.len() {
        let mut probe = Sent::new(customers.len() - 1, basket);
        worker.place(&mut probe).await;
        probes.push(probe);
    }
    probes
}

/// Reads and checks until all is as it should be, or until what is missing has had its time to arrive.
async fn verify(
    shop: &Shop,
    customers: &[String],
    currency: Currency,
    known: Snapshot,
) -> anyhow::Result<(Snapshot, Vec<Violation>)> {
    let Snapshot { mut sent, probes, baskets, .. } = known;
    let deadline = Instant::now() + ARRIVAL;
    let mut look = interval(Duration::from_secs(1));
    loop {
        look.tick().await;
        let read = snapshot::read(shop, customers, currency).await;
        let late = Instant::now() >= deadline;
        let Ok(read) = read else {
            if late {
                return Err(read.expect_err("just matched").context("cannot check the shop"));
            }
            continue;
        };
        let (probes, baskets) = (probes.clone(), baskets.clone());
        let mut snapshot = Snapshot { sent, probes, baskets, ..read };
        let violations = check::check(&snapshot);
        if violations.is_empty() || late {
            return Ok((snapshot, violations));
        }
        sent = std::mem::take(&mut snapshot.sent);
    }
}

fn judge(report: &Report, violations: &[Violation], end: End) -> anyhow::Result<()> {
    for violation in violations.iter().take(VIOLATIONS_SHOWN) {
        eprintln!("{violation}");
    }
    if violations.len() > VIOLATIONS_SHOWN {
        eprintln!("and {} more", violations.len() - VIOLATIONS_SHOWN);
    }
    if !violations.is_empty() || report.stuck > 0 || end == End::Stuck {
        bail!("{} violations, {} orders stuck", violations.len(), report.stuck);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_load_is_either_so_many_at_a_time_or_so_many_a_second() {
        let parse = |line: &str| Command::try_parse_from(line.split(' '));
        let args = |line| parse(line).map(|command| command.args).expect("well-formed");
        assert_eq!(args("load --concurrency 16").workers(), 16);
        assert_eq!(args("load --rate 500").workers(), 1000);
        assert_eq!(args("load --rate 500").connections(), 10);
        assert_eq!(args("load").connections(), 2, "one connection carries 128 calls at most");
        for malformed in ["--rate 5 --concurrency 5", "--rate 0", "--cancel-share 1.1"] {
            assert!(parse(&format!("load {malformed}")).is_err(), "{malformed}");
        }
    }
}
