//! The purge: what was told long ago and nobody needs any more leaves the outbox. What is not published, or about something
//! that is not settled, stays however old it is. Counts of failures leave as well, of events as old: whoever would have gone
//! on counting has handled the event elsewhere, or it left its stream.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use anyhow::Context as _;
use chassis::Host;
use futures::future::BoxFuture;
use rand::Rng as _;
use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityName as _, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Database, Table, Time, Writer, backoff, failures, outbox::row, record::id_at};

/// Events of one step. A step is a transaction of the writer, which others wait for: some milliseconds.
const STEP: u64 = 1_000;
/// How long others have the writer for themselves between two steps: 10,000 events a second are purged at most, more than are
/// told.
const REST: Duration = Duration::from_millis(100);

/// Of these subjects, those that nothing will happen to any more.
pub type Settled =
    fn(DatabaseConnection, Vec<Uuid>) -> BoxFuture<'static, Result<Vec<Uuid>, DbErr>>;

/// What stays, and how often the rest is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Events younger than this stay.
    pub keep: Duration,
    /// How often older ones are looked for.
    pub every: Duration,
}

impl Config {
    /// Keeps events for so long. An hour more or less does not matter then, and a look that finds nothing costs a query.
    #[must_use]
    pub fn keeping(keep: Duration) -> Self {
        Self { keep, every: Duration::from_secs(600) }
    }
}

/// Begins to purge an outbox, until the host drains.
pub fn open<N: Table>(
    host: &Host,
    database: &Database,
    writer: &Writer<N>,
    config: Config,
    settled: Settled,
) {
    let purge = Purge { pool: database.pool.clone(), writer: writer.clone(), config, settled };
    let name = format!("the purge of {}'s outbox", N::Entity::default().table_name());
    host.spawn(name, purge.run(host.draining()));
}

struct Purge<N: Table> {
    pool: DatabaseConnection,
    writer: Writer<N>,
    config: Config,
    settled: Settled,
}

impl<N: Table> Purge<N> {
    async fn run(self, draining: CancellationToken) -> anyhow::Result<()> {
        let work = async {
            loop {
                // not all replicas at once; two that meet are harmless
                let share = rand::rng().random_range(0.5..1.0);
                backoff::pause(self.config.every.mul_f64(share)).await;
                match self.walk().await {
                    Ok(0) => {}
                    Ok(purged) => tracing::info!("{purged} old events have left the outbox"),
                    Err(error) => {
                        let error: &(dyn std::error::Error + 'static) = error.as_ref();
                        tracing::warn!(error, "old events stay in the outbox until the next look");
                    }
                }
            }
        };
        tokio::select! {
            () = draining.cancelled() => Ok(()),
            ended = work => ended,
        }
    }

    /// Once through all that is old enough; how many events have left.
    async fn walk(&self) -> anyhow::Result<u64> {
        let before = id_at(Time::now().minus(self.config.keep));
        self.forget_failures(before).await?;
        let (mut purged, mut after) = (0, None);
        loop {
            let old = self.old(after, before).await?;
            let Some((last, _)) = old.last() else { return Ok(purged) };
            after = Some(*last);
            let subjects: BTreeSet<Uuid> = old.iter().map(|(_, subject)| *subject).collect();
            let settled = (self.settled)(self.pool.clone(), subjects.into_iter().collect());
            let settled: HashSet<Uuid> = settled.await?.into_iter().collect();
            let gone = old.iter().filter(|(_, subject)| settled.contains(subject));
            let gone: Vec<Uuid> = gone.map(|(id, _)| *id).collect();
            if !gone.is_empty() {
                purged += self.delete(gone).await?;
                backoff::pause(REST).await;
            }
        }
    }

    /// Few have failed, and fewer were never brought to an end: the rest of them waits for the next look.
    async fn forget_failures(&self, before: Uuid) -> anyhow::Result<()> {
        let old = failures::Entity::find()
            .select_only()
            .column(failures::Column::Id)
            .filter(failures::Column::Id.lt(before))
            .limit(STEP)
            .into_tuple()
            .all(&self.pool)
            .await?;
        if old.is_empty() {
            return Ok(());
        }
        let forget = self.writer.chore(move |tx| Box::pin(failures::forget(tx, old)));
        forget.await.context("old counts of failures cannot be deleted")?;
        Ok(())
    }

    /// Published events, each with what it is about.
    async fn old(&self, after: Option<Uuid>, before: Uuid) -> Result<Vec<(Uuid, Uuid)>, DbErr> {
        row::Entity::find()
            .select_only()
            .columns([row::Column::Id, row::Column::Subject])
            .filter(row::Column::Id.lt(before))
            .filter(row::Column::Published.eq(1))
            .apply_if(after, |rows, after| rows.filter(row::Column::Id.gt(after)))
            .order_by_asc(row::Column::Id)
            .limit(STEP)
            .into_tuple()
            .all(&self.pool)
            .await
    }

    async fn delete(&self, ids: Vec<Uuid>) -> anyhow::Result<u64> {
        let delete = self.writer.chore(move |tx| {
            Box::pin(async move {
                let old = row::Entity::delete_many().filter(row::Column::Id.is_in(ids));
                Ok(old.exec(tx).await?.rows_affected)
            })
        });
        delete.await.context("old events cannot be deleted")
    }
}
