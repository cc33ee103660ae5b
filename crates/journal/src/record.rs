//! The record: reading the outbox, following it, and telling it again. Whoever reads changes nothing; the relay and the writer
//! never know.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use rand::distr::{Alphanumeric, SampleString as _};
use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select,
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::{
    Bus, Database, Envelope, Time, backoff, bus,
    outbox::{self, row},
};

/// Events read at a time: the relay's measure.
const PAGE: usize = 500;
/// How often who follows looks for more. A person does not notice; a look costs a query.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Ids are not stored in their order: an id is made before its transaction commits, and the clocks of replicas differ. What is
/// stored this much later than its id says is still found by who follows.
const OVERLAP: Duration = Duration::from_secs(5);
/// Pages of a replay on their way at a time: while one is read another is published, and a bus within the process has the
/// time to gather them.
const UNDER_WAY: usize = 4;
/// How long a replay works on one call, and how many events it tells: its caller learns how far it got, and goes on.
const REPLAY_FOR: Duration = Duration::from_millis(1_500);
const REPLAY_MOST: usize = 10_000;
/// How long the bus may take for a page; then it is away. Shorter than a caller waits, and longer than a bad moment.
const BUS_WITHIN: Duration = Duration::from_secs(5);
/// Letters that make one telling differ from another: 36^8 is more than there will be.
const NONCE: usize = 8;

/// What a service has told. A clone is the same record.
#[derive(Clone)]
pub struct Record {
    pool: DatabaseConnection,
    source: Arc<str>,
}

/// An event as it stands in the outbox.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The event.
    pub event: Arc<Envelope>,
    /// Whether the bus has it.
    pub published: bool,
}

/// Which events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Only those about this.
    pub subject: Option<Uuid>,
    /// Only those with an id after this one.
    pub after: Option<Uuid>,
    /// Only those stored since.
    pub since: Option<Time>,
}

/// How far a replay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// How many events were told again.
    pub count: usize,
    /// The last of them.
    pub last: Option<Uuid>,
    /// There are no more.
    pub done: bool,
}

