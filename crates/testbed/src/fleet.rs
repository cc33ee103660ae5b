//! A shop of separate processes: a nats-server, databases, and replicas of each service. Each of them can be killed,
//! stopped and started again by itself, and is found at the same address.

use crate::{
    DatabaseServer, Engine, Nats, Process, Proxy,
    certificates::Authority,
    doors::door,
    ports,
    shop::{forget_ready, ready_file},
    view::{View, logs},
};
use anyhow::{Context as _, ensure};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
};
use tempfile::TempDir;

/// A service of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Takes orders.
    Order,
    /// Charges.
    Payment,
    /// Makes coffee.
    Make,
    /// Shows it all.
    MyPage,
}

impl Service {
    /// In the order in which a person would start them; any order will do.
    pub const ALL: [Self; 4] = [Self::Order, Self::Payment, Self::Make, Self::MyPage];

    /// As the command line calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Make => "make",
            Self::MyPage => "mypage",
        }
    }
}

/// What a fleet is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Processes of each service.
    pub replicas: usize,
    /// Where all data is, but for Make's.
    pub engine: Engine,
    /// Where Make's data is.
    pub make: Engine,
    /// More arguments for a service.
    pub arguments: &'a [(Service, &'a [&'a str])],
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self { replicas: 1, engine: Engine::Postgres, make: Engine::Postgres, arguments: &[] }
    }
}

/// A shop of separate processes.
#[derive(Debug)]
pub struct Fleet {
    /// Its bus.
    pub nats: Nats,
    binary: PathBuf,
    members: Vec<Member>,
    servers: Vec<(Engine, DatabaseServer)>,
    scheme: &'static str,
    /// Last, so that it is dropped when nobody writes there any more.
    directory: TempDir,
}

/// One process of one service.
#[derive(Debug)]
struct Member {
    service: Service,
    replica: usize,
    address: SocketAddr,
    arguments: Vec<String>,
    files: Files,
    /// None while it is down.
    process: Option<Process>,
}

#[derive(Debug)]
struct Files {
    ready: PathBuf,
    log: PathBuf,
}

impl Fleet {
    /// Starts the servers and then all processes, and waits until all of them serve.
    ///
    /// # Errors
    /// Something does not come up; the error holds what it said.
    pub async fn open(binary: impl Into<PathBuf>, plan: &Plan<'_>) -> anyhow::Result<Self> {
        let mut fleet = Self::prepare(binary, plan).await?;
        fleet.start_all()?;
        fleet.all_ready().await?;
        Ok(fleet)
    }

    /// Starts the servers, and none of the processes.
    ///
    /// # Errors
    /// A server does not come up; the error holds what it said.
    pub async fn prepare(binary: impl Into<PathBuf>, plan: &Plan<'_>) -> anyhow::Result<Self> {
        let mut fleet = Self {
            nats: Nats::start().await?,
            binary: binary.into(),
            members: Vec::new(),
            servers: Vec::new(),
            scheme: "http",
            directory: tempfile::tempdir()?,
        };
        let mut urls = Vec::new();
        for name in ["order", "payment", "make", "mypage", "provider"] {
            let engine = if name == "make" { plan.make } else { plan.engine };
            urls.push(fleet.database_for(engine, name).await?);
        }
        let payments: Vec<SocketAddr> =
            (0..plan.replicas).flat_map(|_| ports::free::<1>()).collect();
        for (service, database) in Service::ALL.into_iter().zip(&urls) {
            for (replica, payment) in payments.iter().enumerate() {
                let own: Vec<String> = match service {
                    // its own first, and any other when that is away
                    Service::Order => {
                        let (before, from) = payments.split_at(replica);
                        let urls = from.iter().chain(before).map(|it| format!("http://{it}"));
                        vec!["--payment-url".into(), urls.collect::<Vec<_>>().join(",")]
                    }
                    Service::Payment => vec!["--ledger-url".into(), urls[4].clone()],
                    Service::Make | Service::MyPage => Vec::new(),
                };
                let more = plan.arguments.iter().filter(|(whose, _)| *whose == service);
                let more = more.flat_map(|(_, more)| more.iter().map(|&more| more.to_owned()));
                let address = if service == Service::Payment {
                    *payment
                } else {
                    let [address] = ports::free();
                    address
                };
                let own = own.into_iter().chain(more).collect();
                let member = fleet.member((service, replica), address, database, own);
                fleet.members.push(member);
            }
        }
        Ok(fleet)
    }

