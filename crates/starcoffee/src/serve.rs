//! `starcoffee serve`: one service in a process of its own. Its events travel by NATS, its data is in a database of its own,
//! and any number of processes may serve the same: whoever comes first decides, the rest is told.

use crate::{process, ready_file::ReadyFile, tls, up::reachable};
use anyhow::bail;
use chassis::{Host, Signals};
use journal::{
    Bus, bus,
    database::{self, Source},
};
use mesh::{
    Serving,
    tls::{Client, Server},
};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

/// Run one service by itself
///
/// Needs a NATS server and a database. Services may be started in any order, and several of each.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Service {
    /// Order alone
    Order {
        #[command(flatten)]
        config: Box<order::Config>,
        /// Where Payment is; of several replicas, all, with commas between them
        #[arg(long, env = "STARCOFFEE_PAYMENT_URL", value_name = "URL")]
        #[arg(default_value = "http://127.0.0.1:8082", help_heading = "Where the shop is")]
        payment_url: String,
        #[command(flatten)]
        calls: process::Calls,
        #[command(flatten)]
        till: process::Till,
        #[command(flatten)]
        common: Box<Common>,
    },
    /// Payment alone
    Payment {
        #[command(flatten)]
        config: Box<payment::Config>,
        /// The payment provider's own database; one for all that serve Payment. The provider is simulated
        #[arg(long, env = "STARCOFFEE_LEDGER_URL", value_name = "URL", hide_env_values = true)]
        #[arg(help_heading = "Database")]
        ledger_url: String,
        #[command(flatten)]
        till: process::Till,
        #[command(flatten)]
        common: Box<Common>,
    },
    /// Make alone
    Make {
        #[command(flatten)]
        config: Box<make::Config>,
        #[command(flatten)]
        common: Box<Common>,
    },
    /// MyPage alone
    Mypage {
        #[command(flatten)]
        config: Box<mypage::Config>,
        #[command(flatten)]
        common: Box<Common>,
    },
}

/// What every service is given.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Common {
    /// The service's own database, one for all that serve the same: a URL that begins with postgres:, mysql: or sqlite:
    #[arg(long, env = "STARCOFFEE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    #[arg(help_heading = "Database")]
    database_url: String,
    /// Written, as JSON, with the service's addresses when it serves; removed when it stops
    #[arg(long, env = "STARCOFFEE_READY_FILE", value_name = "FILE", help_heading = "Process")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    database: database::Config,
    #[command(flatten)]
    bus: bus::Config,
    #[command(flatten)]
    tls: tls::Serving,
    #[command(flatten)]
    process: process::Config,
}

impl Service {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// It cannot serve, or had to stop: which setting to change, or what failed.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let process = self.common().process.clone();
        process.run(Box::pin(self.keep()))
    }

    async fn keep(self) -> anyhow::Result<()> {
        let Common { ready_file, bus, tls, process, .. } = self.common();
        if bus.url.is_embedded() {
            bail!(
                "one service alone needs --bus-url nats://HOST:PORT: on the bus embedded in a process its events would \
                 never reach the others; `starcoffee up` runs all of them in one process"
            );
        }
        let [api, admin] = self.listens();
        // where callers have to say who they are, strangers learn no more than whether this is well
        if !tls.knows_callers() {
            process.guard.admit(api.0, api.1)?;
            process.guard.admit(admin.0, admin.1)?;
        }
        let ready_file = ReadyFile::take(ready_file.clone())?;
        let (host, drain, name) = (Host::new(), process.drain.clone(), self.name());
        let stream = bus::Stream {
            name: "STARCOFFEE".to_owned(),
            subjects: vec!["starcoffee.>".to_owned()],
        };
        let mut signals = Signals::new()?;
        // before anything is waited for: what is wrong with a file is said at once
        let tls = tls.open(&host)?;
        let (client, bus) = (format!("starcoffee-{name}"), bus.clone());
        let open = Box::pin(async {
            let bus = Bus::connect(&host, &bus, stream, &client).await?;
            anyhow::Ok((self.open(&host, &bus, tls).await?, bus))
        });
        let Some((serving, bus)) = process::unless_stopped(&mut signals, open).await? else {
            return Ok(());
        };
        bus.open();
        let (api, admin) = (reachable(serving.address), reachable(serving.admin_address));
        let addresses = BTreeMap::from([(name.to_owned(), api), (format!("{name}_admin"), admin)]);
        process::keep(&host, signals, &drain, ready_file, &addresses, || {
            let version = env!("CARGO_PKG_VERSION");
            tracing::info!(version, address = %api, admin = %admin, "{name} is open");
        })
        .await
    }

    /// Puts the service together; when this returns, it serves.
    async fn open(
        self,
        host: &Host,
        bus: &Bus,
        (server, client): (Option<Server>, Option<Client>),
    ) -> anyhow::Result<Serving> {
        let database = self.common().database();
        match self {
            Self::Order { mut config, payment_url, calls, till, .. } => {
                config.tls = server;
                let way = calls.payment(host, payment_url, "--payment-url", client)?;
                order::serve(host, bus, &database, till.currency, way, *config).await
            }
            Self::Payment { mut config, ledger_url, till, .. } => {
                config.tls = server;
                let ledger = Source { url: ledger_url, flag: "--ledger-url", ..database.clone() };
                payment::serve(host, bus, &database, &ledger, till.currency, *config).await
            }
            Self::Make { mut config, .. } => {
                config.tls = server;
                make::serve(host, bus, &database, *config).await
            }
            Self::Mypage { mut config, .. } => {
                config.tls = server;
                mypage::serve(host, bus, &database, *config).await
            }
        }
    }

    fn common(&self) -> &Common {
        let (Self::Order { common, .. }
        | Self::Payment { common, .. }
        | Self::Make { common, .. }
        | Self::Mypage { common, .. }) = self;
        common
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Order { .. } => "order",
            Self::Payment { .. } => "payment",
            Self::Make { .. } => "make",
            Self::Mypage { .. } => "mypage",
        }
    }

    fn listens(&self) -> [(&'static str, SocketAddr); 2] {
        match self {
            Self::Order { config, .. } => {
                [("--order-listen", config.listen), ("--order-admin-listen", config.admin_listen)]
            }
            Self::Payment { config, .. } => [
                ("--payment-listen", config.listen),
                ("--payment-admin-listen", config.admin_listen),
            ],
            Self::Make { config, .. } => {
                [("--make-listen", config.listen), ("--make-admin-listen", config.admin_listen)]
            }
            Self::Mypage { config, .. } => {
                [("--mypage-listen", config.listen), ("--mypage-admin-listen", config.admin_listen)]
            }
        }
    }
}

impl Common {
    fn database(&self) -> Source {
        let (url, config) = (self.database_url.clone(), self.database.clone());
        Source { url, flag: "--database-url", config }
    }
}
