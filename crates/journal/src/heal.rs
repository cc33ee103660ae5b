//! The healer: a server acknowledges what it has not yet written to its disk, and may be restored from an older copy or lose
//! its stream. Whenever a stream becomes usable it is compared with the outbox, which is the record, before anything is
//! published to it; what it lost is published again.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
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
    outbox::{row, row_in},
    record::id_at,
};

/// How soon a comparison that failed is made again.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(5) };

/// Events looked at with one query, and written with one transaction, which others wait for: some ten milliseconds.
const STEP: u64 = 2_000;

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

/// A stream loses its newest messages: it has all of ours up to a place, and none from another one on. What lies between is not
/// known yet.
struct Kept {
    most: i64,
    lost: i64,
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

    async fn heal(&self, ready: Ready) -> Result<(), Error> {
        // what is acknowledged and not yet marked may be lost as well: it is published again, with the id it had
        self.outbox.unmark();
        self.written(Vec::new()).await;
        // when another relay was faster, what it has left is compared
        while !self.compare(ready).await? {}
        Ok(())
    }

    /// Whether all that the stream lost is to be published again; false: another relay came in between.
    async fn compare(&self, Ready { created, .. }: Ready) -> Result<bool, Error> {
        let stream = self.bus.stream_name();
        let Some(known) = self.known().await? else {
            self.written(vec![Mark::Known { stream: stream.clone(), created }]).await;
            return Ok(true);
        };
        let mut kept = Kept { most: 0, lost: 1 }; // nothing
        if known.created == created {
            if known.sequence == 0 {
                return Ok(true); // nothing of ours was acknowledged yet; an empty stream refuses to look at such a place
            }
            let (first, _) = self.bus.kept().await?;
            let newest = self.bus.message_id_at(unsigned(known.sequence));
            if known.sequence < signed(first)
                || newest.await?.as_deref() == Some(&*known.message_id)
            {
                return Ok(true);
            }
            kept = Kept { most: signed(first) - 1, lost: known.sequence };
            tracing::warn!("NATS lost events of the stream {stream}: they are published again");
        } else {
            tracing::warn!(
                "NATS has a new stream {stream}: what the old one had is published again"
            );
        }
        let Some(count) = self.walk(&known, kept).await? else { return Ok(false) };
        self.written(vec![Mark::Anew { known, created }]).await;
        tracing::warn!("{count} events of the stream {stream} are published again");
        Ok(true)
    }

    async fn known(&self) -> Result<Option<stream::Model>, DbErr> {
        stream::Entity::find_by_id(&**self.bus.stream_name()).one(&self.pool).await
    }

    /// Walks through the outbox, and has what is lost published again: in steps, so that the writer is never kept from its other
    /// work for long. How many events that is; None: another relay has put it right.
    async fn walk(&self, known: &stream::Model, mut kept: Kept) -> Result<Option<usize>, Error> {
        // what the stream kept may have waited here before it was published, as long again
        let mut after = id_at(Time::now().minus(self.bus.max_age().saturating_mul(2)));
        let mut count = 0;
        loop {
            if self.known().await?.as_ref() != Some(known) {
                return Ok(None);
            }
            let rows = self.step(after).await?;
            let Some((last, ..)) = rows.last() else { return Ok(Some(count)) };
            after = *last;
            let placed =
                rows.iter().filter_map(|(id, edition, place)| Some((*id, *edition, (*place)?)));
            let placed: Vec<_> = placed.collect();
            self.narrow(&mut kept, placed.iter().map(|(.., place)| *place).collect()).await?;
            let lost = placed.into_iter().filter(|(.., place)| *place >= kept.lost);
            let lost: Vec<_> = lost.map(|(id, edition, _)| (id, edition)).collect();
            if !lost.is_empty() {
                count += lost.len();
                self.written(vec![Mark::Lost(lost)]).await;
            }
        }
    }

    async fn step(&self, after: Uuid) -> Result<Vec<(Uuid, i32, Option<i64>)>, DbErr> {
        row::Entity::find()
            .select_only()
            .columns([row::Column::Id, row::Column::Edition, row::Column::StreamSequence])
            .filter(row::Column::Id.gt(after))
            .order_by_asc(row::Column::Id)
            .limit(STEP)
            .into_tuple()
            .all(&self.pool)
            .await
    }

    /// Finds out of all these places whether the stream has them.
    async fn narrow(&self, kept: &mut Kept, places: BTreeSet<i64>) -> Result<(), Error> {
        let mut open: Vec<i64> =
            places.into_iter().filter(|place| (kept.most + 1..kept.lost).contains(place)).collect();
        // the last one first: as a rule it has them all, or none
        let mut next = open.len().checked_sub(1);
        while let Some(index) = next {
            let place = open[index];
            if self.has(place).await? {
                kept.most = place;
                open.drain(..=index);
            } else {
                kept.lost = place;
                open.truncate(index);
            }
            next = (!open.is_empty()).then_some(open.len() / 2);
        }
        Ok(())
    }

    /// Whether the stream has the message that we know at this place, and not another.
    async fn has(&self, place: i64) -> Result<bool, Error> {
        let found = self.bus.message_id_at(unsigned(place)).await?;
        let Some((id, edition)) = found.as_deref().and_then(row_in) else { return Ok(false) };
        let row = row::Entity::find_by_id(id).one(&self.pool).await?;
        Ok(row.is_some_and(|row| row.edition == edition && row.stream_sequence >= Some(place)))
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
