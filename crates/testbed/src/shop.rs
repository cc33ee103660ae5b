//! One shop: its directory, its process, its clients.

use crate::{Doors, doors::door, ports, until};
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::transport::Channel;

/// A debug build on a busy machine, its migrations included.
const START_WITHIN: Duration = Duration::from_secs(30);
/// The drain's hard deadline is 10 s; what comes after it is this machine being slow.
const STOP_WITHIN: Duration = Duration::from_secs(12);
const LISTENERS: [&str; 8] = [
    "--order-listen",
    "--payment-listen",
    "--make-listen",
    "--mypage-listen",
    "--order-admin-listen",
    "--payment-admin-listen",
    "--make-admin-listen",
    "--mypage-admin-listen",
];

/// Where the services of a running shop listen: its ready file.
#[derive(Clone, Debug, Deserialize)]
pub struct Addresses {
    /// `OrderService`.
    pub order: SocketAddr,
    /// `PaymentService`.
    pub payment: SocketAddr,
    /// `MakeService`.
    pub make: SocketAddr,
    /// `MyPageService`.
    pub mypage: SocketAddr,
    /// Order's admin port.
    pub order_admin: SocketAddr,
}

/// A process of the binary, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `binary` with `arguments`; what it says on stdout is appended to the file `out`, on stderr to `log`.
    ///
    /// # Errors
    /// It cannot be started, or a file cannot be written.
    pub fn spawn(
        binary: &Path,
        arguments: &[String],
        out: &Path,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let append = |path| File::options().create(true).append(true).open(path);
        let child = Command::new(binary)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(append(out)?)
            .stderr(append(log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and waits for the exit status.
    ///
    /// # Errors
    /// It is gone already, or not gone after 12 s.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM").await?;
        self.wait(STOP_WITHIN).await
    }

    /// SIGINT, as Ctrl-C sends it.
    ///
    /// # Errors
    /// It is gone already.
    pub async fn interrupt(&self) -> anyhow::Result<()> {
        self.signal("INT").await
    }

    /// SIGSTOP: it stands still, and its connections stay.
    ///
    /// # Errors
    /// It is gone already.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        self.signal("STOP").await
    }

    /// Ends [`Process::freeze`].
    ///
    /// # Errors
    /// It is gone already.
    pub async fn thaw(&self) -> anyhow::Result<()> {
        self.signal("CONT").await
    }

    async fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.child.id().context("the process is gone already")?.to_string();
        // the standard library only kills, and this workspace has no unsafe code
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().await?;
        anyhow::ensure!(sent.success(), "kill -{name} {pid} failed");
        Ok(())
    }

    /// Waits for the exit status.
    ///
    /// # Errors
    /// It still runs after `within`.
    pub async fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_elapsed) => bail!("it still runs after {within:?}:\n{}", self.log()),
        }
    }

    /// The exit status, if it is gone.
    ///
    /// # Errors
    /// The system refuses to tell.
    pub fn gone(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A whole shop: `starcoffee up` in a directory of its own.
#[derive(Debug)]
pub struct Shop {
    binary: PathBuf,
    listen: [SocketAddr; 8],
    process: Process,
    /// After the process, so that it is dropped when nobody writes there any more.
    directory: TempDir,
    addresses: Addresses,
    channels: [Channel; 4],
}

impl Shop {
    /// Opens a new shop on free ports, and waits until all its services are serving. `arguments` follow `up`.
    ///
    /// # Errors
    /// It does not come up; the error holds what it said.
    pub async fn open(binary: impl Into<PathBuf>, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::open_at(binary.into(), arguments, [SocketAddr::from(([127, 0, 0, 1], 0)); 8]).await
    }

    /// As [`Shop::open`], and after a restart it is found at the same addresses.
    ///
    /// # Errors
    /// It does not come up; the error holds what it said.
    pub async fn open_to_return(
        binary: impl Into<PathBuf>,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        Self::open_at(binary.into(), arguments, ports::free()).await
    }

    async fn open_at(
        binary: PathBuf,
        arguments: &[&str],
        listen: [SocketAddr; 8],
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut process = start(&binary, directory.path(), &listen, arguments)?;
        let addresses = ready(&mut process, directory.path()).await?;
        let channels = channels(&addresses)?;
        Ok(Self { binary, directory, listen, process, addresses, channels })
    }

    /// Starts it again on the same data, after [`Process::kill`] or [`Process::terminate`], and waits until it is serving.
    ///
    /// # Errors
    /// It does not come up; the error holds what it said.
    pub async fn reopen(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        self.restart(arguments)?;
        self.ready().await
    }

    /// Starts it again, and does not wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        let directory = self.directory.path();
        forget_ready(&directory.join("ready.json"))?;
        self.process = start(&self.binary, directory, &self.listen, arguments)?;
        Ok(())
    }

    /// Waits until all its services are serving.
    ///
    /// # Errors
    /// It does not come up; the error holds what it said.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        self.addresses = ready(&mut self.process, self.directory.path()).await?;
        self.channels = channels(&self.addresses)?;
        Ok(())
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where its services listen.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where its databases are.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        data(self.directory.path())
    }

    /// A directory that lives as long as the shop, for what a test wants to write.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The arguments that lead a client command to this shop.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let Addresses { order, payment, make, mypage, .. } = &self.addresses;
        [("order", order), ("payment", payment), ("make", make), ("mypage", mypage)]
            .iter()
            .flat_map(|(name, address)| [format!("--{name}-url"), format!("http://{address}")])
            .collect()
    }
}