/// Why events were not told again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("the outbox cannot be read")]
    Store(#[from] DbErr),
    /// The bus did not take them.
    #[error("the events cannot be published")]
    Bus(#[from] bus::Error),
    /// The bus did not answer in time.
    #[error("the bus does not answer")]
    BusAway,
}

impl Record {
    /// The record of the service whose events have this `ce-source`.
    #[must_use]
    pub fn open(database: &Database, source: &str) -> Self {
        Self { pool: database.pool.clone(), source: source.into() }
    }

    /// Some events, in the order of their ids; fewer than a page only if there are no more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn page(&self, wanted: Wanted) -> Result<Vec<Entry>, DbErr> {
        let most = u64::try_from(PAGE).expect("a small number");
        let rows = find(wanted).order_by_asc(row::Column::Id).limit(most).all(&self.pool).await?;
        Ok(rows.into_iter().map(|row| self.entry(row)).collect())
    }

    /// All events that are wanted, and then those to come.
    #[must_use]
    pub fn follow(&self, wanted: Wanted) -> Follower {
        Follower { record: self.clone(), wanted, seen: BTreeSet::new(), current: false }
    }

    /// Tells events again, each under a message id of its own, so that no window against repeats takes it; `audience` is the
    /// only consumer to read them, if not all. As many as can be told in a short time.
    ///
    /// # Errors
    /// See [`Error`]; nothing was told then.
    pub async fn replay(
        &self,
        bus: &Bus,
        wanted: Wanted,
        audience: Option<&str>,
    ) -> Result<Replayed, Error> {
        let telling = Telling {
            bus: bus.clone(),
            edition: format!("r{}", Alphanumeric.sample_string(&mut rand::rng(), NONCE)).into(),
            audience: audience.map(Into::into),
        };
        let until = Instant::now() + REPLAY_FOR;
        // none: the last page was read
        let pages = stream::unfold(Some((self.clone(), wanted, 0)), move |next| async move {
            let (record, mut wanted, read) = next?;
            if read >= REPLAY_MOST || Instant::now() >= until {
                return None;
            }
            let page = record.page(wanted).await;
            let len = page.as_ref().map_or(0, Vec::len);
            wanted.after = page.as_ref().ok().and_then(|page| page.last()).map(|it| it.event.id);
            Some((page, (len == PAGE).then_some((record, wanted, read + len))))
        });
        let told = pages.map(move |page| telling.clone().publish(page)).buffered(UNDER_WAY);
        let mut told = pin!(told);
        let mut replayed = Replayed { count: 0, last: wanted.after, done: false };
        while let Some(page) = told.next().await {
            match page {
                Ok(page) => {
                    replayed.count += page.len();
                    replayed.last = page.last().copied().or(replayed.last);
                    replayed.done = page.len() < PAGE;
                }
                // its caller goes on from here, and hears of it if it lasts
                Err(_lasting) if replayed.count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(replayed)
    }

    fn entry(&self, row: row::Model) -> Entry {
        let published = row.published != 0;
        Entry { event: outbox::of_row(&self.source, row), published }
    }
}

/// How events are told again.
#[derive(Clone)]
struct Telling {
    bus: Bus,
    edition: Arc<str>,
    audience: Option<Arc<str>>,
}

impl Telling {
    /// The ids of what was told.
    async fn publish(self, page: Result<Vec<Entry>, DbErr>) -> Result<Vec<Uuid>, Error> {
        let again = |Entry { event, .. }: Entry| {
            let (edition, audience) = (Some(self.edition.clone()), self.audience.clone());
            Arc::new(Envelope { audience, edition, ..(*event).clone() })
        };
        let events: Vec<_> = page?.into_iter().map(again).collect();
        let ids = events.iter().map(|event| event.id).collect();
        if !events.is_empty() {
            let published = timeout(BUS_WITHIN, self.bus.publish(events)).await;
            published.map_err(|_elapsed| Error::BusAway)??;
        }
        Ok(ids)
    }
}

/// Reads a record to its end, and goes on.
pub struct Follower {
    record: Record,
    /// `after` is the highest id read.
    wanted: Wanted,
    /// Ids read that are not much lower than the highest: what is near them and not among them was stored late.
    seen: BTreeSet<Uuid>,
    /// All there is was read; what comes now comes by and by.
    current: bool,
}

impl Follower {
    /// The next events, at most about a page; waits until there are some. Dropped midway, it has lost nothing.
    ///
    /// # Errors
    /// The database failed.
    pub async fn next(&mut self) -> Result<Vec<Entry>, DbErr> {
        loop {
            if self.current {
                backoff::pause(LOOK_EVERY).await;
            }
            let mut page = self.record.page(self.wanted).await?;
            if page.len() < PAGE {
                page.extend(self.late().await?);
            }
            self.current = page.len() < PAGE;
            self.seen.extend(page.iter().map(|entry| entry.event.id));
            self.wanted.after = self.wanted.after.max(self.seen.last().copied());
            let floor = self.floor();
            self.seen = self.seen.split_off(&floor);
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }

    /// What was stored after events with higher ids were read.
    async fn late(&self) -> Result<Vec<Entry>, DbErr> {
        let (Some(first), Some(highest)) = (self.seen.first(), self.wanted.after) else {
            return Ok(Vec::new());
        };
        let floor = self.floor().max(*first);
        let wanted = Wanted { after: Some(floor), ..self.wanted };
        let ids: Vec<Uuid> = find(wanted)
            .filter(row::Column::Id.lt(highest))
            .select_only()
            .column(row::Column::Id)
            .into_tuple()
            .all(&self.record.pool)
            .await?;
        let late: Vec<_> =
            ids.into_iter().filter(|id| !self.seen.contains(id)).take(PAGE).collect();
        if late.is_empty() {
            return Ok(Vec::new());
        }
        let rows = row::Entity::find().filter(row::Column::Id.is_in(late));
        let rows = rows.order_by_asc(row::Column::Id).all(&self.record.pool).await?;
        Ok(rows.into_iter().map(|row| self.record.entry(row)).collect())
    }

    /// No id below it comes any more.
    fn floor(&self) -> Uuid {
        let newest = self.wanted.after.map_or(Time::default(), time_of);
        id_at(newest.min(Time::now()).minus(OVERLAP))
    }
}

fn find(Wanted { subject, after, since }: Wanted) -> Select<row::Entity> {
    row::Entity::find()
        .apply_if(subject, |rows, subject| rows.filter(row::Column::Subject.eq(subject)))
        .apply_if(after, |rows, after| rows.filter(row::Column::Id.gt(after)))
        .apply_if(since, |rows, since| {
            // the ids lead there, and the time decides
            let first = id_at(since.minus(OVERLAP));
            rows.filter(row::Column::Id.gte(first)).filter(row::Column::Time.gte(since))
        })
}

/// The lowest `UUIDv7` of this time.
pub(crate) fn id_at(time: Time) -> Uuid {
    let millis = u128::try_from(time.micros() / 1_000).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

/// When a `UUIDv7` was made.
fn time_of(id: Uuid) -> Time {
    let millis = i64::try_from(id.as_u128() >> 80).expect("48 bits");
    Time::from_micros(millis.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_when_they_were_made() {
        let (before, id, after) = (Time::now(), Uuid::now_v7(), Time::now());
        assert!(id_at(before) <= id && id_at(after.plus(OVERLAP)) > id);
        assert!(before.since(time_of(id)) < Duration::from_millis(2));
        assert_eq!(time_of(id_at(Time::from_micros(1_700_000_000_000_000))).micros() % 1_000, 0);
        assert_eq!(id_at(Time::default().minus(OVERLAP)), Uuid::nil());
    }
}
