//! A service's database: many who read, one who writes. Its URL says what it is: files of SQLite, `PostgreSQL`, or
//! `MariaDB` and MySQL.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, sqlx,
    sqlx::postgres::PgConnectOptions,
};

use tokio::time::timeout;

use crate::Time;

mod fault;
mod migrate;
mod mysql;
mod postgres;
mod reach;
mod sqlite;
mod watch;

pub(crate) use fault::{is_away, is_conflict, is_duplicate_index, is_late};
pub use sqlite::url;

/// How long somebody waits for a connection: about as long as its caller does.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a statement waits for a lock of another replica, whose transactions take milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a session may hold locks while it asks for nothing: what holds them has crashed, or stands still. Less than the
/// 2.5 s that its callers wait before they ask another replica: that one is not to find the locks, and wait in its turn.
const IDLE_TRANSACTION: Duration = Duration::from_secs(2);
/// How long a replica waits for another one that brings the tables up to date.
const MIGRATION_WAIT: Duration = Duration::from_secs(60);
/// A connection that nobody has used for so long is looked at before it is: a server that was restarted is noticed then, and
/// under load looking costs nothing.
const PING_AFTER: Duration = Duration::from_secs(1);
/// A server that still says nothing so long after it should have ended a statement stands still, or its host is gone.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a loop waits for an answer that nobody else waits for: longer than any statement takes that a server lets run.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection that comes back may take to show that it is well: about as long as whoever wants it waits.
const COMES_BACK: Duration = Duration::from_secs(2);
/// As the server lists our sessions.
const APPLICATION: &str = "journal";
/// What is told of a database with somebody else's tables in it.
const FOREIGN: &str = "it belongs to another program";

/// How a service uses its database.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Database")]
#[group(skip)] // its name would be that of every other `Config`
pub struct Config {
    /// Connections that read; one more writes
    #[arg(
        id = "database_connections",
        long = "database-connections",
        env = "STARCOFFEE_DATABASE_CONNECTIONS",
        value_name = "N",
        default_value = "4",
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    pub connections: u32,
    /// How long to wait at the start for a database server that cannot be reached yet
    #[arg(
        id = "database_wait",
        long = "database-wait",
        env = "STARCOFFEE_DATABASE_WAIT",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = chassis::args::duration
    )]
    pub wait: Duration,
    /// How long a database server may take for one statement
    #[arg(
        long = "statement-timeout",
        env = "STARCOFFEE_STATEMENT_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = chassis::args::period
    )]
    pub statement_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: 4,
            wait: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(5),
        }
    }
}

/// Where a database is, and how it is used. Shown without what is secret.
#[derive(Clone)]
pub struct Source {
    /// `sqlite:PATH?mode=rwc`, `postgres://USER:PASSWORD@HOST:PORT/NAME` or `mysql://USER:PASSWORD@HOST:PORT/NAME`.
    pub url: String,
    /// The setting that the URL comes from, which errors name.
    pub flag: &'static str,
    /// How it is used.
    pub config: Config,
}

/// A service's database. A clone is the same database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Connections for all who read. They cannot write: only the [`Writer`](crate::Writer) can.
    pub pool: DatabaseConnection,
    writer: DatabaseConnection,
    left_open: LeftOpen,
    source: Arc<Source>,
    server: Server,
}

/// The way to a database server.
#[derive(Clone, Debug)]
enum Server {
    /// There is none.
    Sqlite,
    Postgres(Box<PgConnectOptions>),
    MySql(Box<mysql::Server>),
}

/// What a pool is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Reads,
    Writes,
    Migrates,
}

impl Role {
    fn reads(self) -> bool {
        self == Self::Reads
    }

    fn connections(self, config: &Config) -> u32 {
        if self.reads() { config.connections } else { 1 }
    }
}

/// A transaction may have been left open: whoever began it went away midway, and the driver does not know. Or the server does not
/// answer, or is not the one it was. The connection is closed when it comes back, instead of giving what others write to a transaction that nobody ever commits.
#[derive(Clone, Debug, Default)]
struct LeftOpen(Arc<AtomicBool>);

