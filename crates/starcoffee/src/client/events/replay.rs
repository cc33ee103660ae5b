//! `starcoffee events replay`: what is in the outboxes is published again.

use super::{
    super::{
        failure::Failure,
        shop::{Format, Shop, ask},
        table::{self, Cell, Column, Row},
    },
    Failures, Hearer, Ops, Teller,
};
use contract::ops::v1::ReplayEventsRequest;
use indicatif::{ProgressBar, ProgressStyle};
use prost_types::Timestamp;
use serde::Serialize;
use std::{
    io::Write as _,
    time::{Duration, SystemTime},
};

/// Which events, and for whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what this service told
    #[arg(long, default_value = "all")]
    service: Teller,
    /// Only what was told of this order
    #[arg(long, value_name = "UUID", default_value = "", hide_default_value = true)]
    order: String,
    /// Only what was told since so long ago
    #[arg(long, value_name = "DURATION", value_parser = chassis::args::duration)]
    #[arg(conflicts_with = "from")]
    since: Option<Duration>,
    /// Only what was told since this time, in RFC 3339 and UTC
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    from: Option<SystemTime>,
    /// The one service it is for; all others leave it unread [default: all]
    #[arg(long = "for", value_name = "SERVICE", value_parser = Hearer::one())]
    consumer: Option<Hearer>,
}

/// What a service told again.
#[derive(Debug, Serialize)]
struct Told {
    service: String,
    events: i64,
}

impl Args {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let since = self.since.map(|since| SystemTime::now().checked_sub(since));
        let start_time = self.from.or(since.flatten()).map(Timestamp::from);
        let consumer = self.consumer.map(Hearer::name).unwrap_or_default();
        let (mut all, bar, mut failures) = (Vec::new(), progress(), Failures::default());
        for peer in self.service.peers(shop) {
            let mut ops = Ops::at(peer)?;
            let service = peer.name.to_lowercase();
            let (mut after, mut events, mut done) = (String::new(), 0, false);
            while !done {
                bar.set_message(format!("{service}: {events} events"));
                let request = ReplayEventsRequest {
                    order_id: self.order.clone(),
                    start_time,
                    consumer: consumer.clone(),
                    after,
                };
                let answer = match ops.client.replay_events(ask(request)).await {
                    Ok(answer) => answer.into_inner(),
                    Err(status) => {
                        failures.add(peer, &status)?;
                        break;
                    }
                };
                events += answer.event_count;
                (after, done) = (answer.last_event_id, answer.done);
            }
            // it may have been cut off, but these are told
            if done || events > 0 {
                all.push(Told { service, events });
            }
        }
        bar.finish_and_clear();
        let mut out = anstream::stdout();
        match shop.format {
            _ if all.is_empty() => {}
            Format::Table => table::rows(&mut out, &all)?,
            Format::Json => writeln!(out, "{:#}", serde_json::json!({ "replayed": all }))?,
        }
        out.flush()?;
        failures.end()
    }
}

/// For a person who waits: shown on a terminal only.
pub(super) fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}");
    bar.set_style(style.expect("the template is ours"));
    bar.enable_steady_tick(Duration::from_millis(200)); // it moves, but does not flicker
    bar
}

impl Row for Told {
    const COLUMNS: &'static [Column] = &[("SERVICE", 7), ("EVENTS", 0)];

    fn cells(&self) -> Vec<Cell> {
        vec![self.service.as_str().into(), self.events.to_string().into()]
    }
}
