//! A tally: a count with a name, which may be added to. And a process that keeps tallies.

use chassis::{DrainConfig, Host};
use journal::{
    Bus, Cause, Database, Decision, Envelope, Malformed, Noun, Outbox, Routes, Table, Time, Writer,
    bus, consumer, database::Source, writer,
};
use prost_types::{Duration as Added, Timestamp as Counted};
use sea_orm::{
    FromQueryResult, Select, Statement,
    entity::prelude::*,
    sea_query::{ColumnDef, Expr, TableCreateStatement},
};
use sea_orm_migration::{
    MigrationName, MigrationTrait, MigratorTrait, SchemaManager, async_trait::async_trait,
};
use std::{sync::Arc, time::Duration};
use testbed::{
    Nats, TestDatabase,
    matrix::{self, BusKind},
    until,
};
use tokio::task::JoinHandle;

/// Long enough for a debug build on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Who publishes here: events live in the package of their publisher.
pub(crate) const SOURCE: &str = "/google/protobuf";
/// No row can have it: the table says so, and the noun does not know.
pub(crate) const BAD_NAME: &str = "unspeakable";

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tallies")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub name: String,
    pub count: i64,
    pub changes: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// Adds `count` to a tally; a negative number is refused, and 13 makes it panic.
#[derive(Clone, Debug)]
pub struct Add {
    pub id: Uuid,
    pub name: &'static str,
    pub count: i64,
}

pub(crate) fn add(id: u128, count: i64) -> Add {
    Add { id: Uuid::from_u128(id), name: "plain", count }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tally only grows")]
pub struct Negative;

impl Noun for Model {
    type Key = Uuid;
    type Command = Add;
    type Refusal = Negative;

    fn key(add: &Add) -> Uuid {
        add.id
    }

    fn keys(&self) -> impl IntoIterator<Item = Uuid> {
        [self.id]
    }

    fn correlation_id(&self) -> Uuid {
        Uuid::from_u128(7)
    }

    fn decide(current: Option<Self>, add: &Add, _now: Time) -> Result<Decision<Self>, Negative> {
        assert_ne!(add.count, 13, "unlucky");
        if add.count < 0 {
            return Err(Negative);
        }
        let new = || Self { id: add.id, name: add.name.to_owned(), count: 0, changes: 0 };
        let Self { id, name, count, changes } = current.unwrap_or_else(new);
        let tally = Self { id, name, count: count + add.count, changes: changes + 1 };
        let counted = Counted { seconds: tally.count, nanos: 0 };
        Ok(Decision::from(tally).and(id, &counted))
    }
}

impl Table for Model {
    fn find(ids: Vec<Uuid>) -> Select<Entity> {
        Entity::find().filter(Column::Id.is_in(ids))
    }

    fn moving() -> Vec<Column> {
        vec![Column::Count, Column::Changes]
    }
}

pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = journal::migrations();
        all.push(Box::new(Tallies));
        all
    }
}

struct Tallies;

impl MigrationName for Tallies {
    fn name(&self) -> &'static str {
        "tallies"
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "async_trait cannot match the trait otherwise")]
impl MigrationTrait for Tallies {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = |column| ColumnDef::new(column).not_null().take();
        let table = TableCreateStatement::new()
            .if_not_exists()
            .table(Entity)
            .col(column(Column::Id).uuid().primary_key())
            .col(column(Column::Name).string().check(Expr::cust("name <> 'unspeakable'")))
            .col(column(Column::Count).big_integer())
            .col(column(Column::Changes).big_integer())
            .take();
        manager.create_table(table).await
    }
}

/// A process that keeps tallies, publishes each count, and adds what it hears.
pub(crate) struct Keeper {
    pub(crate) writer: Writer<Model>,
    pub(crate) bus: Bus,
    pub(crate) database: Database,
    pub(crate) host: Host,
    pub(crate) ended: JoinHandle<anyhow::Result<()>>,
    pub(crate) data: TestDatabase,
    /// The server of its bus, if that has one of its own.
    pub(crate) nats: Option<Nats>,
}

/// A bus on a server, for a process of its own.
pub(crate) async fn connect(host: &Host, nats: &Nats) -> Bus {
    connect_with(host, &bus::Config { url: (&*nats.url()).into(), ..small() }).await
}

pub(crate) async fn connect_with(host: &Host, config: &bus::Config) -> Bus {
    Bus::connect(host, config, stream(), "tally").await.expect("its settings make sense")
}

pub(crate) fn stream() -> bus::Stream {
    bus::Stream { name: "TALLIES".to_owned(), subjects: vec!["google.protobuf.>".to_owned()] }
}

/// A stream that many tests at once have room for.
pub(crate) fn small() -> bus::Config {
    bus::Config { max_bytes: Some(64 << 20), ..bus::Config::default() }
}

impl Keeper {
    /// On the bus that the tests are run for.
    pub(crate) async fn open() -> Self {
        match matrix::bus() {
            BusKind::Embedded => Self::open_embedded().await,
            BusKind::Nats => Self::open_nats(Nats::start().await.expect("a server")).await,
        }
    }

    pub(crate) async fn open_embedded() -> Self {
        Self::open_in(testbed::database().await, Bus::embedded()).await
    }