impl LeftOpen {
    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// A transaction that is about to begin.
struct Beginning<'a>(Option<&'a LeftOpen>);

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        if let Some(left_open) = self.0 {
            left_open.set();
        }
    }
}

impl Database {
    /// Opens a database. A server that cannot be reached yet is waited for.
    ///
    /// # Errors
    /// There is none, it cannot be used, or it is somebody else's: names the setting, and what to do.
    pub async fn open(source: &Source) -> anyhow::Result<Self> {
        let opened = Self::open_unnamed(source).await;
        opened.with_context(|| format!("cannot use the database {source} ({})", source.flag))
    }

    async fn open_unnamed(source: &Source) -> anyhow::Result<Self> {
        let scheme = source.url.split(':').next().unwrap_or_default();
        let server = match scheme {
            "sqlite" => Server::Sqlite,
            "postgres" | "postgresql" => Server::Postgres(Box::new(postgres::find(source).await?)),
            "mysql" | "mariadb" => Server::MySql(Box::new(mysql::find(source).await?)),
            _ => anyhow::bail!(
                "it is none of sqlite:PATH?mode=rwc, postgres://USER@HOST/NAME and mysql://USER@HOST/NAME"
            ),
        };
        let (left_open, unused) = (LeftOpen::default(), LeftOpen::default());
        let (pool, writer) = match server {
            Server::Sqlite => sqlite::open(&source.url, &source.config).await?,
            _ => (
                pool(&server, &source.config, Role::Reads, unused),
                pool(&server, &source.config, Role::Writes, left_open.clone()),
            ),
        };
        Ok(Self { pool, writer, left_open, source: Arc::new(source.clone()), server })
    }

    /// What the database's clock says: the same for all who use it.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn now(&self) -> Result<Time, DbErr> {
        let sql = match self.server {
            Server::Sqlite => sqlite::CLOCK,
            Server::Postgres(_) => postgres::CLOCK,
            Server::MySql(_) => mysql::CLOCK,
        };
        let sql = Statement::from_string(self.pool.get_database_backend(), sql);
        let row = self.pool.query_one_raw(sql).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("a clock always tells".to_owned()))?;
        row.try_get("", "now").map(Time::from_micros)
    }

    /// Begins a change.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        // at once and not at the first write, where a lock that is taken fails without waiting
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        let options =
            TransactionOptions { sqlite_transaction_mode, ..TransactionOptions::default() };
        let mut begun = pin!(self.writer.begin_with_options(options));
        // declared after, so dropped before: the connection comes back to a pool that knows
        let mut beginning = Beginning(Some(&self.left_open));
        let begun = begun.as_mut().await;
        beginning.0 = None;
        begun
    }

    /// A change, which ends also when the server stands still: `within` how long, or else as soon as any server would have ended
    /// one statement. After a server that cannot be used, another connection is made for the next change: another server may
    /// be in charge by now.
    pub(crate) async fn change<T>(
        &self,
        within: Option<Duration>,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        if matches!(self.server, Server::Sqlite) {
            return work.await; // a file does not stand still
        }
        let mut work = pin!(work);
        let changed = self.answered(within, work.as_mut()).await;
        if let Err(error) = &changed
            && is_away(error)
            && !is_late(error)
        {
            // before the work is dropped, and the connection comes back
            self.left_open.set();
        }
        changed
    }

    /// A look, which ends also when the server stands still.
    pub(crate) async fn look<T>(
        &self,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        if matches!(self.server, Server::Sqlite) {
            return work.await; // a file does not stand still
        }
        self.answered(None, work).await
    }

    async fn answered<T>(
        &self,
        within: Option<Duration>,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        let limit = within.unwrap_or(self.source.config.statement_timeout + SILENCE);
        timeout(limit, work).await.unwrap_or_else(|_elapsed| Err(silent(limit)))
    }
}

/// A look of a loop that nobody waits for, and that has no other end when the server stands still: it is looked again later.
///
/// # Errors
/// The database failed, or does not answer.
pub async fn patiently<T>(look: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    timeout(PATIENCE, look).await.unwrap_or_else(|_elapsed| Err(silent(PATIENCE)))
}

