//! The databases a service can be given: files of SQLite, and real servers of PostgreSQL and MariaDB.

use crate::{
    ports,
    server::{Home, START_WITHIN, Server, prepare, program, signal},
    until,
};
use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Files; there is no server.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// `MariaDB`, which speaks MySQL's protocol.
    MariaDb,
}

/// A database server of tests: it can be killed, stopped, frozen and started again on what it stored.
#[derive(Debug)]
pub struct DatabaseServer {
    server: Server,
    engine: Engine,
    address: SocketAddr,
}

impl DatabaseServer {
    /// Starts one on a free port. `settings` are the server's own, as `fsync=off`.
    ///
    /// # Errors
    /// It is not installed, or does not come up: what it said.
    ///
    /// # Panics
    /// SQLite has no server.
    pub async fn start(engine: Engine, settings: &[&str]) -> anyhow::Result<Self> {
        let [address] = ports::free();
        let server = match engine {
            Engine::Sqlite => panic!("SQLite has no server"),
            Engine::Postgres => postgres(address, settings).await?,
            Engine::MariaDb => mariadb(address, settings).await?,
        };
        let server = Self { server, engine, address };
        server.answers().await?;
        Ok(server)
    }

    /// One that listens may still be recovering.
    async fn answers(&self) -> anyhow::Result<()> {
        until("a database that answers", START_WITHIN, async || self.sql("SELECT 1").ok()).await?;
        Ok(())
    }

    /// Creates a database; its URL.
    ///
    /// # Errors
    /// The name is taken, or the server does not answer: what the client said.
    pub fn create(&self, name: &str) -> anyhow::Result<String> {
        self.sql(&format!("CREATE DATABASE {name}"))?;
        Ok(self.url(name))
    }

    /// Drops a database, also while it is in use.
    ///
    /// # Errors
    /// There is none of this name, or the server does not answer: what the client said.
    pub fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        let sql = match self.engine {
            Engine::Postgres => format!("DROP DATABASE {name} WITH (FORCE)"),
            // it waits for transactions, but not for ever
            _ => format!("SET lock_wait_timeout = 1; DROP DATABASE {name}"),
        };
        self.sql(&sql).map(drop)
    }

    /// The URL of a database in it.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        match self.engine {
            Engine::Postgres => format!("postgres://postgres@{}/{name}", self.address),
            _ => format!("mysql://root@{}/{name}", self.address),
        }
    }

    /// Has the server's own client do something, as its administrator; what it printed, a line for each row.
    ///
    /// # Errors
    /// The server refuses, or does not answer: what the client said.
    pub fn sql(&self, sql: &str) -> anyhow::Result<String> {
        self.sql_in("", sql)
    }

    /// As [`DatabaseServer::sql`], in one of its databases.
    ///
    /// # Errors
    /// The server refuses, or does not answer: what the client said.
    pub fn sql_in(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let mut client = match self.engine {
            Engine::Postgres => {
                let mut client = Command::new(program("psql", POSTGRES)?);
                let database = if database.is_empty() { "postgres" } else { database };
                client.args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]);
                client.args(["-h", &host, "-p", &port, "-d", database, "-c", sql]);
                client
            }
            _ => {
                let mut client = Command::new(program("mariadb", MARIADB)?);
                client.args(["--no-defaults", "-N", "-B", "-u", "root", "-h", &host, "-P", &port]);
                client.args(["-e", sql]);
                if !database.is_empty() {
                    client.arg(database);
                }
                client
            }
        };
        let output = client.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{sql}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.server.end("KILL").await
    }

    /// Has it stop in order, without waiting for its clients.
    ///
    /// # Errors
    /// It does not run.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.server.end(if self.engine == Engine::Postgres { "INT" } else { "TERM" }).await
    }

    /// Freezes it, and all its processes: its connections stay, and nothing answers. Nothing can be asked of it until
    /// [`DatabaseServer::thaw`].
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.server.signal("STOP")?;
        self.server.signal_children("STOP")
    }

    /// Freezes the sessions of its clients alone, as if the host they are on had vanished: who connects anew is served. For
    /// PostgreSQL, where each is a process.
    ///
    /// # Errors
    /// It does not run, or there are none.
    pub fn freeze_sessions(&self, database: &str) -> anyhow::Result<()> {
        let pids = format!("SELECT pid FROM pg_stat_activity WHERE datname = '{database}'");
        for pid in self.sql(&pids)?.lines() {
            signal("STOP", pid)?;
        }
        Ok(())
    }

    /// Ends [`DatabaseServer::freeze`] and [`DatabaseServer::freeze_sessions`].
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.server.signal_children("CONT")?;
        self.server.signal("CONT")
    }

    /// Starts it again on what it stored.
    ///
    /// # Errors
    /// It runs already, or does not come up: what it said.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.server.again().await?;
        self.answers().await
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The id of its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }
}

const POSTGRES: &str =
    "install it (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql)";
const MARIADB: &str =
    "install it (Debian, Ubuntu: apt-get install mariadb-server; macOS: brew install mariadb)";

async fn postgres(address: SocketAddr, settings: &[&str]) -> anyhow::Result<Server> {
    let home = Home::new("postgres")?;
    let data = home.path().join("data").display().to_string();
    let own = |word: &str| word.to_owned();
    let mut initdb = vec![program("initdb", POSTGRES)?, own("-D"), data.clone()];
    initdb.extend(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"].map(own));
    initdb.push(own("--no-sync"));
    prepare(&initdb)?;
    let mut command = vec![program("postgres", POSTGRES)?, own("-D"), data];
    let (port, sockets) = (address.port().to_string(), home.path().display().to_string());
    command.extend([own("-p"), port, own("-k"), sockets]);
    let listen = format!("listen_addresses={}", address.ip());
    for setting in std::iter::once(&listen.as_str()).chain(settings) {
        command.extend([own("-c"), own(setting)]);
    }
    Server::start(command, address, home).await
}

async fn mariadb(address: SocketAddr, settings: &[&str]) -> anyhow::Result<Server> {
    let home = Home::new("mariadb")?;
    let place = |name: &str| home.path().join(name).display().to_string();
    let own = |word: &str| word.to_owned();
    let data = format!("--datadir={}", place("data"));
    // two servers with one directory for temporary tables delete each other's
    let temporary = format!("--tmpdir={}", home.path().display());
    let mut install = vec![program("mariadb-install-db", MARIADB)?];
    install.extend([own("--no-defaults"), data.clone(), temporary.clone()]);
    install.push(own("--skip-test-db"));
    install.push(own("--auth-root-authentication-method=normal"));
    prepare(&install)?;
    let mut command = vec![program("mariadbd", MARIADB)?, own("--no-defaults"), data, temporary];
    command.extend([
        format!("--port={}", address.port()),
        format!("--bind-address={}", address.ip()),
        format!("--socket={}", place("socket")),
        format!("--pid-file={}", place("pid")),
    ]);
    command.push(own("--skip-name-resolve"));
    command.extend(settings.iter().map(|setting| format!("--{setting}")));
    Server::start(command, address, home).await
}
