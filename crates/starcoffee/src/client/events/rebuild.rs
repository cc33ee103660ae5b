//! `starcoffee events rebuild`: brings all events there are to a service that builds what it shows anew.
//!
//! The events come from the services' outboxes by way of this command, and not over the bus: each batch is answered when it is
//! merged, so that it is known when all are. Cut off, it has changed nothing that anybody sees.

use super::{
    super::{
        failure::Failure,
        say,
        shop::{Format, Peer, Shop, ask},
    },
    Ops, Teller,
    replay::progress,
};
use clap::ValueEnum;
use contract::ops::v1::{
    BeginRebuildRequest, CopyShownRequest, Event, FinishRebuildRequest, ListEventsRequest,
    MergeEventsRequest, rebuild_service_client::RebuildServiceClient,
};
use indicatif::ProgressBar;
use mesh::Channel;
use prost::Message as _;
use std::{io::Write as _, time::Duration};

/// Bytes of events in one request, of the 64 KiB that one may have.
const BYTES: usize = 48 * 1024;
/// As many events as one request may have.
const EVENTS: usize = 1_000;
/// How long the last step may take: it compares all orders there are, a million in some seconds.
const FINISH_WITHIN: Duration = Duration::from_secs(600);

/// What to build anew.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// What customers see
    Mypage,
}

/// A rebuild under way.
struct Rebuild<'a> {
    peer: Peer<'a>,
    client: RebuildServiceClient<Channel>,
    id: String,
    events: usize,
    unread: i64,
    bar: ProgressBar,
}

impl Args {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let peer = match self.what {
            What::Mypage => shop.mypage(),
        };
        let mut client = RebuildServiceClient::new(peer.channel()?);
        let begun = client.begin_rebuild(ask(BeginRebuildRequest {})).await;
        let id = begun.map_err(|status| peer.failure(&status))?.into_inner().rebuild_id;
        let mut rebuild = Rebuild { peer, client, id, events: 0, unread: 0, bar: progress() };
        for teller in Teller::All.peers(shop) {
            rebuild.merge_all_of(Ops::at(teller)?).await?;
        }
        let copied = rebuild.copy().await?;
        let orders = rebuild.finish().await?;
        let Rebuild { events, unread, bar, .. } = rebuild;
        bar.finish_and_clear();
        if unread > 0 {
            say(&format!(
                "{unread} events could not be read and were left out; the service's log names them"
            ));
        }
        let mut out = anstream::stdout();
        match shop.format {
            Format::Table => {
                writeln!(
                    out,
                    "{orders} orders from {events} events; {copied} orders had more than the events"
                )?;
            }
            Format::Json => {
                let json = serde_json::json!({ "orders": orders, "events": events, "copied": copied, "unread": unread });
                writeln!(out, "{json:#}")?;
            }
        }
        Ok(out.flush()?)
    }
}

impl Rebuild<'_> {
    async fn merge_all_of(&mut self, mut ops: Ops<'_>) -> Result<(), Failure> {
        let peer = ops.peer;
        let told = ops.client.list_events(ListEventsRequest::default()).await;
        let mut told = told.map_err(|status| peer.failure(&status))?.into_inner();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(message) = told.message().await.map_err(|status| peer.failure(&status))? {
            let Some(event) = message.event else { continue };
            let len = event.encoded_len() + 8; // with what frames it
            if bytes + len > BYTES || batch.len() == EVENTS {
                self.merge(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += len;
            batch.push(event);
        }
        self.merge(batch).await
    }

    async fn merge(&mut self, events: Vec<Event>) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        let count = events.len();
        let request = MergeEventsRequest { rebuild_id: self.id.clone(), events };
        let merged = self.client.merge_events(ask(request)).await;
        let merged = merged.map_err(|status| self.peer.failure(&status))?.into_inner();
        self.unread += merged.unread_count;
        self.events += count;
        self.bar.set_message(format!("{} events merged", self.events));
        Ok(())
    }

    /// How many orders had more than the events told.
    async fn copy(&mut self) -> Result<i64, Failure> {
        let (mut orders, mut after, mut done) = (0, String::new(), false);
        while !done {
            let request = CopyShownRequest { rebuild_id: self.id.clone(), after };
            let copied = self.client.copy_shown(ask(request)).await;
            let copied = copied.map_err(|status| self.peer.failure(&status))?.into_inner();
            orders += copied.order_count;
            (after, done) = (copied.last_order_id, copied.done);
            self.bar.set_message(format!("{orders} orders copied"));
        }
        Ok(orders)
    }

    async fn finish(&mut self) -> Result<i64, Failure> {
        self.bar.set_message("the last changes");
        let mut request = ask(FinishRebuildRequest { rebuild_id: self.id.clone() });
        request.set_timeout(FINISH_WITHIN);
        let finished = self.client.finish_rebuild(request).await;
        Ok(finished.map_err(|status| self.peer.failure(&status))?.into_inner().order_count)
    }
}