fn silent(limit: Duration) -> DbErr {
    let silent = format!("the database server has not answered for {limit:?}");
    DbErr::Conn(RuntimeErr::Internal(silent))
}

/// A pool of a server's; it connects when it is first used.
fn pool(server: &Server, config: &Config, role: Role, left_open: LeftOpen) -> DatabaseConnection {
    match server {
        Server::Sqlite => unreachable!("files have pools of their own"),
        Server::Postgres(options) => postgres::pool(options, config, role, left_open),
        Server::MySql(server) => mysql::pool(server, config, role, left_open),
    }
}

/// A database with tables, of which none is the list of our migrations, is somebody else's.
fn empty_or_ours((tables, ours): (i64, i64)) -> Result<(), reach::Fault> {
    match ours == 0 && tables > 0 {
        true => Err(reach::Fault::Lasting(anyhow!(FOREIGN))),
        false => Ok(()),
    }
}

/// Whether a connection is well: one of a server that stands still is closed, and makes room for another.
async fn comes_back(
    well: impl Future<Output = Result<(), sqlx::Error>>,
) -> Result<bool, sqlx::Error> {
    Ok(matches!(timeout(COMES_BACK, well).await, Ok(Ok(()))))
}

fn malformed(error: sqlx::Error) -> anyhow::Error {
    anyhow!(error).context("the URL is malformed")
}

