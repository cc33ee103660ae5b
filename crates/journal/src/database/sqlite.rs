//! Databases in files of SQLite: no server, one process that writes.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, sqlx,
};

use super::{ACQUIRE_TIMEOUT, Config};

/// How long a statement waits for another process that has the file locked, such as one that copies it. Callers are told
/// that the database cannot be used before their own time is over.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Pages that each connection keeps, in KiB (SQLite counts them as negative pages): hot rows are few.
const CACHE_KIB: u32 = 2_000;
/// Rows that a connection's thread hands over at a time: with SQLite, waking the task that waits costs more than a row.
const ROW_BUFFER: usize = 1024;
/// "star", written into the file's header: nobody else's database is taken for ours.
const APPLICATION_ID: i32 = 0x7374_6172;

pub(super) const CLOCK: &str = "SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS now";

/// The URL of a database in this file, which is created if it does not exist.
#[must_use]
pub fn url(path: &Path) -> String {
    // what would end the path, or stand for something else
    let path =
        path.display().to_string().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    format!("sqlite:{path}?mode=rwc")
}

/// Connections that read, and the one that writes.
pub(super) async fn open(
    url: &str,
    config: &Config,
) -> anyhow::Result<(DatabaseConnection, DatabaseConnection)> {
    // each connection would have a database of its own
    let parameters = url.split_once('?').map_or("", |(_path, parameters)| parameters);
    let memory = url.contains(":memory:") || parameters.contains("mode=memory");
    anyhow::ensure!(
        !memory,
        "it would be lost with the process: name a file, sqlite:PATH?mode=rwc"
    );
    let writer = sea_orm::Database::connect(options(url, 1, false)).await.map_err(cure)?;
    claim(&writer).await?;
    let pool = sea_orm::Database::connect(options(url, config.connections, true)).await?;
    Ok((pool, writer))
}

/// What a person can do about it.
fn cure(error: DbErr) -> anyhow::Error {
    let missing = error.to_string().contains("unable to open database file");
    match missing {
        true => anyhow!(
            "the file cannot be opened: see that the directory exists and may be written to; ?mode=rwc makes the file"
        ),
        false => anyhow!(error),
    }
}

fn options(url: &str, connections: u32, read_only: bool) -> ConnectOptions {
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
        _ => anyhow::bail!(super::FOREIGN),
    }
    // kept in the file, so not before it is known to be ours: who reads does not wait for who writes
    writer.execute_unprepared("PRAGMA journal_mode = WAL").await?;
    Ok(())
}
