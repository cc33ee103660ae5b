//! A server of others for tests, in a process and a directory of its own. It ends with the test's process, however that ends:
//! a shell waits at the other end of a pipe, and cleans up when the pipe breaks.

use crate::until;
use anyhow::{Context as _, ensure};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::net::TcpStream;

/// A server that recovers from a crash on a busy machine.
pub(crate) const START_WITHIN: Duration = Duration::from_secs(60);
/// A signal that ends a process, and the process's end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// A server: what to run, where it listens, and the process while it runs.
#[derive(Debug)]
pub(crate) struct Server {
    command: Vec<String>,
    address: SocketAddr,
    home: Home,
    running: Option<Running>,
}

/// A directory that goes with the test's process.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    _guard: Child,
}

#[derive(Debug)]
struct Running {
    pid: u32,
    _guard: Child,
}

impl Home {
    /// A new directory, of the user that servers run as.
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let prefix = format!("starcoffee-{name}-");
        let path = tempfile::Builder::new().prefix(&prefix).tempdir()?.keep();
        let clean = "cat >/dev/null; until rm -rf -- \"$0\" 2>/dev/null; do :; done";
        let guard = Command::new("sh")
            .args(["-c", clean])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start sh")?;
        let home = Self { path, _guard: guard };
        if !unprivileged().is_empty() {
            home.give_away()?;
        }
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All in it belongs to the user that servers run as.
    fn give_away(&self) -> anyhow::Result<()> {
        let given = Command::new("chown").args(["-R", "nobody:"]).arg(&self.path).status()?;
        ensure!(given.success(), "cannot give {} to nobody", self.path.display());
        Ok(())
    }
}

impl Server {
    /// Starts `command` and waits until something listens at `address`.
    pub(crate) async fn start(
        command: Vec<String>,
        address: SocketAddr,
        home: Home,
    ) -> anyhow::Result<Self> {
        let mut server = Self { command, address, home, running: None };
        server.again().await?;
        Ok(server)
    }

    /// Starts it again on what it left.
    pub(crate) async fn again(&mut self) -> anyhow::Result<()> {
        ensure!(self.running.is_none(), "it runs already");
        self.running = Some(self.spawn()?);
        let address = self.address;
        let listens = until("a server that listens", START_WITHIN, || {
            // what a crashed one left may be in its way for a moment
            if self.running.as_ref().is_some_and(|running| !lives(running.pid)) {
                self.running = self.spawn().ok();
            }
            async move { TcpStream::connect(address).await.ok().map(drop) }
        });
        let listens = listens.await;
        listens.with_context(|| format!("{} said:\n{}", self.command[0], self.log()))
    }

    fn spawn(&self) -> anyhow::Result<Running> {
        let log = self.home.path.join("log");
        let run = "log=$0; \"$@\" </dev/null >>\"$log\" 2>&1 & echo $! >\"$log.pid\"; echo; cat >/dev/null; kill -QUIT $! 2>/dev/null; kill -CONT $! 2>/dev/null";
        let mut guard = Command::new("sh")
            .args(["-c", run])
            .arg(&log)
            .args(unprivileged())
            .args(&self.command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start sh")?;
        let mut line = [0; 1];
        let told = guard.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(told, &mut line).context("the server's shell ended")?;
        let pid = fs::read_to_string(log.with_extension("pid"))?.trim().parse()?;
        Ok(Running { pid, _guard: guard })
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.running.as_ref().context("it does not run")?.pid.to_string();
        signal(name, &pid)
    }

    /// Sends a signal to the processes that it started.
    pub(crate) fn signal_children(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.running.as_ref().context("it does not run")?.pid.to_string();
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &pid]).output()?;
        for child in String::from_utf8_lossy(&children.stdout).split_whitespace() {
            signal(name, child)?;
        }
        Ok(())
    }

    /// Sends a signal that ends it, and waits until it is gone.
    pub(crate) async fn end(&mut self, signal: &str) -> anyhow::Result<()> {
        self.signal(signal)?;
        let running = self.running.take().context("it does not run")?;
        until("a server's end", END_WITHIN, async || (!lives(running.pid)).then_some(())).await
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn give_away(&self) -> anyhow::Result<()> {
        if unprivileged().is_empty() { Ok(()) } else { self.home.give_away() }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path.join("log")).unwrap_or_default()
    }
}

/// Sends a signal, by its name.
pub(crate) fn signal(name: &str, pid: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill").args([&format!("-{name}"), pid]).status()?;
    ensure!(sent.success(), "kill -{name} {pid} failed");
    Ok(())
}

/// Whether a process runs: one that ended, and that nobody has asked about yet, does not.
fn lives(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output();
    state.is_ok_and(|state| state.stdout.first().is_some_and(|state| *state != b'Z'))
}

/// What comes before a command that must not run as root, as database servers refuse to.
pub(crate) fn unprivileged() -> Vec<&'static str> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if root {
        vec!["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    } else {
        Vec::new()
    }
}

/// Runs a command that prepares a server, as the user that the server runs as.
pub(crate) fn prepare(command: &[String]) -> anyhow::Result<()> {
    let mut words = unprivileged().into_iter().map(str::to_owned).chain(command.iter().cloned());
    let program = words.next().context("no command")?;
    let output = Command::new(&program).args(words).stdin(Stdio::null()).current_dir("/").output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {said}", command[0]);
    Ok(())
}

/// A program on the PATH, in `.cache/tools`, or where Debian keeps it.
///
/// # Errors
/// It is in none of them: what to install.
pub(crate) fn program(name: &str, cure: &str) -> anyhow::Result<String> {
    #[allow(clippy::disallowed_methods, reason = "where this machine keeps its programs")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/tools/bin"));
    places.push("/usr/sbin".into());
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(debian.map(|version| version.path().join("bin")));
    let found = places.into_iter().map(|place| place.join(name)).find(|file| file.is_file());
    let found = found.with_context(|| format!("{name} is not installed: {cure}"))?;
    Ok(found.to_string_lossy().into_owned())
}
