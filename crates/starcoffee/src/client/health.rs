//! `starcoffee health`.

use super::{
    failure::{Failure, name},
    shop::{Format, Peer, Shop, ask},
    table::{self, Cell, Column, Row, state},
};
use clap::ValueEnum;
use futures::future::join_all;
use mesh::client::not_sent;
use serde::Serialize;
use std::io::Write as _;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Whom to ask.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Whom to ask [default: all]
    service: Option<Service>,
    /// Ask what is there instead: an admin port, for example
    #[arg(long, value_name = "URL", conflicts_with = "service")]
    url: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Service {
    Order,
    Payment,
    Make,
    Mypage,
}

/// How a service is.
#[derive(Debug, Serialize)]
struct Health<'a> {
    service: &'static str,
    url: &'a str,
    /// As gRPC spells it, or UNREACHABLE, or the code of the error that came back.
    status: String,
}

impl Args {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let peers = match (self.service, &self.url) {
            (_, Some(url)) => {
                vec![Peer { name: "it", url, flag: "--url", set_by: "--url", tls: &shop.tls }]
            }
            (Some(Service::Order), _) => vec![shop.order()],
            (Some(Service::Payment), _) => vec![shop.payment()],
            (Some(Service::Make), _) => vec![shop.make()],
            (Some(Service::Mypage), _) => vec![shop.mypage()],
            (None, None) => vec![shop.order(), shop.payment(), shop.make(), shop.mypage()],
        };
        let all = join_all(peers.into_iter().map(check)).await;
        let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut out = anstream::stdout();
        match shop.format {
            Format::Table => table::rows(&mut out, &all)?,
            Format::Json => {
                let json = serde_json::json!({ "services": all });
                writeln!(out, "{json:#}")?;
            }
        }
        out.flush()?;
        let ill = all.iter().filter(|health| health.status != "SERVING");
        let ill: Vec<_> =
            ill.map(|health| format!("{} at {}", health.service, health.url)).collect();
        match ill.as_slice() {
            [] => Ok(()),
            ill => Err(Failure::not_now(format!("not serving: {}", ill.join(", ")))),
        }
    }
}

async fn check(peer: Peer<'_>) -> Result<Health<'_>, Failure> {
    let mut client = HealthClient::new(peer.channel()?);
    // the empty name asks for the whole server
    let answer = client.check(ask(HealthCheckRequest { service: String::new() })).await;
    let status = match answer {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => "SERVING".to_owned(),
            ServingStatus::NotServing => "NOT_SERVING".to_owned(),
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => "UNKNOWN".to_owned(),
        },
        Err(status) if not_sent(&status) => "UNREACHABLE".to_owned(),
        Err(status) => name(status.code()),
    };
    Ok(Health { service: peer.name, url: peer.url, status })
}

impl Row for Health<'_> {
    const COLUMNS: &'static [Column] = &[("SERVICE", 0), ("STATUS", 0), ("URL", 0)];

    fn cells(&self) -> Vec<Cell> {
        vec![self.service.into(), state(&self.status), self.url.into()]
    }
}
