//! `starcoffee events tail`: what the services told, merged in the order of the events' ids.

use super::{
    super::{
        failure::Failure,
        output::Output,
        shop::Shop,
        table::{Cell, Column, ID, Row, time},
    },
    Failures, Ops, Teller, presentable, short,
};
use contract::ops::v1::{Event, ListEventsRequest, ListEventsResponse};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::{Status, Streaming};
use uuid::Uuid;

/// How far back it goes when nothing else is said: as much as a person reads.
const RECENT: Duration = Duration::from_secs(600);

/// Which events.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what this service told
    #[arg(long, default_value = "all")]
    service: Teller,
    /// Only what was told of this order
    #[arg(long, value_name = "UUID", default_value = "", hide_default_value = true)]
    order: String,
    /// How far back to go [default: 10m, or all of it with --order]
    #[arg(long, value_name = "DURATION", value_parser = chassis::args::duration)]
    since: Option<Duration>,
    /// Go on with what comes, until Ctrl-C
    #[arg(short = 'f', long)]
    follow: bool,
}

/// One service's events.
struct Tail<'a> {
    ops: Ops<'a>,
    events: Streaming<ListEventsResponse>,
    /// The one that is to be shown next.
    next: Option<Event>,
    last: String,
}

impl Args {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let recent = self.order.is_empty().then_some(RECENT);
        let after = self.since.or(recent).map(id_before).unwrap_or_default();
        let mut tails = Vec::new();
        let mut failures = Failures::default();
        for peer in self.service.peers(shop) {
            match Tail::open(Ops::at(peer)?, &self.order, after.clone()).await {
                Ok(tail) => tails.push(tail),
                Err(status) => failures.add(peer, &status)?,
            }
        }
        let mut out = Output::new(shop);
        if !tails.is_empty() {
            out.begin::<Event>()?;
        }
        while let Some(next) = tails
            .iter_mut()
            .filter(|tail| tail.next.is_some())
            .min_by(|one, other| one.key().cmp(&other.key()))
        {
            let (event, read) = next.advance().await;
            if let Some(event) = event {
                out.next(&event)?;
            }
            if let Err(status) = read {
                failures.add(next.ops.peer, &status)?;
            }
        }
        if self.follow { self.follow(tails, out, failures).await } else { failures.end() }
    }

    /// As long as there is a service to follow.
    async fn follow(
        self,
        tails: Vec<Tail<'_>>,
        mut out: Output,
        mut failures: Failures,
    ) -> Result<(), Failure> {
        let mut all = Vec::new();
        for Tail { mut ops, last, .. } in tails {
            let request =
                ListEventsRequest { order_id: self.order.clone(), after: last, follow: true };
            let peer = ops.peer;
            match ops.client.list_events(request).await {
                Ok(events) => all.push(events.into_inner().map_err(move |status| (peer, status))),
                Err(status) => failures.add(peer, &status)?,
            }
        }
        let (mut left, mut events) = (all.len(), stream::select_all(all));
        loop {
            if left > 0 {
                failures.warn();
            }
            match events.next().await {
                None => return failures.end(),
                Some(Ok(message)) => {
                    if let Some(event) = message.event {
                        out.next(&presentable(event))?;
                    }
                }
                Some(Err((peer, status))) => {
                    left -= 1;
                    failures.add(peer, &status)?;
                }
            }
        }
    }
}

impl<'a> Tail<'a> {
    async fn open(mut ops: Ops<'a>, order: &str, after: String) -> Result<Self, Status> {
        let request =
            ListEventsRequest { order_id: order.to_owned(), after: after.clone(), follow: false };
        let events = ops.client.list_events(request).await?.into_inner();
        let mut tail = Self { ops, events, next: None, last: after };
        let (_none_before_it, read) = tail.advance().await;
        read.map(|()| tail)
    }

    /// What orders the heads: ids are UUIDs of one spelling, so their text sorts as they do.
    fn key(&self) -> Option<&str> {
        self.next.as_ref().map(|event| event.event_id.as_str())
    }

    /// Takes the next event, and reads the one after it; there is none if it cannot be read.
    async fn advance(&mut self) -> (Option<Event>, Result<(), Status>) {
        let (read, told) = match self.events.message().await {
            Ok(message) => (message.and_then(|message| message.event).map(presentable), Ok(())),
            Err(status) => (None, Err(status)),
        };
        let taken = std::mem::replace(&mut self.next, read);
        if let Some(event) = &taken {
            self.last.clone_from(&event.event_id);
        }
        (taken, told)
    }
}

/// An id that comes before all that were made since.
fn id_before(since: Duration) -> String {
    let then = SystemTime::now().checked_sub(since).unwrap_or(UNIX_EPOCH);
    let millis = then.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    // the nil id is no id, and nothing was told in 1970
    Uuid::from_u128(millis.max(1) << 80).to_string()
}

impl Row for Event {
    const COLUMNS: &'static [Column] =
        &[("TIME", 20), ("EVENT", 22), ("ORDER", ID), ("ID", ID), ("PUBLISHED", 0)];

    fn cells(&self) -> Vec<Cell> {
        let published = if self.published { "" } else { "not yet" };
        vec![
            time(self.event_time),
            short(&self.r#type).into(),
            self.order_id.as_str().into(),
            self.event_id.as_str().into(),
            published.into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_then_comes_before_all_made_since() {
        let before = id_before(Duration::from_millis(5));
        assert!(before < Uuid::now_v7().to_string());
        assert!(before > id_before(Duration::from_secs(1)));
        assert_ne!(id_before(Duration::MAX), Uuid::nil().to_string());
    }
}