/// Without the password, and without parameters, of which one may be another.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.url.split_once("://") else {
            let path = self.url.split('?').next().unwrap_or_default();
            return f.write_str(path.trim_start_matches("sqlite:"));
        };
        // a password with an unescaped @, / or ? is still none of anybody's business
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (user.split(':').next().unwrap_or_default(), place),
            None => ("", rest),
        };
        let place = place.split('?').next().unwrap_or_default();
        let (host, name) = place.split_once('/').unwrap_or((place, ""));
        // without an @ it is no port but the rest of a user's password
        let digits = |port: &str| port.chars().all(|digit| digit.is_ascii_digit());
        let host = match host.rsplit_once(':') {
            Some((before, port)) if !digits(port.trim_end_matches(']')) && !port.contains(']') => {
                before
            }
            _ => host,
        };
        write!(f, "{scheme}://{user}{}{host}/{name}", if user.is_empty() { "" } else { "@" })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("url", &self.to_string())
            .field("flag", &self.flag)
            .field("config", &self.config)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};

    fn source(url: &str) -> Source {
        Source { url: url.to_owned(), flag: "--database-url", config: Config::default() }
    }

    #[test]
    fn the_default_is_what_the_flags_say() {
        let flags = Config::augment_args(clap::Command::new("test")).get_matches_from(["test"]);
        let flags = Config::from_arg_matches(&flags).expect("all have a default");
        assert_eq!(format!("{flags:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            (
                "postgres://kim:secret@db:5432/orders?sslmode=require",
                "postgres://kim@db:5432/orders",
            ),
            ("postgres://kim@db/orders?password=secret", "postgres://kim@db/orders"),
            ("mysql://kim:se@cret/secret?secret@db/orders", "mysql://kim@db/orders"),
            ("postgres://kim:secret/orders", "postgres://kim/orders"),
            ("postgres://[::1]:5432/orders", "postgres://[::1]:5432/orders"),
            ("postgres://[::1]/orders", "postgres://[::1]/orders"),
            ("sqlite:/data/order.db?mode=rwc", "/data/order.db"),
        ] {
            let source = source(url);
            assert_eq!(source.to_string(), shown);
            assert!(!format!("{source:?}").contains("secret"), "{source:?}");
        }
    }

    #[tokio::test]
    async fn another_program_s_database_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("theirs? 100% #1.db");
        let url = url(&path);
        let theirs = sea_orm::Database::connect(&url).await.expect("a new database");
        theirs.execute_unprepared("CREATE TABLE notes (text TEXT)").await.expect("a table");
        theirs.close().await.expect("it closes");
        let before = std::fs::read(&path).expect("it is where its URL says");
        let error = Database::open(&source(&url)).await.expect_err("it is not ours");
        let error = format!("{error:#}");
        assert!(
            error.contains("theirs") && error.ends_with("it belongs to another program"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).expect("it is there"), before);
    }

    #[tokio::test]
    async fn what_is_no_file_is_refused_with_its_cure() {
        for (url, cure) in [
            ("sqlite::memory:", "name a file"),
            ("sqlite:/tmp/nothing?mode=memory", "name a file"),
            ("sqlite:/nowhere/order.db?mode=rwc", "see that the directory exists"),
        ] {
            let error = Database::open(&source(url)).await.expect_err("it cannot be used");
            let error = format!("{error:#}");
            assert!(error.contains("(--database-url): ") && error.contains(cure), "{error}");
        }
    }

    #[tokio::test]
    async fn only_the_writer_can_write() {
        let test = testbed::database().await;
        let url = test.url.clone();
        let database = Database::open(&source(&url)).await.expect("a new database");
        assert!(database.pool.execute_unprepared("CREATE TABLE notes (text TEXT)").await.is_err());
        assert!(
            database.now().await.expect("it tells").since(Time::now()) < Duration::from_secs(60)
        );
        drop(database);
        Database::open(&source(&url)).await.expect("it is ours");
    }

    /// Regression, F1: the driver forgot a transaction whose beginning was dropped midway, and what came after was told that
    /// it is stored, and was not.
    #[tokio::test]
    async fn a_beginning_that_is_dropped_midway_leaves_no_transaction_open() {
        let test = testbed::database().await;
        let database = Database::open(&source(&test.url)).await.expect("a new database");
        let notes = "CREATE TABLE notes (id INTEGER)";
        database.writer.execute_unprepared(notes).await.expect("a table");
        let pause = async || timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
        // to connect takes more steps than to begin; after some steps it is done
        for (id, steps) in (0..10).cycle().take(50).enumerate() {
            let _connection_came_back = pause().await;
            {
                let mut begun = pin!(database.begin());
                let mut left = steps;
                while left > 0 && futures::poll!(begun.as_mut()).is_pending() {
                    let _answer_came = pause().await;
                    left -= 1;
                }
            }
            // without a transaction of its own, it would become part of one that was left open
            let note = format!("INSERT INTO notes VALUES ({id})");
            database.writer.execute_unprepared(&note).await.expect("it is told so");
            let seen = format!("SELECT id FROM notes WHERE id = {id}");
            let seen = Statement::from_string(database.pool.get_database_backend(), seen);
            let seen = database.pool.query_one_raw(seen).await.expect("it can be read");
            assert!(seen.is_some(), "dropped after {steps} steps");
        }
    }

    /// Regression, F10: a transaction that reads before it writes failed at once when another one had written in between.
    #[tokio::test]
    async fn transactions_wait_for_each_other_from_their_beginning_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let url = url(&directory.path().join("ours.db"));
        let database = Database::open(&source(&url)).await.expect("a new database");
        let other = Database::open(&source(&url)).await.expect("the same");
        let sum = "CREATE TABLE sums (sum INTEGER); INSERT INTO sums VALUES (0)";
        database.writer.execute_unprepared(sum).await.expect("a table");
        let add = async |database: &Database| {
            for _ in 0..50 {
                let tx = database.begin().await.expect("it waits its turn");
                let sum = Statement::from_string(tx.get_database_backend(), "SELECT sum FROM sums");
                let sum = tx.query_one_raw(sum).await.expect("it can be read").expect("a row");
                let sum: i64 = sum.try_get("", "sum").expect("a number");
                let more = format!("UPDATE sums SET sum = {}", sum + 1);
                tx.execute_unprepared(&more).await.expect("nobody else is writing");
                tx.commit().await.expect("it is stored");
            }
        };
        tokio::join!(add(&database), add(&other));
        let sum = Statement::from_string(sea_orm::DbBackend::Sqlite, "SELECT sum FROM sums");
        let sum = database.pool.query_one_raw(sum).await.expect("it can be read").expect("a row");
        assert_eq!(sum.try_get::<i64>("", "sum").expect("a number"), 100);
    }
}
