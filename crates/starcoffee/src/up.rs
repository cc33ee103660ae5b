//! `starcoffee up`: all services in one process, on SQLite and the embedded bus.

use crate::{data_dir::DataDir, process, ready_file::ReadyFile, welcome::Welcome};
use chassis::{Host, Signals};
use journal::Bus;
use serde::Serialize;
use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

/// Run the whole shop in one process
///
/// All services, on SQLite and an event bus within the process. Data survives a restart, and a kill at any instant.
/// Every port can be 0, which takes a free one; --ready-file tells which.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Where the data is kept, one database file for each service [default: starcoffee in this user's data directory]
    #[arg(long, env = "STARCOFFEE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Written, as JSON, with the services' addresses when all of them serve; removed when they stop
    #[arg(long, env = "STARCOFFEE_READY_FILE", value_name = "FILE", help_heading = "Process")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    order: order::Config,
    #[command(flatten)]
    payment: payment::Config,
    #[command(flatten)]
    make: make::Config,
    #[command(flatten)]
    mypage: mypage::Config,
    #[command(flatten)]
    calls: process::Calls,
    #[command(flatten)]
    till: process::Till,
    #[command(flatten)]
    process: process::Config,
}

/// Where the services of an open shop are.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Addresses {
    pub(crate) order: SocketAddr,
    pub(crate) order_admin: SocketAddr,
    pub(crate) payment: SocketAddr,
    pub(crate) payment_admin: SocketAddr,
    pub(crate) make: SocketAddr,
    pub(crate) make_admin: SocketAddr,
    pub(crate) mypage: SocketAddr,
    pub(crate) mypage_admin: SocketAddr,
}

impl Args {
    /// Runs the shop until it is told to stop.
    ///
    /// # Errors
    /// It cannot open, or had to close: which setting to change, or what failed.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let process = self.process.clone();
        process.run(Box::pin(self.keep()))
    }

    async fn keep(self) -> anyhow::Result<()> {
        self.admit()?;
        let data = DataDir::take(self.data_dir.clone())?;
        let ready_file = ReadyFile::take(self.ready_file.clone())?;
        let host = Host::new();
        let drain = self.process.drain.clone();
        let auto_barista = self.make.auto_barista.is_some();
        let mut signals = Signals::new()?;
        let open = Box::pin(self.open(&host, &data));
        let opened = process::unless_stopped(&mut signals, open).await;
        let Some(addresses) = opened.map_err(|error| data.blamed(error))? else {
            return Ok(());
        };

        process::keep(&host, signals, &drain, ready_file, &addresses, || {
            let version = env!("CARGO_PKG_VERSION");
            tracing::info!(version, data = %data.path().display(), "the shop is open");
            let welcome = Welcome { data: data.path(), addresses: &addresses, auto_barista };
            // a shop does not close because nobody listens
            let _heard_or_not =
                write!(io::stdout(), "{welcome}").and_then(|()| io::stdout().flush());
        })
        .await
    }

    /// All that is to listen may do so.
    fn admit(&self) -> anyhow::Result<()> {
        let Self { order, payment, make, mypage, .. } = self;
        for (flag, address) in [
            ("--order-listen", order.listen),
            ("--order-admin-listen", order.admin_listen),
            ("--payment-listen", payment.listen),
            ("--payment-admin-listen", payment.admin_listen),
            ("--make-listen", make.listen),
            ("--make-admin-listen", make.admin_listen),
            ("--mypage-listen", mypage.listen),
            ("--mypage-admin-listen", mypage.admin_listen),
        ] {
            self.process.guard.admit(flag, address)?;
        }
        Ok(())
    }

    /// Puts the shop together; when this returns, all services serve.
    async fn open(self, host: &Host, data: &DataDir) -> anyhow::Result<Addresses> {
        let currency = self.till.currency;
        let bus = Bus::embedded();
        let (database, ledger) = (data.database("payment"), data.database("provider"));
        // orders under way are paid before Payment goes
        let behind = host.behind();
        let payment =
            payment::serve(&behind, &bus, &database, &ledger, currency, self.payment).await?;
        let make = make::serve(host, &bus, &data.database("make"), self.make).await?;
        let mypage = mypage::serve(host, &bus, &data.database("mypage"), self.mypage).await?;
        let url = format!("http://{}", reachable(payment.address));
        let way = self.calls.payment(host, url, "--payment-listen", None)?;
        let database = data.database("order");
        let order = order::serve(host, &bus, &database, currency, way, self.order).await?;
        // only now does everybody hear what anybody says
        bus.open();
        Ok(Addresses {
            order: reachable(order.address),
            order_admin: reachable(order.admin_address),
            payment: reachable(payment.address),
            payment_admin: reachable(payment.admin_address),
            make: reachable(make.address),
            make_admin: reachable(make.admin_address),
            mypage: reachable(mypage.address),
            mypage_admin: reachable(mypage.admin_address),
        })
    }
}

/// Where this machine finds what listens at `address`: one can listen everywhere, but not call everywhere.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_called_on_this_machine() {
        for (listens, called) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("192.168.1.7:8081", "192.168.1.7:8081"),
        ] {
            let listens: SocketAddr = listens.parse().expect("an address");
            assert_eq!(reachable(listens).to_string(), called);
        }
    }
}
