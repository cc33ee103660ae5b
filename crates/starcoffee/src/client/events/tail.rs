//! `starcoffee events tail`: what the services told, merged in the order of the events' ids.

use super::{
    super::{
        failure::Failure,
        output::Output,
        shop::Shop,
        table::{Cell, Column, ID, Row, time},
    },
    Ops, Teller, presentable, short,
};
use contract::ops::v1::{Event, ListEventsRequest, ListEventsResponse};
use futures::{StreamExt as _, stream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::Streaming;
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
        for peer in self.service.peers(shop) {
            tails.push(Tail::open(Ops::at(peer)?, &self.order, after.clone()).await?);
        }
        let mut out = Output::new(shop);
        while let Some(next) = tails
            .iter_mut()
            .filter(|tail| tail.next.is_some())
            .min_by(|one, other| one.key().cmp(&other.key()))
        {
            if let Some(event) = next.advance().await? {
                out.next(&event)?;
            }
        }
        if self.follow { self.follow(tails, out).await } else { Ok(()) }
    }

    async fn follow(self, tails: Vec<Tail<'_>>, mut out: Output) -> Result<(), Failure> {
        let mut all = Vec::new();
        for Tail { mut ops, last, .. } in tails {
            let request =
                ListEventsRequest { order_id: self.order.clone(), after: last, follow: true };
            let events = ops.client.list_events(request).await;
            let events = events.map_err(|status| ops.peer.failure(&status))?.into_inner();
            let peer = ops.peer;
            all.push(events.map(move |event| event.map_err(|status| peer.failure(&status))));
        }
        let mut events = stream::select_all(all);
        while let Some(event) = events.next().await {
            if let Some(event) = event?.event {
                out.next(&presentable(event))?;
            }
        }
        Ok(())
    }
}

impl<'a> Tail<'a> {
    async fn open(mut ops: Ops<'a>, order: &str, after: String) -> Result<Self, Failure> {
        let request =
            ListEventsRequest { order_id: order.to_owned(), after: after.clone(), follow: false };
        let events = ops.client.list_events(request).await;
        let events = events.map_err(|status| ops.peer.failure(&status))?.into_inner();
        let mut tail = Self { ops, events, next: None, last: after };
        tail.advance().await?;
        Ok(tail)
    }

    /// What orders the heads: ids are UUIDs of one spelling, so their text sorts as they do.
    fn key(&self) -> Option<&str> {
        self.next.as_ref().map(|event| event.event_id.as_str())
    }

    /// Takes the next event, and reads the one after it.
    async fn advance(&mut self) -> Result<Option<Event>, Failure> {
        let peer = self.ops.peer;
        let read = self.events.message().await.map_err(|status| peer.failure(&status))?;
        let read = read.and_then(|message| message.event).map(presentable);
        let taken = std::mem::replace(&mut self.next, read);
        if let Some(event) = &taken {
            self.last.clone_from(&event.event_id);
        }
        Ok(taken)
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
