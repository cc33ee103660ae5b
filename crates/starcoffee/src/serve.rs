//! `starcoffee serve`: one service in a process of its own. Its settings are those of `up`; what it lacks in this version is
//! a bus that reaches other processes, and without one its events would reach nobody.

use crate::process;
use anyhow::anyhow;

/// Run one service by itself (not yet: this version has no bus between processes, use `up`)
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Service {
    /// Order alone
    Order {
        #[command(flatten)]
        config: Box<order::Config>,
        /// Where Payment is
        #[arg(long, env = "STARCOFFEE_PAYMENT_URL", value_name = "URL")]
        #[arg(default_value = "http://127.0.0.1:8082")]
        payment_url: String,
        #[command(flatten)]
        common: Box<Common>,
    },
    /// Payment alone
    Payment {
        #[command(flatten)]
        config: Box<payment::Config>,
        /// The simulated payment provider's own database: sqlite:PATH?mode=rwc
        #[arg(long, env = "STARCOFFEE_LEDGER_URL", value_name = "URL")]
        ledger_url: Option<String>,
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
    /// The service's own database: sqlite:PATH?mode=rwc
    #[arg(long, env = "STARCOFFEE_DATABASE_URL", value_name = "URL")]
    database_url: Option<String>,
    /// How events travel: embedded: (within one process) or nats://HOST:PORT
    #[arg(long, env = "STARCOFFEE_BUS_URL", value_name = "URL", default_value = "embedded:")]
    bus_url: String,
    #[command(flatten)]
    process: process::Config,
}

impl Service {
    /// Why it cannot be run by itself.
    pub(crate) fn refusal(&self) -> anyhow::Error {
        let (Self::Order { common, .. }
        | Self::Payment { common, .. }
        | Self::Make { common, .. }
        | Self::Mypage { common, .. }) = self;
        match common.bus_url.as_str() {
            "embedded:" => anyhow!(
                "one service alone needs --bus-url nats://HOST:PORT: on the bus embedded in a process its events would \
                 never reach the others; `starcoffee up` runs all of them in one process"
            ),
            url if url.starts_with("nats://") => anyhow!(
                "this version cannot use {url} (--bus-url): it has no NATS adapter yet; \
                 `starcoffee up` runs all services in one process"
            ),
            url => anyhow!("{url:?} is no bus (--bus-url): embedded: or nats://HOST:PORT"),
        }
    }
}
