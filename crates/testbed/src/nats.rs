//! A real nats-server with JetStream.

use crate::{
    ports,
    server::{Home, Server, program},
};
use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

/// A nats-server of one test: it can be killed, stopped, frozen and started again on what it stored.
#[derive(Debug)]
pub struct Nats {
    server: Server,
    address: SocketAddr,
}

const CURE: &str = "run scripts/tools, or put nats-server 2.12 or newer on the PATH";

impl Nats {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// It is not installed, or does not come up: what it said.
    pub async fn start() -> anyhow::Result<Self> {
        Self::configured("").await
    }

    /// Starts one with more lines in its configuration file; those of `jetstream` are merged with ours, as
    /// `jetstream { sync_interval: always }`.
    ///
    /// # Errors
    /// It is not installed, or does not come up: what it said.
    pub async fn configured(more: &str) -> anyhow::Result<Self> {
        let binary = program("nats-server", CURE)?;
        let home = Home::new("nats")?;
        let [address] = ports::free();
        let (file, store) = (home.path().join("nats.conf"), home.path().join("store"));
        let jetstream = more.trim().strip_prefix("jetstream {");
        let (inside, outside) = match jetstream.and_then(|rest| rest.split_once('}')) {
            Some((inside, outside)) => (inside.trim(), outside.trim()),
            None => ("", more),
        };
        let store = store.display();
        let listen = format!("listen: \"{address}\"");
        let text = format!(
            "{listen}\njetstream {{\n  store_dir: \"{store}\"\n  {inside}\n}}\n{outside}\n"
        );
        fs::write(&file, text)?;
        let command = vec![binary, "--config".to_owned(), file.display().to_string()];
        Ok(Self { server: Server::start(command, address, home).await?, address })
    }

    /// Starts one that keeps nothing: core NATS alone.
    ///
    /// # Errors
    /// It is not installed, or does not come up: what it said.
    pub async fn without_jetstream() -> anyhow::Result<Self> {
        let (binary, home) = (program("nats-server", CURE)?, Home::new("nats")?);
        let [address] = ports::free();
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let command = [&*binary, "--addr", &*host, "--port", &*port];
        let command = command.map(str::to_owned).to_vec();
        Ok(Self { server: Server::start(command, address, home).await?, address })
    }

    /// Where it is: `nats://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.server.end("KILL").await
    }

    /// Has it stop in order, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.server.end("TERM").await
    }

    /// Starts it again on what it stored.
    ///
    /// # Errors
    /// It runs already, or does not come up: what it said.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.server.again().await
    }

    /// Freezes it: its connections stay, and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.server.signal("STOP")
    }

    /// Ends [`Nats::freeze`].
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.server.signal("CONT")
    }

    /// Copies all that it stored; it must be stopped.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn save(&self) -> anyhow::Result<()> {
        self.copy("store", "saved")
    }

    /// Puts back what [`Nats::save`] copied, as a restored backup does; it must be stopped.
    ///
    /// # Errors
    /// Nothing was saved, or it cannot be copied.
    pub fn restore(&self) -> anyhow::Result<()> {
        self.copy("saved", "store")
    }

    /// As [`Nats::restore`], but consumers stay as far as they had read: as when a machine loses what it had not yet written of
    /// one file, and not of the other.
    ///
    /// # Errors
    /// Nothing was saved, or it cannot be copied.
    pub fn restore_only_messages(&self, stream: &str) -> anyhow::Result<()> {
        let messages = format!("jetstream/$G/streams/{stream}/msgs");
        self.copy(&format!("saved/{messages}"), &format!("store/{messages}"))
    }

    fn copy(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let place = |name| -> PathBuf { self.server.home().join(name) };
        if place(to).exists() {
            fs::remove_dir_all(place(to))?;
        }
        let copied = Command::new("cp").arg("-a").args([place(from), place(to)]).status()?;
        anyhow::ensure!(copied.success(), "{} cannot be copied", place(from).display());
        self.server.give_away()
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
