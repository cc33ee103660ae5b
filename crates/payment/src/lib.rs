//! Payment: charges each order at most once, and gives back what must be given back.
//!
//! ```text
//! PaymentService ──► api ──► charge ──► provider (its own ledger)
//!                     │         │          ▲
//! Coffee… ──► events ─┴─► writer ─► store ─┴─ undo
//!                           └─► outbox ──► Payment…
//! ```

mod api;
mod charge;
mod events;
#[allow(
    unreachable_pub,
    reason = "what SeaORM derives from a row is pub, and so is what a row is made of"
)]
mod payment;
pub mod provider;
mod store;
mod undo;

use api::Api;
use charge::Cashier;
use chassis::Host;
use contract::{
    DESCRIPTORS, ERROR_DOMAIN,
    money::Currency,
    payment::v1::payment_service_server::{PaymentServiceServer, SERVICE_NAME},
};
use journal::{Bus, Database, Outbox, Reader, Writer, consumer, database, purge, writer};
use mesh::{Deadlines, Listener, Server, Serving};
use ops::{Ops, OpsServiceServer};
use payment::Model as Payment;
use provider::Provider;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use store::Migrator;
use undo::Undoer;

/// The settings of Payment.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Payment")]
#[group(skip)] // its name would be that of every other `Config`
pub struct Config {
    /// Where Payment listens; port 0 takes a free one
    #[arg(
        id = "payment_listen",
        long = "payment-listen",
        env = "STARCOFFEE_PAYMENT_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8082"
    )]
    pub listen: SocketAddr,
    /// Where Payment's health is told to those who run it
    #[arg(
        id = "payment_admin_listen",
        long = "payment-admin-listen",
        env = "STARCOFFEE_PAYMENT_ADMIN_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:9082"
    )]
    pub admin_listen: SocketAddr,
    /// How long events that were published stay in Payment's outbox: what can be replayed
    #[arg(
        id = "payment_keep_events",
        long = "payment-keep-events",
        env = "STARCOFFEE_PAYMENT_KEEP_EVENTS",
        value_name = "DURATION",
        default_value = "30d",
        value_parser = chassis::args::duration
    )]
    pub keep_events: Duration,
    /// How long the payment provider may take to answer a charge
    #[arg(long, env = "STARCOFFEE_CHARGE_WITHIN", value_name = "DURATION", default_value = "2400ms", value_parser = chassis::args::duration)]
    pub charge_within: Duration,
    /// How the payment provider behaves
    #[command(flatten)]
    pub provider: provider::Config,
    /// What the API is served over; none: plaintext. The process has one for all it does
    #[arg(skip)]
    pub tls: Option<mesh::tls::Server>,
}

/// Opens Payment: listens, brings its database up to date, and charges until the host drains. `ledger` is the database of
/// the provider, which is a simulator; `currency` is the shop's.
///
/// # Errors
/// A port is taken, or a database cannot be used.
pub async fn serve(
    host: &Host,
    bus: &Bus,
    database: &database::Source,
    ledger: &database::Source,
    currency: Currency,
    config: Config,
) -> anyhow::Result<Serving> {
    let Config { listen, admin_listen, keep_events, charge_within, provider, tls } = config;
    let (api, admin) = (("--payment-listen", listen), ("--payment-admin-listen", admin_listen));
    let listener = Listener::bind(api, admin).await?.secure(tls);
    let server = Server::new(ERROR_DOMAIN, DESCRIPTORS, SERVICE_NAME, deadlines())?;
    let provider = Provider::connect(host, ledger, provider).await?;

    let db = Database::open(database).await?;
    db.migrate::<Migrator>().await?;
    let outbox = Outbox::open(host, &db, bus, "/starcoffee/payment");
    let writer: Writer<Payment> = Writer::open(host, &db, Some(outbox), writer::Config::default());
    let routes = events::routes(currency);
    let keep = purge::Config::keeping(keep_events);
    purge::open(host, &db, &writer, keep, |pool, orders| Box::pin(store::settled(pool, orders)));
    let ops = Ops::open(host, bus, &db, "payment", routes.clone(), &writer, Vec::new());
    consumer::open(host, bus, "payment", routes, &writer, consumer::Config::default());

    let reader = Reader::open(host, &db);
    let pool = db.pool.clone();
    let undoer = Undoer { writer: writer.clone(), pool: pool.clone(), provider: provider.clone() };
    host.spawn("the undoer", undoer.work(host.clone()));
    let cashier = Arc::new(Cashier { writer, reader, provider, patience: charge_within });
    let api = Api { host: host.clone(), pool, cashier, currency };
    // money moves at one service's word
    let server = server.only("Pay", &["order"])?.only("VoidPayment", &["order"])?;
    let server = server.first(["VoidPayment", "CancelPayment"])?; // what is given up makes room
    let server = server.beside(OpsServiceServer::new(ops), ops::deadlines())?;
    let serving = server.serve(host, listener, PaymentServiceServer::new(api))?;
    serving.ready();
    db.watch(host, serving.readiness());
    Ok(serving)
}

/// Reads are short; a charge takes as long as its provider.
fn deadlines() -> Deadlines {
    let seconds = Duration::from_secs;
    Deadlines::new(seconds(2))
        .method("Pay", seconds(3), seconds(10))
        .method("VoidPayment", seconds(3), seconds(10))
        .method("CancelPayment", seconds(3), seconds(10))
}
