//! Databases on `MariaDB` and MySQL, which speak the same protocol and differ in their settings' names.

use anyhow::anyhow;
use sea_orm::{
    DatabaseConnection, SqlxMySqlConnector,
    sqlx::{
        self, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, MySqlConnection,
        mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions},
    },
};

use super::{
    ACQUIRE_TIMEOUT, Config, IDLE_TRANSACTION, LOCK_TIMEOUT, LeftOpen, MIGRATION_WAIT, PING_AFTER,
    Role, Source,
    reach::{Fault, reach, said},
};

/// The oldest `MariaDB` whose makers still kept it when this was written; we are tested with 10.11.
const OLDEST_MARIADB: (u32, u32) = (10, 6);
/// The same for MySQL. We are not tested with it.
const OLDEST_MYSQL: (u32, u32) = (8, 0);

/// Sessions are in UTC: sqlx sees to it.
pub(super) const CLOCK: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) AS now";

/// Names are the server's and not the database's, and at most 64 characters.
const LOCK_NAME: &str = "SHA1(CONCAT('the tables of ', DATABASE()))";

/// The lock of this session, waited for.
pub(super) fn lock() -> String {
    format!("SELECT CAST(GET_LOCK({LOCK_NAME}, {}) AS SIGNED) AS locked", MIGRATION_WAIT.as_secs())
}

/// Gives it back; the server does so itself when the session ends.
pub(super) fn unlock() -> String {
    format!("SELECT CAST(RELEASE_LOCK({LOCK_NAME}) AS SIGNED) AS locked")
}

/// A server that was reached and found to be good, and the way to it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    options: MySqlConnectOptions,
    mariadb: bool,
}

pub(super) async fn find(source: &Source) -> anyhow::Result<Server> {
    let options: MySqlConnectOptions = source.url.parse().map_err(super::malformed)?;
    // texts are compared byte for byte, whatever the database's default is
    let options = options.disable_statement_logging().collation("utf8mb4_bin");
    let mariadb = reach(source, async || look(&options).await).await?;
    Ok(Server { options, mariadb })
}

/// Whether it is `MariaDB`.
async fn look(options: &MySqlConnectOptions) -> Result<bool, Fault> {
    let mut server = MySqlConnection::connect_with(options).await.map_err(fault)?;
    let version: String =
        sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut server).await.map_err(fault)?;
    let mariadb = version.contains("MariaDB");
    let (name, oldest) = match mariadb {
        true => ("MariaDB", OLDEST_MARIADB),
        false => ("MySQL", OLDEST_MYSQL),
    };
    if !is_since(&version, oldest) {
        let (major, minor) = oldest;
        return Err(Fault::Lasting(anyhow!(
            "it is {name} {version}: it has to be {name} {major}.{minor} or newer"
        )));
    }
    let database: Option<i64> = sqlx::query_scalar("SELECT length(DATABASE())")
        .fetch_one(&mut server)
        .await
        .map_err(fault)?;
    if database.is_none() {
        return Err(Fault::Lasting(anyhow!("the URL names no database: mysql://USER@HOST/NAME")));
    }
    let tables = "SELECT count(*), count(CASE WHEN table_name = 'seaql_migrations' THEN 1 END) \
                  FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'";
    let tables = sqlx::query_as(tables).fetch_one(&mut server).await.map_err(fault)?;
    super::empty_or_ours(tables)?;
    let _gone_either_way = server.close().await;
    Ok(mariadb)
}

/// Versions begin with numbers, whatever follows them.
fn is_since(version: &str, oldest: (u32, u32)) -> bool {
    let mut numbers = version.split(|digit: char| !digit.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= oldest,
        _ => false,
    }
}

/// The server's own number of an error, which tells more than its SQLSTATE.
pub(super) fn number(error: &dyn sqlx::error::DatabaseError) -> Option<u16> {
    error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

fn fault(error: sqlx::Error) -> Fault {
    let cure = match &error {
        sqlx::Error::Io(_) => return Fault::Passing(said(error)),
        sqlx::Error::Database(answer) => match number(&**answer) {
            Some(1045 | 1698) => "it refuses the user or the password",
            Some(1049) => "there is no such database on it: CREATE DATABASE makes one",
            Some(1044 | 1142) => "the user may not use it: GRANT lets them",
            // no connection is free, for all or for this user; stopping
            Some(1040 | 1203 | 1226 | 1053) => return Fault::Passing(said(error)),
            _ => return Fault::Lasting(said(error)),
        },
        _ => return Fault::Lasting(said(error)),
    };
    Fault::Lasting(said(error).context(cure))
}

/// A pool that connects when it is first used.
pub(super) fn pool(
    server: &Server,
    config: &Config,
    role: Role,
    left_open: LeftOpen,
) -> DatabaseConnection {
    let settings = settings(server.mariadb, config, role);
    let unwell = left_open.clone();
    let pool = MySqlPoolOptions::new()
        .max_connections(role.connections(config))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false) // a round trip for each use; sqlx looks at a connection when it comes back
        .after_connect(move |connection, _metadata| {
            let settings = settings.clone();
            Box::pin(async move {
                for setting in settings {
                    connection.execute(AssertSqlSafe(setting)).await?;
                }
                Ok(())
            })
        })
        .before_acquire(move |connection, metadata| {
            let clean = !unwell.take();
            Box::pin(async move {
                if !clean {
                    return Ok(false);
                }
                // the server may have gone while nobody looked
                if metadata.idle_for > PING_AFTER {
                    return Ok(connection.ping().await.is_ok());
                }
                Ok(true)
            })
        })
        .after_release(move |connection, _metadata| {
            let clean = !left_open.take();
            Box::pin(async move {
                // sqlx waits without end for the rest of an answer that nobody wants any more
                if clean && role.reads() {
                    return super::comes_back(connection.ping()).await;
                }
                Ok(clean)
            })
        })
        .connect_lazy_with(server.options.clone());
    SqlxMySqlConnector::from_sqlx_mysql_pool(pool)
}

/// What a session says first.
fn settings(mariadb: bool, config: &Config, role: Role) -> Vec<String> {
    let access = if role.reads() { ", READ ONLY" } else { "" };
    let (statement, lock) = match role {
        Role::Migrates => (std::time::Duration::ZERO, MIGRATION_WAIT), // large tables take their time
        Role::Reads | Role::Writes => (config.statement_timeout, LOCK_TIMEOUT),
    };
    let limits = match mariadb {
        true => format!(
            "max_statement_time = {}, idle_transaction_timeout = {}",
            statement.as_secs_f64(),
            IDLE_TRANSACTION.as_secs()
        ),
        // MySQL has this for reading statements only, and nothing for idle transactions
        false => format!("max_execution_time = {}", statement.as_millis()),
    };
    let lock = lock.as_secs();
    vec![
        format!("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED{access}"),
        // what does not fit is an error, also where the server would cut it off by default
        format!(
            "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), lock_wait_timeout = {lock}, \
             innodb_lock_wait_timeout = {lock}, {limits}"
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(is_since("10.11.14-MariaDB-0+deb12u2", OLDEST_MARIADB));
        assert!(is_since("11.4.2-MariaDB", OLDEST_MARIADB) && is_since("8.4.0", OLDEST_MYSQL));
        assert!(!is_since("10.5.29-MariaDB", OLDEST_MARIADB) && !is_since("5.7.44", OLDEST_MYSQL));
        assert!(!is_since("nonsense", OLDEST_MYSQL));
    }
}