    fn member(
        &self,
        (service, replica): (Service, usize),
        address: SocketAddr,
        database: &str,
        own: Vec<String>,
    ) -> Member {
        let name = service.name();
        let file = |extension| self.directory.path().join(format!("{name}-{replica}.{extension}"));
        let files = Files { ready: file("json"), log: file("log") };
        let ready = files.ready.to_string_lossy().into_owned();
        let [admin] = ports::free();
        let mut arguments = vec!["serve".to_owned(), name.to_owned()];
        for (flag, value) in [
            (format!("--{name}-listen"), address.to_string()),
            (format!("--{name}-admin-listen"), admin.to_string()),
            ("--database-url".to_owned(), database.to_owned()),
            ("--bus-url".to_owned(), self.nats.url()),
            ("--ready-file".to_owned(), ready),
        ] {
            arguments.extend([flag, value]);
        }
        arguments.extend(own);
        Member { service, replica, address, arguments, files, process: None }
    }

    /// Has all that are started from now on speak TLS, each with a certificate of its own. A [`View`] does not.
    ///
    /// # Errors
    /// A certificate cannot be written.
    pub fn secure(&mut self, authority: &Authority) -> anyhow::Result<()> {
        self.scheme = "https";
        authority.write(self.directory.path(), &Service::ALL.map(Service::name))?;
        for at in 0..self.members.len() {
            let credentials = self.credentials(self.members[at].service.name());
            let arguments = &mut self.members[at].arguments;
            for argument in arguments.iter_mut() {
                *argument = argument.replace("http://", "https://");
            }
            arguments.extend(credentials);
        }
        Ok(())
    }

    /// Puts a proxy before a process: all that are started from now on call it there.
    ///
    /// # Errors
    /// The proxy cannot listen.
    pub async fn proxy(&mut self, service: Service, replica: usize) -> anyhow::Result<Proxy> {
        let address = self.of(service, replica).address;
        let proxy = Proxy::start(address).await?;
        let (direct, by_proxy) = (format!("http://{address}"), proxy.url());
        for argument in self.members.iter_mut().flat_map(|member| &mut member.arguments) {
            *argument = argument.replace(&direct, &by_proxy);
        }
        Ok(proxy)
    }

    /// The arguments by which somebody shows who they are, with what was written for that name into [`Self::directory`].
    #[must_use]
    pub fn credentials(&self, name: &str) -> [String; 6] {
        let file = |name: &str| self.directory.path().join(name).to_string_lossy().into_owned();
        let (cert, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
        let [ca, shows, with] = ["--tls-ca", "--tls-cert", "--tls-key"].map(str::to_owned);
        [ca, file("ca.pem"), shows, cert, with, key]
    }

    /// The URL of a new database; its server is started if it does not run yet.
    async fn database_for(&mut self, engine: Engine, name: &str) -> anyhow::Result<String> {
        if engine == Engine::Sqlite {
            let path = self.directory.path().join(format!("{name}.db"));
            return Ok(format!("sqlite:{}?mode=rwc", path.display()));
        }
        if !self.servers.iter().any(|(running, _)| *running == engine) {
            // the power does not fail here, only processes do: what they wrote is in the system's hands
            let settings: &[&str] = match engine {
                Engine::MariaDb => &["innodb-flush-log-at-trx-commit=0"],
                _ => &["fsync=off", "max_connections=200"],
            };
            self.servers.push((engine, DatabaseServer::start(engine, settings).await?));
        }
        let server = self.servers.iter().find(|(running, _)| *running == engine);
        server.context("it was just started")?.1.create(&format!("starcoffee_{name}"))
    }

    /// The database server of an engine.
    ///
    /// # Panics
    /// The fleet has none.
    pub fn database(&mut self, engine: Engine) -> &mut DatabaseServer {
        let server = self.servers.iter_mut().find(|(running, _)| *running == engine);
        &mut server.expect("the plan has this engine").1
    }

    /// Starts a process, and does not wait.
    ///
    /// # Errors
    /// It cannot be started, or runs already.
    pub fn start(&mut self, service: Service, replica: usize) -> anyhow::Result<()> {
        let binary = self.binary.clone();
        let member = self.of(service, replica);
        let name = member.service.name();
        ensure!(member.process.is_none(), "{name} {} runs already", member.replica);
        let Files { ready, log } = &member.files;
        forget_ready(ready)?;
        member.process = Some(Process::spawn(&binary, &member.arguments, log, log)?);
        Ok(())
    }

    /// Starts all that are down, and does not wait.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        let down = self.members.iter().filter(|member| member.process.is_none());
        let down: Vec<_> = down.map(|member| (member.service, member.replica)).collect();
        down.into_iter().try_for_each(|(service, replica)| self.start(service, replica))
    }