    /// On a server of its own.
    pub(crate) async fn open_nats(nats: Nats) -> Self {
        Self::open_nats_in(testbed::database().await, nats).await
    }

    pub(crate) async fn open_nats_in(data: TestDatabase, nats: Nats) -> Self {
        let host = Host::new();
        let bus = connect(&host, &nats).await;
        Self { nats: Some(nats), ..Self::open_on(host, data, bus).await }
    }

    /// The bus's gate stays as it is: a test that wants to hear opens it when it listens.
    pub(crate) async fn open_in(data: TestDatabase, bus: Bus) -> Self {
        Self::open_on(Host::new(), data, bus).await
    }

    pub(crate) async fn open_on(host: Host, data: TestDatabase, bus: Bus) -> Self {
        Self::open_trying(2, host, data, bus).await
    }

    /// An event is tried so often.
    pub(crate) async fn open_trying(
        attempts: u32,
        host: Host,
        data: TestDatabase,
        bus: Bus,
    ) -> Self {
        Self::open_as(attempts, data.source(), host, data, bus).await
    }

    /// A statement may take so long.
    pub(crate) async fn open_within(
        statement: Duration,
        host: Host,
        data: TestDatabase,
        bus: Bus,
    ) -> Self {
        let mut source = data.source();
        source.config.statement_timeout = statement;
        Self::open_as(2, source, host, data, bus).await
    }

    async fn open_as(
        attempts: u32,
        source: Source,
        host: Host,
        data: TestDatabase,
        bus: Bus,
    ) -> Self {
        let database = Database::open(&source).await.expect("a database");
        database.migrate::<Migrator>().await.expect("it is brought up to date");
        let outbox = Outbox::open(&host, &database, &bus, SOURCE);
        let config = writer::Config { queue: 4, ..writer::Config::default() };
        let writer = Writer::open(&host, &database, Some(outbox), config);
        let config = consumer::Config { attempts, ..consumer::Config::default() };
        consumer::open(&host, &bus, "tally", routes(), &writer, config);
        #[allow(clippy::disallowed_methods, reason = "the host's own run has no host")]
        let ended = tokio::spawn({
            let host = host.clone();
            let timeout = Duration::from_secs(9);
            async move { host.run(&DrainConfig { delay: Duration::ZERO, timeout }).await }
        });
        Self { writer, bus, database, host, ended, data, nats: None }
    }

    /// Ends the process; what it leaves behind.
    pub(crate) async fn close(self) -> TestDatabase {
        self.host.stop("the test is over");
        let ended = tokio::time::timeout(SOON, self.ended).await;
        ended.expect("it drains in time").expect("it does not panic").expect("nothing failed");
        self.data
    }

    pub(crate) async fn act(&self, add: Add) -> Result<Model, writer::Error<Negative>> {
        self.writer.act(add, cause()).await
    }

    pub(crate) async fn hear(&self, adds: Vec<Add>) -> Vec<Result<(), writer::Error<Negative>>> {
        self.writer.hear(adds.into_iter().map(|add| (add, cause())).collect()).await
    }

    pub(crate) async fn get(&self, id: u128) -> Option<Model> {
        let found = Entity::find_by_id(Uuid::from_u128(id)).one(&self.database.pool).await;
        found.expect("it can be read")
    }

    /// Waits until a tally has this count.
    pub(crate) async fn becomes(&self, id: u128, count: i64) {
        let it_does = async || self.get(id).await.filter(|tally| tally.count == count).map(drop);
        until("a tally", SOON, it_does).await.expect("it is told in time");
    }

    /// Waits until there are so many rows.
    pub(crate) async fn counts(&self, rows: i64, sql: &str) {
        let there_are = async || (self.count(sql).await == rows).then_some(());
        until(sql, SOON, there_are).await.expect("they are there in time");
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        #[derive(FromQueryResult)]
        struct Row {
            n: i64,
        }
        let backend = self.database.pool.get_database_backend();
        let sql = Statement::from_string(backend, format!("SELECT count(*) AS n {sql}"));
        let row = Row::find_by_statement(sql).one(&self.database.pool).await;
        row.expect("it can be read").expect("a count is a row").n
    }
}

pub(crate) fn cause() -> Cause {
    Cause {
        causation_id: Uuid::from_u128(9),
        traceparent: Some("00-trace".into()),
        tracestate: None,
    }
}

/// "So much is to be added": seconds are the count, nanos the tally. Without nanos it cannot be read.
pub(crate) fn added(id: i32, count: i64) -> Arc<Envelope> {
    let event = Added { seconds: count, nanos: id };
    Arc::new(Envelope::of(SOURCE, Uuid::from_u128(1), &event))
}

pub(crate) fn routes() -> Routes<Add> {
    Routes::new().on(|_meta, event: Added| match u128::try_from(event.nanos) {
        Ok(id) if id > 0 => Ok(add(id, event.seconds)),
        _ => Err(Malformed::missing("nanos")),
    })
}

/// The kind of what a keeper publishes.
pub(crate) fn counted() -> Vec<Arc<str>> {
    vec!["google.protobuf.Timestamp".into()]
}
