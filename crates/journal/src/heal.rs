//! The healer: a server acknowledges what it has not yet written to its disk, and may be restored from an older copy or lose
//! its stream. Whenever a stream becomes usable it is compared with the outbox, which is the record, before anything is
//! published to it; what it lost is published again.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, PaginatorTrait as _, QueryFilter,
    QueryOrder, QuerySelect,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Outbox, Time,
    backoff::{self, Backoff},
    bus,
    jetstream::{JetStream, Ready},
    marks::{Mark, stream},
    outbox::{edition, row},
};

/// How soon a comparison that failed is made again.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(5) };

/// Lets the relay publish as long as the stream is whole.
pub(crate) struct Gate(watch::Receiver<Passing>);

/// Whether to publish now, and to which generation of a stream, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passing {
    Nothing,
    All(Option<u64>),
}

impl Gate {
    /// Always open.
    pub(crate) fn open() -> Self {
        Self(watch::channel(Passing::All(None)).1)
    }

    /// Opened and closed by a healer.
    pub(crate) fn new() -> (watch::Sender<Passing>, Self) {
        let (tell, gate) = watch::channel(Passing::Nothing);
        (tell, Self(gate))
    }

    pub(crate) fn passing(&self) -> Passing {
        *self.0.borrow()
    }

    /// Waits until it is opened or closed.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await; // it stays as it is
        }
    }
}

pub(crate) struct Healer {
    outbox: Outbox,
    pool: DatabaseConnection,
    bus: Arc<JetStream>,
    gate: watch::Sender<Passing>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    Bus(#[from] bus::Error),
}

impl Healer {
    pub(crate) fn new(
        outbox: Outbox,
        pool: DatabaseConnection,
        bus: Arc<JetStream>,
        gate: watch::Sender<Passing>,
    ) -> Self {
        Self { outbox, pool, bus, gate }
    }

    /// Works until the process drains.
    pub(crate) async fn run(self, draining: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = draining.cancelled() => {}
            () = self.watch() => {}
        }
        draining.cancelled().await;
        Ok(())
    }

    async fn watch(&self) {
        let (mut stream, mut failures) = (self.bus.ready.clone(), 0);
        loop {
            let ready = *stream.borrow_and_update();
            self.gate.send_replace(Passing::Nothing);
            if let Some(ready) = ready {
                match self.heal(ready).await {
                    Ok(()) => {
                        failures = 0;
                        self.gate.send_replace(Passing::All(Some(ready.generation)));
                    }
                    Err(error) => {
                        failures += 1;
                        warn(&error);
                        backoff::pause(AGAIN.after(failures)).await;
                        continue;
                    }
                }
            }
            if stream.changed().await.is_err() {
                return;
            }
        }
    }

    async fn heal(&self, Ready { created, .. }: Ready) -> Result<(), Error> {
        // what is acknowledged and not yet marked may be lost as well: it is published again, with the id it had
        self.outbox.unmark();
        self.written(Vec::new()).await;
        let stream: Arc<str> = self.bus.stream_name().into();
        let known = stream::Entity::find_by_id(stream.to_string()).one(&self.pool).await?;
        let Some(known) = known else {
            self.written(vec![Mark::Known { stream, created }]).await;
            return Ok(());
        };
        if known.created != created {
            let since = Time::now().minus(self.bus.max_age());
            let lost = row::Entity::find()
                .filter(row::Column::Published.eq(1))
                .filter(row::Column::Time.gte(since));
            let count = lost.count(&self.pool).await?;
            tracing::warn!("NATS has a new stream {stream}: {count} events are published again");
            let was = known.created;
            self.written(vec![Mark::Another { stream, was, created, since }]).await;
            return Ok(());
        }
        if known.sequence == 0 {
            return Ok(()); // nothing of ours was acknowledged yet; an empty stream refuses to look at such a place
        }
        let (first, _) = self.bus.kept().await?;
        if known.sequence < signed(first)
            || self.bus.message_id_at(unsigned(known.sequence)).await? == Some(known.message_id)
        {
            return Ok(());
        }
        let from = self.first_lost(signed(first), known.sequence).await?;
        let lost = row::Entity::find().filter(row::Column::StreamSequence.gte(from));
        let count = lost.count(&self.pool).await?;
        tracing::warn!("NATS lost {count} events of the stream {stream}: they are published again");
        self.written(vec![Mark::Lost { stream, from, newest: known.sequence }]).await;
        Ok(())
    }

    /// A stream loses its newest messages: all of ours before some place are there, and none after. `lost` is.
    async fn first_lost(&self, first: i64, lost: i64) -> Result<i64, Error> {
        let (mut low, mut high) = (first, lost); // the first that is lost is in low..=high
        while low < high {
            let middle = low + (high - low) / 2;
            match self.ours_from(middle).await? {
                Some(sequence) if sequence < high => {
                    let found = self.bus.message_id_at(unsigned(sequence)).await?;
                    match found {
                        Some(found) if self.is_ours(sequence, &found).await? => low = sequence + 1,
                        _ => high = middle,
                    }
                }
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Our first place from this one on. Looks through the whole outbox: it has no index for what is asked so rarely.
    async fn ours_from(&self, sequence: i64) -> Result<Option<i64>, DbErr> {
        let first = row::Entity::find()
            .select_only()
            .column(row::Column::StreamSequence)
            .filter(row::Column::StreamSequence.gte(sequence))
            .order_by_asc(row::Column::StreamSequence);
        first.into_tuple().one(&self.pool).await
    }

    /// Whether this message is one of ours that were marked with this place.
    async fn is_ours(&self, sequence: i64, message_id: &str) -> Result<bool, DbErr> {
        let marked: Vec<(Uuid, i32)> = row::Entity::find()
            .select_only()
            .column(row::Column::Id)
            .column(row::Column::Edition)
            .filter(row::Column::StreamSequence.eq(sequence))
            .into_tuple()
            .all(&self.pool)
            .await?;
        let message = |(id, number): (Uuid, i32)| match edition(number) {
            None => id.to_string(),
            Some(edition) => format!("{id}.{edition}"),
        };
        Ok(marked.into_iter().map(message).any(|ours| ours == message_id))
    }

    /// Waits until these marks are written, and all that were taken before.
    async fn written(&self, mut marks: Vec<Mark>) {
        let fence = Arc::new(Notify::new());
        marks.push(Mark::Fence(fence.clone()));
        self.outbox.mark(marks);
        fence.notified().await;
    }
}

fn warn(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, "cannot compare the outbox with NATS: events wait");
}

/// The database counts with signed numbers; no stream gets so far.
pub(crate) fn signed(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn unsigned(sequence: i64) -> u64 {
    u64::try_from(sequence).unwrap_or(0)
}
