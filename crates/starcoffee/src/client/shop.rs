//! Where the shop's services are, and the way to each.

use super::failure::Failure;
use crate::{load::Urls, tls};
use mesh::Channel;
use std::time::Duration;
use tonic::{Request, Status};

/// How long an answer may take: as long as the shop lets its slowest call take, `PlaceOrder`.
pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// Where the services are, and how their answers are shown.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Shop {
    /// How answers are shown
    #[arg(
        short = 'o',
        long = "output",
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(super) format: Format,
    /// Where Order is; of several replicas, all, with commas between them, as below
    #[arg(long, global = true, env = "STARCOFFEE_ORDER_URL", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:8081", help_heading = "Where the shop is")]
    order_url: String,
    /// Where Payment is
    #[arg(long, global = true, env = "STARCOFFEE_PAYMENT_URL", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:8082", help_heading = "Where the shop is")]
    payment_url: String,
    /// Where Make is
    #[arg(long, global = true, env = "STARCOFFEE_MAKE_URL", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:8083", help_heading = "Where the shop is")]
    make_url: String,
    /// Where MyPage is
    #[arg(long, global = true, env = "STARCOFFEE_MYPAGE_URL", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:8084", help_heading = "Where the shop is")]
    mypage_url: String,
    #[command(flatten)]
    pub(super) tls: tls::Args,
}

/// How answers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For scripts: proto3 JSON, the messages of the protos; where there is no end to wait for, one object a line
    Json,
}

/// A service as a client finds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<'a> {
    /// For people.
    pub(super) name: &'static str,
    pub(super) url: &'a str,
    /// What sets the URL.
    pub(super) flag: &'static str,
    /// The flag, and the variable that does the same.
    pub(super) set_by: &'static str,
    /// How it is called where the URL is an https one.
    pub(super) tls: &'a tls::Args,
}

impl Shop {
    pub(super) fn order(&self) -> Peer<'_> {
        let (flag, set_by) = ("--order-url", "--order-url, STARCOFFEE_ORDER_URL");
        Peer { name: "Order", url: &self.order_url, flag, set_by, tls: &self.tls }
    }

    pub(super) fn payment(&self) -> Peer<'_> {
        let (flag, set_by) = ("--payment-url", "--payment-url, STARCOFFEE_PAYMENT_URL");
        Peer { name: "Payment", url: &self.payment_url, flag, set_by, tls: &self.tls }
    }

    pub(super) fn make(&self) -> Peer<'_> {
        let (flag, set_by) = ("--make-url", "--make-url, STARCOFFEE_MAKE_URL");
        Peer { name: "Make", url: &self.make_url, flag, set_by, tls: &self.tls }
    }

    pub(super) fn mypage(&self) -> Peer<'_> {
        let (flag, set_by) = ("--mypage-url", "--mypage-url, STARCOFFEE_MYPAGE_URL");
        Peer { name: "MyPage", url: &self.mypage_url, flag, set_by, tls: &self.tls }
    }

    /// All of them.
    pub(super) fn urls(&self) -> Result<Urls, Failure> {
        let all = [&self.order_url, &self.payment_url, &self.make_url, &self.mypage_url];
        let tls = all.into_iter().find_map(|urls| self.tls.client(urls).transpose()).transpose();
        Ok(Urls {
            order: self.order_url.clone(),
            payment: self.payment_url.clone(),
            make: self.make_url.clone(),
            mypage: self.mypage_url.clone(),
            tls: tls.map_err(|error| Failure::malformed(error.as_ref()))?,
        })
    }
}

impl Peer<'_> {
    /// The way to it; a malformed URL is a malformed command line.
    pub(super) fn channel(self) -> Result<Channel, Failure> {
        let tls = self.tls.client(self.url);
        tls.and_then(|tls| mesh::client::connect_secure(self.url, self.flag, tls.as_ref()))
            // what may be sent twice is tried again: a service that restarts costs its callers nothing
            .and_then(|channel| channel.knowing(contract::DESCRIPTORS))
            .map_err(|error| Failure::malformed(error.as_ref()))
    }

    /// What to tell when it answers with an error, or not at all.
    pub(super) fn failure(self, status: &Status) -> Failure {
        Failure::of(status, self)
    }
}

/// A request that is worth an answer for so long. Streams are asked for without: they have no end to be late for.
pub(super) fn ask<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(WITHIN);
    request
}
