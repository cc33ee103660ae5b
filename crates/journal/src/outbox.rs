//! The outbox: facts, stored in the transaction that made them true, and kept after they are published. It is the record;
//! the bus, and all that was built from events, can be built from it again.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sea_orm::{
    ColumnTrait, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, sea_query::Expr,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use uuid::Uuid;

use crate::{
    Bus, Database, Envelope, Time, backoff, bus,
    fold::News,
    heal::{self, Gate},
    marks::{Mark, Row},
    relay::Relay,
    rows,
};

/// Batches of fresh facts that may wait for the relay, some hundred facts each. More are found in the table: a hint, which
/// nobody waits for.
const HINTS: usize = 64;
/// Marks of one transaction.
const MARKS: usize = 2_000;
/// How long marks wait for a transaction to ride along with, before one is made for them.
const MARK_AFTER: Duration = Duration::from_millis(100);
/// How long marks rest that a transaction could not write, though it could write all else: each try costs those who ride along
/// as long as a lock or a statement may take.
const MARKS_REST: Duration = Duration::from_secs(10);

#[allow(unreachable_pub, reason = "what SeaORM derives from a row is pub")]
pub(crate) mod row {
    //! A row of `outbox`: an event, and whether it is published.

    use crate::Time;
    use sea_orm::entity::prelude::*;

    /// Written out and not bound, or a partial index is not found by it.
    pub(crate) const UNPUBLISHED: &str = "published = 0";

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "outbox")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        /// 0: not yet; 1: the bus has it.
        pub published: i32,
        /// How often it was published before, and lost.
        pub edition: i32,
        /// Where it is in the stream, if the bus has one.
        pub stream_sequence: Option<i64>,
        pub kind: String,
        pub subject: Uuid,
        pub time: Time,
        pub correlation_id: Uuid,
        pub causation_id: Uuid,
        pub traceparent: Option<String>,
        pub tracestate: Option<String>,
        pub payload: Vec<u8>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// The outbox of one service. A clone is the same outbox.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    source: Arc<str>,
    fresh: mpsc::Sender<Vec<Arc<Envelope>>>,
    /// Facts were stored that the relay was not told of.
    untold: AtomicBool,
    marks: Mutex<Marks>,
    marked: Notify,
}

/// What is published, and not yet marked so.
#[derive(Default)]
struct Marks {
    waiting: Vec<Mark>,
    /// The events of those that wait, and of those that are being written.
    events: HashSet<Uuid>,
    /// They are not tried before.
    rest: Option<Instant>,
}

impl Marks {
    /// How long they rest yet.
    fn resting(&self) -> Duration {
        self.rest.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn forget<'a>(&mut self, marks: impl IntoIterator<Item = &'a Mark>) {
        for id in marks.into_iter().filter_map(Mark::event) {
            self.events.remove(&id);
        }
    }
}

impl Outbox {
    /// Has everything published that is or will be stored here; `source` is the `ce-source` of its events.
    #[must_use]
    pub fn open(host: &chassis::Host, database: &Database, bus: &Bus, source: &str) -> Self {
        let (fresh, waiting) = mpsc::channel(HINTS);
        let (marks, marked) = (Mutex::default(), Notify::new());
        let untold = AtomicBool::new(false);
        let source = Arc::<str>::from(source);
        let outbox = Self(Arc::new(Inner { source: source.clone(), fresh, untold, marks, marked }));
        let gate = match bus {
            Bus::Embedded(_) => Gate::open(),
            Bus::JetStream(bus) => {
                let (tell, gate) = Gate::new();
                let healer =
                    heal::Healer::new(outbox.clone(), database.pool.clone(), bus.clone(), tell);
                host.spawn(format!("the healer of {source}"), healer.run(host.draining()));
                gate
            }
        };
        let relay = Relay::new(outbox.clone(), database.pool.clone(), bus.clone(), gate, waiting);
        host.spawn(format!("the relay of {source}"), relay.run(host.draining()));
        outbox
    }

    /// Stores facts, within the transaction that makes them true.
    pub(crate) async fn append(
        &self,
        tx: &DatabaseTransaction,
        news: Vec<News>,
        now: Time,
    ) -> Result<Vec<Arc<Envelope>>, DbErr> {
        let envelopes: Vec<_> = news.into_iter().map(|news| self.envelope(news, now)).collect();
        let rows: Vec<_> = envelopes.iter().map(|envelope| to_row(envelope)).collect();
        rows::insert(tx, &rows, None).await?;
        Ok(envelopes)
    }

    fn envelope(&self, News { fact, correlation_id, cause }: News, time: Time) -> Arc<Envelope> {
        Arc::new(Envelope {
            id: Uuid::now_v7(), // in the order of the facts, also within a millisecond
            kind: format!("{}.{}", fact.package, fact.name).into(),
            source: self.0.source.clone(),
            subject: fact.subject,
            time,
            correlation_id,
            causation_id: match cause.causation_id {
                none if none.is_nil() => correlation_id,
                id => id,
            },
            traceparent: cause.traceparent,
            tracestate: cause.tracestate,
            edition: None,
            audience: None,
            payload: fact.payload,
        })
    }