    /// Waits until a process serves.
    ///
    /// # Errors
    /// It does not come up; the error holds what it said.
    pub async fn ready(&mut self, service: Service, replica: usize) -> anyhow::Result<()> {
        let member = self.of(service, replica);
        let process = member.process.as_mut().context("it is down")?;
        ready_file(process, &member.files.ready).await?;
        Ok(())
    }

    /// Waits until all processes serve.
    ///
    /// # Errors
    /// One does not come up; the error holds what it said.
    pub async fn all_ready(&mut self) -> anyhow::Result<()> {
        let all = self.members.iter().map(|member| (member.service, member.replica));
        for (service, replica) in all.collect::<Vec<_>>() {
            self.ready(service, replica).await?;
        }
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It is down.
    pub async fn kill(&mut self, service: Service, replica: usize) -> anyhow::Result<()> {
        let process = self.of(service, replica).process.take();
        process.context("it is down")?.kill().await
    }

    /// A process that runs, to freeze and to thaw it.
    ///
    /// # Errors
    /// It is down.
    pub fn process(&mut self, service: Service, replica: usize) -> anyhow::Result<&Process> {
        self.of(service, replica).process.as_ref().context("it is down")
    }

    /// SIGTERM, and waits for the exit status.
    ///
    /// # Errors
    /// It is down, or not gone in time.
    pub async fn stop(&mut self, service: Service, replica: usize) -> anyhow::Result<ExitStatus> {
        let process = self.of(service, replica).process.take();
        process.context("it is down")?.terminate().await
    }

    /// The exit status of a process that is gone by itself.
    ///
    /// # Errors
    /// The system refuses to tell.
    pub fn gone(&mut self, service: Service, replica: usize) -> anyhow::Result<Option<ExitStatus>> {
        match &mut self.of(service, replica).process {
            Some(process) => process.gone(),
            None => Ok(None),
        }
    }

    /// The fleet by its replicas with this number.
    ///
    /// # Errors
    /// None: an address is one.
    pub fn view(&self, replica: usize) -> anyhow::Result<View> {
        let mut channels = Vec::new();
        for member in self.members.iter().filter(|member| member.replica == replica) {
            channels.push(door(member.address)?);
        }
        let channels = channels.try_into().ok().context("there is no such replica")?;
        let logs = self.members.iter().map(|member| member.files.log.clone()).collect();
        Ok(View { channels, logs })
    }

    /// The arguments that lead a client command to this shop: all replicas of each service.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let urls = |service| {
            let of = self.members.iter().filter(move |member| member.service == service);
            of.map(|member| format!("{}://{}", self.scheme, member.address))
                .collect::<Vec<_>>()
                .join(",")
        };
        Service::ALL
            .into_iter()
            .flat_map(|service| [format!("--{}-url", service.name()), urls(service)])
            .collect()
    }

    /// What its processes have said so far.
    #[must_use]
    pub fn log(&self) -> String {
        logs(self.members.iter().map(|member| &member.files.log))
    }

    /// What one process has said so far, over all its lives.
    #[must_use]
    pub fn log_of(&self, service: Service, replica: usize) -> String {
        let of = |member: &&Member| (member.service, member.replica) == (service, replica);
        logs(self.members.iter().filter(of).map(|member| &member.files.log))
    }

    /// A directory that lives as long as the fleet, for what a test wants to write.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn of(&mut self, service: Service, replica: usize) -> &mut Member {
        let of = |member: &&mut Member| (member.service, member.replica) == (service, replica);
        self.members.iter_mut().find(of).expect("the plan has this replica")
    }
}
