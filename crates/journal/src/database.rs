//! A service's database: many who read, one who writes.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    RuntimeErr, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, sqlx,
};
use sea_orm_migration::MigratorTrait;

use crate::Time;

/// Connections that read. They only wait for the disk and for each other, and each keeps a cache.
const READERS: u32 = 4;
/// How long a reader waits for a connection: about as long as its caller does.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a statement waits for another process that has the file locked, such as one that copies it. Callers are told
/// that the database cannot be used before their own time is over.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Pages that each connection keeps, in KiB (SQLite counts them as negative pages): hot rows are few.
const CACHE_KIB: u32 = 2_000;
/// Rows that a connection's thread hands over at a time: with SQLite, waking the task that waits costs more than a row.
const ROW_BUFFER: usize = 1024;
/// "star", written into the file's header: nobody else's database is taken for ours.
const APPLICATION_ID: i32 = 0x7374_6172;

/// A service's database. A clone is the same database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Connections for all who read. They cannot write: only the [`Writer`](crate::Writer) can.
    pub pool: DatabaseConnection,
    writer: DatabaseConnection,
}

/// The URL of a database in this file, which is created if it does not exist.
#[must_use]
pub fn url(path: &Path) -> String {
    // what would end the path, or stand for something else
    let path =
        path.display().to_string().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("sqlite:{path}?mode=rwc")
}

impl Database {
    /// Opens a database by its URL: `sqlite:PATH?mode=rwc`.
    ///
    /// # Errors
    /// There is none, it cannot be used, or it is somebody else's.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let shown = url.split('?').next().unwrap_or(url).trim_start_matches("sqlite:");
        anyhow::ensure!(
            url.starts_with("sqlite:"),
            "{shown:?} is no database this version knows: sqlite:PATH"
        );
        let open = async {
            let writer = sea_orm::Database::connect(sqlite(url, 1, false)).await?;
            claim(&writer).await?;
            let pool = sea_orm::Database::connect(sqlite(url, READERS, true)).await?;
            anyhow::Ok(Self { pool, writer })
        };
        open.await.with_context(|| format!("cannot use the database {shown}"))
    }

    /// Brings its tables up to date.
    ///
    /// # Errors
    /// A migration failed, or a newer version was here before.
    pub async fn migrate<M: MigratorTrait>(&self) -> anyhow::Result<()> {
        M::up(&self.writer, None).await.context("cannot bring the database's tables up to date")
    }

    /// What the database's clock says: the same for all who use it.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn now(&self) -> Result<Time, DbErr> {
        let sql = "SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS now";
        let row = self.pool.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("a clock always tells".to_owned()))?;
        row.try_get("", "now").map(Time::from_micros)
    }

    /// Begins a change. Never in a future that may be dropped midway: the connection would stay within the transaction.
    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        // at once and not at the first write, where a lock that is taken fails without waiting
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        let options =
            TransactionOptions { sqlite_transaction_mode, ..TransactionOptions::default() };
        self.writer.begin_with_options(options).await
    }
}

/// The database cannot be used now: nothing that was asked of it is at fault, and to ask again at once would not help.
pub(crate) fn is_away(error: &DbErr) -> bool {
    let error = match error {
        DbErr::Conn(_) | DbErr::ConnectionAcquire(_) => return true,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            error
        }
        _ => return false,
    };
    match &**error {
        // a constraint, and SQLite's TOOBIG and MISMATCH, are about a row; locks, disks and limits are not
        sqlx::Error::Database(error) => {
            let about_a_row = error.code().is_some_and(|code| ["18", "20"].contains(&&*code));
            matches!(error.kind(), sqlx::error::ErrorKind::Other) && !about_a_row
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

fn sqlite(url: &str, connections: u32, read_only: bool) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false) // a file does not hang up
        .sqlx_logging(false)
        // When a commit fails, because the disk is full for example, SQLite itself gives the transaction up, and sqlx goes on
        // counting it as open: what it takes for a commit after that would be none. Such a connection is not used again.
        .map_sqlx_sqlite_before_acquire(|connection, _metadata| {
            let clean = !sqlx::Connection::is_in_transaction(connection);
            Box::pin(async move { Ok(clean) })
        })
        .map_sqlx_sqlite_opts(move |options| {
            let options = options
                .busy_timeout(BUSY_TIMEOUT)
                .row_buffer_size(ROW_BUFFER)
                .pragma("cache_size", format!("-{CACHE_KIB}"))
                .pragma("synchronous", "FULL"); // a commit is on the disk before anybody hears of it
            if read_only { options.pragma("query_only", "ON") } else { options }
        });
    options
}

/// Writes our name into an empty file, and looks for it in any other.
async fn claim(writer: &DatabaseConnection) -> anyhow::Result<()> {
    let sql = "SELECT application_id, (SELECT count(*) FROM sqlite_master) AS tables FROM pragma_application_id";
    let row = writer.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await?;
    let row = row.context("it does not answer")?;
    match (row.try_get("", "application_id")?, row.try_get::<i64>("", "tables")?) {
        (APPLICATION_ID, _) => {}
        (0, 0) => {
            let ours = format!("PRAGMA application_id = {APPLICATION_ID}");
            writer.execute_unprepared(&ours).await?;
        }
        _ => anyhow::bail!("it belongs to another program"),
    }
    // kept in the file, so not before it is known to be ours: who reads does not wait for who writes
    writer.execute_unprepared("PRAGMA journal_mode = WAL").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_program_s_database_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("theirs? 100% #1.db");
        let url = url(&path);
        let theirs = sea_orm::Database::connect(&url).await.expect("a new database");
        theirs.execute_unprepared("CREATE TABLE notes (text TEXT)").await.expect("a table");
        theirs.close().await.expect("it closes");
        let before = std::fs::read(&path).expect("it is where its URL says");
        let error = Database::open(&url).await.expect_err("it is not ours");
        let error = format!("{error:#}");
        assert!(
            error.contains("theirs") && error.ends_with("it belongs to another program"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).expect("it is there"), before);
    }

    #[tokio::test]
    async fn only_the_writer_can_write() {
        let directory = tempfile::tempdir().expect("a directory");
        let url = url(&directory.path().join("ours.db"));
        let database = Database::open(&url).await.expect("a new database");
        assert!(database.pool.execute_unprepared("CREATE TABLE notes (text TEXT)").await.is_err());
        assert!(
            database.now().await.expect("it tells").since(Time::now()) < Duration::from_secs(60)
        );
        drop(database);
        Database::open(&url).await.expect("it is ours");
    }
}
