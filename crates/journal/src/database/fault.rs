//! What a database's error is about: a row, another writer, or the database itself.

use sea_orm::{
    DbErr, RuntimeErr,
    sqlx::{
        self,
        error::{DatabaseError, ErrorKind},
        mysql::MySqlDatabaseError,
        postgres::PgDatabaseError,
    },
};

use super::mysql;

/// The database cannot be used now: nothing that was asked of it is at fault, and to ask again at once would not help.
pub(crate) fn is_away(error: &DbErr) -> bool {
    if matches!(error, DbErr::Conn(_) | DbErr::ConnectionAcquire(_)) {
        return true;
    }
    match asked(error) {
        Some(sqlx::Error::Database(error)) => {
            matches!(error.kind(), ErrorKind::Other) && !is_about_a_row(&**error)
        }
        Some(
            sqlx::Error::Io(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed,
        ) => true,
        _ => false,
    }
}

/// The server ended a statement that took too long: with less to do, the next may not.
pub(crate) fn is_late(error: &DbErr) -> bool {
    let Some(sqlx::Error::Database(error)) = asked(error) else { return false };
    match mysql::number(&**error) {
        Some(number) => [1969, 3024].contains(&number), // MariaDB's and MySQL's
        None => is_postgres(&**error) && error.code().as_deref() == Some("57014"),
    }
}

/// Another writer came in between: load again, and it may go well. A lock that was not to be had in time is none: who holds
/// locks for seconds stands still, and callers are told so before their own time is over.
pub(crate) fn is_conflict(error: &DbErr) -> bool {
    let Some(sqlx::Error::Database(error)) = asked(error) else { return false };
    if error.is_unique_violation() {
        return true;
    }
    match mysql::number(&**error) {
        // a deadlock, and a row that changed since it was read
        Some(number) => [1213, 1020].contains(&number),
        // transactions that exclude each other, deadlocks among them
        None => is_postgres(&**error) && has_class(&**error, &["40"]),
    }
}

/// There is an index of this name.
pub(crate) fn is_duplicate_index(error: &DbErr) -> bool {
    let Some(sqlx::Error::Database(error)) = asked(error) else { return false };
    mysql::number(&**error) == Some(1061)
}

fn asked(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            Some(error)
        }
        _ => None,
    }
}

/// Locks, disks, connections, limits and rights are not about a row.
fn is_about_a_row(error: &dyn DatabaseError) -> bool {
    if error.try_downcast_ref::<MySqlDatabaseError>().is_some() {
        // beside data that does not fit: a packet that is too large, and text that is none, which it counts elsewhere
        let odd = mysql::number(error).is_some_and(|number| [1153, 1366, 3819].contains(&number));
        return odd || has_class(error, &["21", "22", "23"]);
    }
    match is_postgres(error) {
        true => has_class(error, &["21", "22", "23", "54"]), // the last: more than fits into a row or a statement
        false => error.code().is_some_and(|code| ["18", "20"].contains(&&*code)), // SQLite's TOOBIG and MISMATCH
    }
}

fn is_postgres(error: &dyn DatabaseError) -> bool {
    error.try_downcast_ref::<PgDatabaseError>().is_some()
}

/// Whether its SQLSTATE begins so.
fn has_class(error: &dyn DatabaseError, classes: &[&str]) -> bool {
    error.code().is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
}
