//! `starcoffee load`: real orders at a shop, how fast it takes them, and whether all it says afterwards is consistent.
//!
//! The load and its check use nothing but the shop's APIs, so they run against any shop, and they keep what they were told
//! to hold it against the shop later. The workers share one task: on a small machine the client's own cost counts.

mod again;
mod answers;
mod basket;
mod check;
mod connection;
mod customer;
mod ledger;
mod pace;
mod page;
mod quiet;
mod report;
mod snapshot;

pub(crate) use connection::Urls;

use answers::{Answers, Figures};
use anyhow::{Context as _, bail};
use basket::Basket;
use chassis::Signals;
use check::Violation;
use clap::builder::RangedU64ValueParser;
use connection::Shop;
use contract::order::v1::{ListMenuRequest, MenuItem};
use customer::{ATTEMPTS, Errors, Plan, Sent, Worker, add};
use futures::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use pace::Pace;
use quiet::End;
use report::{Latency, Report, Unchecked};
use serde::Serialize;
use snapshot::Snapshot;
use std::{
    cell::RefCell,
    fmt,
    io::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

/// At a rate, as many orders can be under way: two seconds' worth, and a shop that is slower than that is too slow.
const IN_FLIGHT_SECONDS: u32 = 2;
const IN_FLIGHT_MOST: u32 = 2000;
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
    /// How often a request is sent until it is answered with an order; with 1 its customer gives up, and orders something else
    #[arg(long, value_name = "N", default_value_t = ATTEMPTS, value_parser = RangedU64ValueParser::<u32>::new().range(1..=100))]
    attempts: u32,
    /// How long a worker waits between two orders
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    think_time: Duration,
    /// What counts as a quick answer, of whatever kind; their share is reported
    #[arg(long, value_name = "DURATION", default_value = "650ms", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Report when the last order is answered, and check nothing: what became of the orders is not asked
    #[arg(long)]
    no_check: bool,
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
/// The shop cannot be reached, orders are stuck, an invariant is broken, or it was interrupted before it could tell.
pub(crate) async fn run(args: Args, urls: Urls, json: bool) -> anyhow::Result<()> {
    let shop = Shop::connect(&urls, args.connections())?;
    let menu = menu(&shop).await.with_context(|| format!("no menu from {}", urls.order))?;
    let (currency, baskets) = basket::baskets(&menu)?;
    let run = Uuid::new_v4().simple().to_string();
    let plan = Plan {
        customers: (1..=args.customers).map(|n| format!("load-{}-{n}", &run[..8])).collect(),
        baskets: baskets.iter().map(|basket| basket.lines.clone()).collect(),
        currency,
        cancel_share: args.cancel_share,
        attempts: args.attempts,
        think_time: args.think_time,
        within: args.within,
        pace: Pace::begin(args.duration, args.rate),
        answered: AtomicU64::new(0),
    };
    let refused = format!("load-{}-refused", &run[..8]);
    let load = Load { args, shop, menu, baskets, plan, refused };

    // one pair of ears for the whole run: a signal between two steps is heard
    let mut signals = Signals::new()?;
    let begun = Instant::now();
    let placed = load.place(&mut signals).await?;
    let answers = placed.answers.figures(begun.elapsed());
    if load.args.no_check {
        let latency_ms = Latency::of(placed.sent.iter().map(|sent| sent.latency));
        show(&Unchecked { answers, latency_ms, errors: placed.errors }, json)?;
        return Ok(());
    }
    let (report, violations, end) = tokio::select! {
        biased;
        checked = load.check(placed, answers) => checked?,
        _signal = signals.next() => bail!("interrupted: nobody knows whether the shop is consistent"),
    };
    show(&report, json)?;
    judge(&report, &violations, end)
}

/// Whoever closes the pipe has read enough: the verdict is the exit code.
fn show(report: &(impl Serialize + fmt::Display), json: bool) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? } else { report.to_string() };
    let _read_enough = writeln!(io::stdout(), "{text}");
    Ok(())
}

async fn menu(shop: &Shop) -> anyhow::Result<Vec<MenuItem>> {
    let mut order = shop.order(0);
    Ok(connection::answer(order.list_menu(ListMenuRequest {})).await?.menu_items)
}

/// A run.
struct Load {
    args: Args,
    shop: Shop,
    /// As it was before.
    menu: Vec<MenuItem>,
    baskets: Vec<Basket>,
    plan: Plan,
    /// The customer who is always refused.
    refused: String,
}

/// What came of placing orders.
struct Placed {
    sent: Vec<Sent>,
    answers: Answers,
    errors: Errors,
    /// From the commit of an event to a customer who watches.
    lags: Vec<Duration>,
}

