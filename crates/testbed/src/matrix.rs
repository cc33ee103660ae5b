//! The combinations that a service's tests run on: which database and which bus, as the environment says. A test asks for a new database
//! and gets one, in a directory or on a server that all tests of the process share.

use crate::{DatabaseServer, Engine};
use journal::database::{Config, Source};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The engine of this run: `STARCOFFEE_TEST_ENGINE` is `sqlite` (also when it is not set), `postgres` or `mariadb`.
///
/// # Panics
/// It is something else.
#[must_use]
pub fn engine() -> Engine {
    match setting("STARCOFFEE_TEST_ENGINE").as_str() {
        "" | "sqlite" => Engine::Sqlite,
        "postgres" => Engine::Postgres,
        "mariadb" => Engine::MariaDb,
        other => panic!("STARCOFFEE_TEST_ENGINE is {other:?}: sqlite, postgres or mariadb"),
    }
}

/// A kind of bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusKind {
    /// Within the process.
    Embedded,
    /// Between processes: a real nats-server for each test.
    Nats,
}

/// The bus of this run: `STARCOFFEE_TEST_BUS` is `embedded` (also when it is not set) or `nats`.
///
/// # Panics
/// It is something else.
#[must_use]
pub fn bus() -> BusKind {
    match setting("STARCOFFEE_TEST_BUS").as_str() {
        "" | "embedded" => BusKind::Embedded,
        "nats" => BusKind::Nats,
        other => panic!("STARCOFFEE_TEST_BUS is {other:?}: embedded or nats"),
    }
}

/// What the environment says of a run.
fn setting(name: &str) -> String {
    #[allow(clippy::disallowed_methods, reason = "cargo test passes no flags on to all tests")]
    std::env::var(name).unwrap_or_default()
}

/// An empty database for one test, which goes with it.
#[derive(Debug)]
pub struct TestDatabase {
    /// Where it is.
    pub url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory { _path: TempDir },
    Server { server: &'static DatabaseServer, name: String },
}

/// An empty database of this run's engine.
///
/// # Panics
/// The server cannot be started: what to install.
pub async fn database() -> TestDatabase {
    database_on(engine()).await
}

/// An empty database of one engine, whatever this run's is.
///
/// # Panics
/// The server cannot be started: what to install.
pub async fn database_on(engine: Engine) -> TestDatabase {
    static MADE: AtomicU32 = AtomicU32::new(0);
    if engine == Engine::Sqlite {
        let directory = tempfile::tempdir().expect("a directory");
        let url = journal::database::url(&directory.path().join("test.db"));
        return TestDatabase { url, place: Place::Directory { _path: directory } };
    }
    let server = server(engine).await;
    let name = format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed));
    let url = server.create(&name).expect("an empty database");
    TestDatabase { url, place: Place::Server { server, name } }
}

impl TestDatabase {
    /// As a service is given it.
    #[must_use]
    pub fn source(&self) -> Source {
        let config = Config { wait: Duration::ZERO, ..Config::default() };
        Source { url: self.url.clone(), flag: "--database-url", config }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Place::Server { server, name } = &self.place {
            // some megabytes each; it may be in use still, or the server may be gone with the process
            let _left_behind = server.drop_database(name);
        }
    }
}

/// The process's own server of this engine. What it stores need not outlive it, so nothing waits for a disk.
async fn server(engine: Engine) -> &'static DatabaseServer {
    static POSTGRES: OnceCell<DatabaseServer> = OnceCell::const_new();
    static MARIADB: OnceCell<DatabaseServer> = OnceCell::const_new();
    let (cell, settings): (_, &[&str]) = match engine {
        Engine::Postgres => {
            (&POSTGRES, &["fsync=off", "full_page_writes=off", "max_connections=300"])
        }
        _ => (
            &MARIADB,
            &["innodb-flush-log-at-trx-commit=0", "innodb-doublewrite=0", "max-connections=300"],
        ),
    };
    let start = async || DatabaseServer::start(engine, settings).await.expect("a database server");
    cell.get_or_init(start).await
}
