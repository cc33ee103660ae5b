//! Databases on `PostgreSQL`.

use anyhow::anyhow;
use sea_orm::{
    DatabaseConnection, SqlxPostgresConnector,
    sqlx::{
        self, ConnectOptions as _, Connection as _, PgConnection,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
};

use super::{
    ACQUIRE_TIMEOUT, Config, IDLE_TRANSACTION, LOCK_TIMEOUT, LeftOpen, MIGRATION_WAIT, PING_AFTER,
    Role, Source,
    reach::{Fault, reach, said},
};

/// As `server_version_num` says it. The oldest that its makers still kept when this was written; we are tested with 15.
const OLDEST: i64 = 14_00_00;

pub(super) const CLOCK: &str =
    "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) AS now";

/// Waited for as any lock is, and given back at the end of the transaction however that ends.
pub(super) const LOCK: &str = "SELECT CAST(1 AS bigint) AS locked FROM pg_advisory_xact_lock(hashtext('the tables of'), hashtext(current_schema()))";

/// The way to a server that was reached, and found to be good.
pub(super) async fn find(source: &Source) -> anyhow::Result<PgConnectOptions> {
    let options: PgConnectOptions = source.url.parse().map_err(super::malformed)?;
    anyhow::ensure!(
        options.get_database().is_some(),
        "the URL names no database: postgres://USER@HOST/NAME"
    );
    let options = options.disable_statement_logging();
    reach(source, async || look(&options).await).await?;
    Ok(options)
}

async fn look(options: &PgConnectOptions) -> Result<(), Fault> {
    let mut server = PgConnection::connect_with(options).await.map_err(fault)?;
    let version = "SELECT CAST(current_setting('server_version_num') AS bigint)";
    let version: i64 = sqlx::query_scalar(version).fetch_one(&mut server).await.map_err(fault)?;
    if version < OLDEST {
        let (is, oldest) = (version / 10_000, OLDEST / 10_000);
        let old = anyhow!("it is PostgreSQL {is}: it has to be PostgreSQL {oldest} or newer");
        return Err(Fault::Lasting(old));
    }
    let tables = "SELECT count(*), count(CASE WHEN table_name = 'seaql_migrations' THEN 1 END) \
                  FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'";
    let tables = sqlx::query_as(tables).fetch_one(&mut server).await.map_err(fault)?;
    super::empty_or_ours(tables)?;
    let _gone_either_way = server.close().await;
    Ok(())
}

fn fault(error: sqlx::Error) -> Fault {
    let cure = match &error {
        sqlx::Error::Io(_) => return Fault::Passing(said(error)),
        sqlx::Error::Database(answer) => match answer.code().as_deref() {
            Some("28P01" | "28000") => "it refuses the user or the password",
            Some("3D000") => "there is no such database on it: CREATE DATABASE makes one",
            Some("42501") => "the user may not use it: GRANT lets them",
            // starting or stopping, no connection is free, the connection broke
            Some(code) if ["57", "53", "08"].iter().any(|class| code.starts_with(class)) => {
                return Fault::Passing(said(error));
            }
            _ => return Fault::Lasting(said(error)),
        },
        // what it would say of TLS, or of nothing
        sqlx::Error::Protocol(what) if what.contains("SSLRequest") => {
            return Fault::Lasting(anyhow!("it is no PostgreSQL server"));
        }
        _ => return Fault::Lasting(said(error)),
    };
    Fault::Lasting(said(error).context(cure))
}

/// A pool that connects when it is first used.
pub(super) fn pool(
    options: &PgConnectOptions,
    config: &Config,
    role: Role,
    left_open: LeftOpen,
) -> DatabaseConnection {
    let ms = |duration: std::time::Duration| duration.as_millis().to_string();
    let (statement, lock) = match role {
        Role::Migrates => ("0".to_owned(), ms(MIGRATION_WAIT)), // large tables take their time
        Role::Reads | Role::Writes => (ms(config.statement_timeout), ms(LOCK_TIMEOUT)),
    };
    let mut options = options.clone().application_name(super::APPLICATION).options([
        ("statement_timeout", statement),
        ("lock_timeout", lock),
        ("idle_in_transaction_session_timeout", ms(IDLE_TRANSACTION)),
        ("default_transaction_isolation", "read committed".to_owned()),
        // all is found by keys; a plan that was made, and kept, while a table was empty would read all of it
        ("enable_seqscan", "off".to_owned()),
    ]);
    if role.reads() {
        options = options.options([("default_transaction_read_only", "on")]);
    }
    let unwell = left_open.clone();
    let pool = PgPoolOptions::new()
        .max_connections(role.connections(config))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false) // a round trip for each use; sqlx looks at a connection when it comes back
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
        .connect_lazy_with(options);
    SqlxPostgresConnector::from_sqlx_postgres_pool(pool)
}