impl Doors for Shop {
    fn channels(&self) -> &[Channel; 4] {
        &self.channels
    }

    fn log(&self) -> String {
        self.process.log()
    }
}

/// Runs `binary` to its end and gives what it said.
///
/// # Errors
/// It cannot be started, or still runs after `within`.
pub async fn run(binary: &Path, arguments: &[&str], within: Duration) -> anyhow::Result<Output> {
    let output =
        Command::new(binary).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(within, output).await {
        Ok(output) => output.with_context(|| format!("cannot start {}", binary.display())),
        Err(_elapsed) => bail!("{} {arguments:?} still runs after {within:?}", binary.display()),
    }
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn start(
    binary: &Path,
    directory: &Path,
    listen: &[SocketAddr; 8],
    arguments: &[&str],
) -> anyhow::Result<Process> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut all = vec!["up".to_owned(), "--data-dir".to_owned(), text(data(directory))];
    all.extend(["--ready-file".to_owned(), text(directory.join("ready.json"))]);
    for (flag, address) in LISTENERS.iter().zip(listen) {
        all.extend([(*flag).to_owned(), address.to_string()]);
    }
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let log = directory.join("up.log");
    Process::spawn(binary, &all, &log, &log)
}

async fn ready(process: &mut Process, directory: &Path) -> anyhow::Result<Addresses> {
    let text = ready_file(process, &directory.join("ready.json")).await?;
    serde_json::from_str(&text).with_context(|| format!("the ready file is malformed: {text}"))
}

/// Removes the file that a process wrote in its last life.
pub(crate) fn forget_ready(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Waits until a process says that it serves.
pub(crate) async fn ready_file(process: &mut Process, file: &Path) -> anyhow::Result<String> {
    let read = || fs::read_to_string(file).ok().filter(|text| !text.is_empty());
    until("a ready file", START_WITHIN, || {
        // gone before it was ready: no use in waiting on
        let found = match process.gone() {
            Ok(None) => read().map(Ok),
            Ok(Some(status)) => Some(Err(anyhow::anyhow!("it ended with {status}"))),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(found)
    })
    .await
    .flatten()
    .with_context(|| format!("it does not come up; it said:\n{}", process.log()))
}

fn channels(addresses: &Addresses) -> anyhow::Result<[Channel; 4]> {
    let Addresses { order, payment, make, mypage, .. } = *addresses;
    Ok([door(order)?, door(payment)?, door(make)?, door(mypage)?])
}