    /// Tells the relay what was just committed. Never waits: what it cannot take now it finds in the table.
    pub(crate) fn hint(&self, stored: Vec<Arc<Envelope>>) {
        if !stored.is_empty() && self.0.fresh.try_send(stored).is_err() {
            self.0.untold.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there may be facts that the relay was not told of since it last asked.
    pub(crate) fn untold(&self) -> bool {
        self.0.untold.swap(false, Ordering::Relaxed)
    }

    /// For the writer, with its next transaction.
    pub(crate) fn mark(&self, new: Vec<Mark>) {
        let mut marks = self.lock();
        marks.events.extend(new.iter().filter_map(Mark::event));
        marks.waiting.extend(new);
        self.0.marked.notify_one();
    }

    /// A transaction wrote them.
    pub(crate) fn written(&self, written: &[Mark]) {
        self.lock().forget(written);
        for mark in written {
            if let Mark::Fence(fence) = mark {
                fence.notify_one();
            }
        }
    }

    /// As [`Self::mark`], for those that a transaction took and could not write: they come before what was learnt since.
    pub(crate) fn unwritten(&self, unwritten: Vec<Mark>) {
        if !unwritten.is_empty() {
            self.lock().waiting.splice(..0, unwritten);
            self.0.marked.notify_one();
        }
    }

    /// As [`Self::unwritten`], when it is they that could not be written: they leave the next transactions alone.
    pub(crate) fn unwritable(&self, marks: Vec<Mark>) {
        self.lock().rest = Some(Instant::now() + MARKS_REST);
        self.unwritten(marks);
    }

    /// Gives up the marks that are not written: what they mark is published again.
    pub(crate) fn unmark(&self) {
        let mut marks = self.lock();
        let given_up = std::mem::take(&mut marks.waiting);
        marks.forget(&given_up);
    }

    /// Whether the bus has it, and only its mark is not written.
    pub(crate) fn waits_for_its_mark(&self, id: Uuid) -> bool {
        self.lock().events.contains(&id)
    }

    /// How many the bus has whose marks are not written.
    pub(crate) fn unmarked(&self) -> usize {
        self.lock().events.len()
    }

    /// Some of those that are to be written.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        let mut marks = self.lock();
        let some = if marks.resting().is_zero() { marks.waiting.len().min(MARKS) } else { 0 };
        if marks.waiting.len() > some {
            self.0.marked.notify_one();
        }
        marks.waiting.drain(..some).collect()
    }

    /// Waits until marks have waited long enough.
    pub(crate) async fn marks_due(&self) {
        self.0.marked.notified().await;
        let resting = self.lock().resting();
        backoff::pause(resting.max(MARK_AFTER)).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Marks> {
        self.0.marks.lock().expect("no panic while locked")
    }

    /// Unpublished events with an id after `after` and before `before`, in the order of their ids.
    pub(crate) async fn unpublished(
        &self,
        pool: &DatabaseConnection,
        after: Option<Uuid>,
        before: Uuid,
        most: u64,
    ) -> Result<Vec<Arc<Envelope>>, DbErr> {
        let rows = rows::by_index(row::Entity::find(), "outbox_unpublished")
            .filter(Expr::cust(row::UNPUBLISHED))
            .filter(row::Column::Id.lt(before))
            .apply_if(after, |rows, after| rows.filter(row::Column::Id.gt(after)))
            .order_by_asc(row::Column::Id)
            .limit(most)
            .all(pool)
            .await?;
        Ok(rows.into_iter().map(|row| of_row(&self.0.source, row)).collect())
    }
}

/// `source` is the `ce-source` of all that is in the outbox.
pub(crate) fn of_row(source: &Arc<str>, row: row::Model) -> Arc<Envelope> {
    Arc::new(Envelope {
        id: row.id,
        kind: row.kind.into(),
        source: source.clone(),
        subject: row.subject,
        time: row.time,
        correlation_id: row.correlation_id,
        causation_id: row.causation_id,
        traceparent: row.traceparent.map(Into::into),
        tracestate: row.tracestate.map(Into::into),
        edition: edition(row.edition),
        audience: None,
        payload: row.payload.into(),
    })
}

/// Which publication a row's next one is.
fn edition(edition: i32) -> Option<Arc<str>> {
    (edition > 0).then(|| edition.to_string().into())
}

/// The row that an event is, as it was when it was published.
pub(crate) fn row_of(event: &Envelope) -> Row {
    let edition = event.edition.as_deref().map_or(Ok(0), str::parse);
    (event.id, edition.expect("what is in the outbox has a number, or none"))
}

/// The message that this publication of a row is.
pub(crate) fn message_id(id: Uuid, number: i32) -> String {
    bus::message_id(id, edition(number).as_deref())
}

/// The row that a message is a publication of, if it is one of an outbox.
pub(crate) fn row_in(message_id: &str) -> Option<Row> {
    let (id, edition) = match message_id.split_once('.') {
        Some((id, edition)) => (id, edition.parse().ok()?),
        None => (message_id, 0),
    };
    Some((Uuid::parse_str(id).ok()?, edition))
}

fn to_row(envelope: &Envelope) -> row::Model {
    row::Model {
        id: envelope.id,
        published: 0,
        edition: 0,
        stream_sequence: None,
        kind: envelope.kind.to_string(),
        subject: envelope.subject,
        time: envelope.time,
        correlation_id: envelope.correlation_id,
        causation_id: envelope.causation_id,
        traceparent: envelope.traceparent.as_deref().map(str::to_owned),
        tracestate: envelope.tracestate.as_deref().map(str::to_owned),
        payload: envelope.payload.to_vec(),
    }
}