impl Load {
    /// Runs the workers until the time is over or Ctrl-C ends it early; the check follows in both cases. A second Ctrl-C ends
    /// it all.
    async fn place(&self, signals: &mut Signals) -> anyhow::Result<Placed> {
        let Self { args, shop, plan, .. } = self;
        let bar = bar(args.duration);
        let mut look = interval(Duration::from_millis(200));
        let workers = join_all(
            (0..args.workers())
                .map(|n| Worker::new(plan, shop, usize::try_from(n).unwrap_or_default()).work()),
        );
        tokio::pin!(workers);
        let lags = RefCell::new(Vec::new());
        let mut watching = Box::pin(page::watch(shop, &plan.customers, &lags));
        let done = loop {
            tokio::select! {
                biased;
                done = &mut workers => break done,
                never = &mut watching => match never {},
                _ = look.tick() => {
                    let elapsed = plan.pace.elapsed();
                    bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or_default());
                    bar.set_message(format!("{} orders", plan.answered.load(Ordering::Relaxed)));
                }
                _signal = signals.next() => {
                    if plan.pace.stopped() {
                        bail!("interrupted: orders were still unanswered, and nothing is checked");
                    }
                    plan.pace.stop();
                    bar.suspend(|| eprintln!("no more orders; Ctrl-C again ends the check, too"));
                }
            }
        };
        bar.finish_and_clear();
        drop(watching);
        let (answers, lags) = (Answers::new(args.within), lags.take());
        let mut all = Placed { sent: Vec::new(), answers, errors: Errors::new(), lags };
        for (sent, errors, answers) in done {
            all.sent.extend(sent);
            all.answers += answers;
            add(&mut all.errors, errors);
        }
        Ok(all)
    }

    /// Waits until all is quiet, asks again where that tells more, and holds what was sent against what the shop says.
    async fn check(
        &self,
        placed: Placed,
        answers: Figures,
    ) -> anyhow::Result<(Report, Vec<Violation>, End)> {
        let Self { args, shop, plan, .. } = self;
        let Placed { mut sent, mut errors, lags, .. } = placed;
        let mut baskets = self.baskets.clone();
        let mut end = self.settle().await;
        let patience = Instant::now() + args.patience;
        if again::resolve(shop, plan, patience, &mut sent, &mut errors).await {
            end = self.settle().await;
        }
        if menu(shop).await.is_ok_and(|now| now != self.menu) {
            eprintln!("the menu has changed meanwhile: prices are not compared with it");
            baskets.iter_mut().for_each(|basket| basket.price = None);
        }
        let patience = Instant::now() + args.patience;
        again::repeat(shop, plan, patience, &mut sent, &mut errors).await;
        let mut customers = plan.customers.clone();
        customers.push(self.refused.clone());
        let probes = again::probe(shop, plan, patience, &customers, &mut baskets).await;
        let known = Snapshot { sent, probes, baskets, ..Snapshot::default() };
        let read = async || snapshot::read(shop, &customers, plan.currency).await;
        let (snapshot, violations) = verify(read, known).await?;
        let report = Report::of(&snapshot, violations.len(), answers, errors, &lags);
        Ok((report, violations, end))
    }

    async fn settle(&self) -> End {
        let Self { args, shop, plan, .. } = self;
        let spinner = ProgressBar::new_spinner();
        let left = |left| {
            spinner.set_message(format!("{left} orders are still on their way"));
            spinner.tick();
        };
        let end = quiet::wait(shop, &plan.customers, args.patience, left).await;
        spinner.finish_and_clear();
        if let End::NobodyMakesCoffee(still) = end {
            let still = still.as_secs();
            eprintln!(
                "no ticket has moved for {still} s: nobody makes coffee (`starcoffee up --auto-barista 2s` does)"
            );
        }
        end
    }
}

fn bar(duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {msg}");
    bar.with_style(style.expect("the template is well-formed"))
}

/// Reads and checks until all is as it should be, or until what is missing has had its time to arrive: from the first read
/// on, however long that took, and before the last one began.
async fn verify(
    read: impl AsyncFn() -> anyhow::Result<Snapshot>,
    known: Snapshot,
) -> anyhow::Result<(Snapshot, Vec<Violation>)> {
    let Snapshot { mut sent, probes, baskets, .. } = known;
    let mut deadline = None;
    let mut look = interval(Duration::from_secs(1));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let read = read().await;
        deadline.get_or_insert_with(|| Instant::now() + ARRIVAL);
        let read = match read {
            Ok(read) => read,
            Err(error) if late => return Err(error.context("cannot check the shop")),
            Err(_not_now) => continue,
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
    use std::cell::Cell;

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

    #[tokio::test(start_paused = true)]
    async fn what_arrives_while_the_first_read_takes_long_is_no_violation() {
        let whole = check::tests::quiet_shop();
        let known = Snapshot { baskets: whole.baskets.clone(), ..Snapshot::default() };
        let known = Snapshot { sent: whole.sent.clone(), ..known };
        let reads = Cell::new(0);
        let read = async || {
            tokio::time::advance(ARRIVAL * 2).await;
            let mut read = whole.clone();
            // an event is still in flight when the first read begins
            if reads.replace(reads.get() + 1) == 0 {
                read.mine.pop();
            }
            Ok(read)
        };
        let (_, violations) = verify(read, known.clone()).await.expect("it can be read");
        assert_eq!((violations, reads.get()), (vec![], 2));

        let never = async || Ok(Snapshot { mine: Vec::new(), ..whole.clone() });
        let (_, violations) = verify(never, known.clone()).await.expect("it can be read");
        assert!(!violations.is_empty());
        let away = async || anyhow::bail!("away");
        assert!(verify(away, known).await.is_err());
    }
}
