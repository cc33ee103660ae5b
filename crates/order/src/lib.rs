//! Order: takes, prices and cancels orders, has them paid, and knows how each stands.
//!
//! ```text
//! OrderService ──► api ──► till ──► Payment
//!                   │       │ ▲
//!                  menu     │ └─ settle
//!                           ▼
//! Payment…, ──► events ─► writer ─► store
//! Coffee…                   └─► outbox ──► Order…
//! ```

mod api;
mod attempts;
mod events;
mod menu;
#[allow(
    unreachable_pub,
    reason = "what SeaORM derives from a row is pub, and so is what a row is made of"
)]
mod order;
mod settle;
mod store;
mod till;

use api::Api;
use attempts::Attempts;
use chassis::Host;
use contract::{
    DESCRIPTORS, ERROR_DOMAIN,
    money::Currency,
    order::v1::order_service_server::{OrderServiceServer, SERVICE_NAME},
    payment::v1::payment_service_client::PaymentServiceClient,
};
use journal::{
    Audience, Bus, Database, Outbox, Writer, audience, consumer, database, purge, writer,
};
use mesh::{Deadlines, Listener, Server, Serving};
use ops::{Ops, OpsServiceServer};
use order::Model as Order;
use settle::Settler;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use store::Migrator;
use till::Till;

/// The settings of Order.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Order")]
#[group(skip)] // its name would be that of every other `Config`
pub struct Config {
    /// Where Order listens; port 0 takes a free one
    #[arg(
        id = "order_listen",
        long = "order-listen",
        env = "STARCOFFEE_ORDER_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8081"
    )]
    pub listen: SocketAddr,
    /// Where Order's health is told to those who run it
    #[arg(
        id = "order_admin_listen",
        long = "order-admin-listen",
        env = "STARCOFFEE_ORDER_ADMIN_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:9081"
    )]
    pub admin_listen: SocketAddr,
    /// How long events that were published stay in Order's outbox: what can be replayed
    #[arg(
        id = "order_keep_events",
        long = "order-keep-events",
        env = "STARCOFFEE_ORDER_KEEP_EVENTS",
        value_name = "DURATION",
        default_value = "30d",
        value_parser = chassis::args::duration
    )]
    pub keep_events: Duration,
    /// The menu, a TOML file that is read again when it changes [default: the one built in]
    #[arg(long, env = "STARCOFFEE_MENU", value_name = "FILE")]
    pub menu: Option<PathBuf>,
    /// How often the menu file is looked at
    #[arg(long, env = "STARCOFFEE_MENU_RELOAD", value_name = "DURATION", default_value = "2s", value_parser = chassis::args::period)]
    pub menu_reload: Duration,
    /// How long Payment may take to answer for one order, all attempts together
    #[arg(long, env = "STARCOFFEE_PAY_WITHIN", value_name = "DURATION", default_value = "3s", value_parser = chassis::args::duration)]
    pub pay_within: Duration,
    /// How long an order may wait for its payment before it is settled: never charged from then on, or paid
    #[arg(long, env = "STARCOFFEE_SETTLE_AFTER", value_name = "DURATION", default_value = "30s", value_parser = chassis::args::duration)]
    pub settle_after: Duration,
    /// What the API is served over; none: plaintext. The process has one for all it does
    #[arg(skip)]
    pub tls: Option<mesh::tls::Server>,
}

/// Opens Order: listens, brings its database up to date, and takes orders until the host drains. `currency` is the shop's,
/// `payment` the way to Payment.
///
/// # Errors
/// A port is taken, the database cannot be used, or there is no valid menu.
pub async fn serve(
    host: &Host,
    bus: &Bus,
    database: &database::Source,
    currency: Currency,
    payment: mesh::Channel,
    config: Config,
) -> anyhow::Result<Serving> {
    let Config {
        listen,
        admin_listen,
        keep_events,
        menu,
        menu_reload,
        pay_within,
        settle_after,
        tls,
    } = config;
    let (api, admin) = (("--order-listen", listen), ("--order-admin-listen", admin_listen));
    let listener = Listener::bind(api, admin).await?.secure(tls);
    let server = Server::new(ERROR_DOMAIN, DESCRIPTORS, SERVICE_NAME, deadlines())?;
    let server = server.first(["CancelOrder"])?; // what is not wanted any more makes room
    let menu = menu::Source { file: menu, every: menu_reload, currency }.open(host).await?;

    let db = Database::open(database).await?;
    db.migrate::<Migrator>().await?;
    let outbox = Outbox::open(host, &db, bus, "/starcoffee/order");
    let writer: Writer<Order> = Writer::open(host, &db, Some(outbox), writer::Config::default());
    let keep = purge::Config::keeping(keep_events);
    purge::open(host, &db, &writer, keep, |pool, orders| Box::pin(store::settled(pool, orders)));
    let ops = Ops::open(host, bus, &db, "order", events::routes(), &writer, vec![payment.clone()]);
    consumer::open(host, bus, "order", events::routes(), &writer, consumer::Config::default());

    let audience = Audience::open(host, &db, &writer, audience::Config::default());
    let till = Arc::new(Till {
        host: host.clone(),
        writer,
        pool: db.pool.clone(),
        payment: PaymentServiceClient::new(payment.clone()),
        way: payment,
        patience: pay_within,
        voids: Attempts::new(),
    });
    let settler = Settler { till: till.clone(), db: db.clone(), after: settle_after };
    host.spawn("the settler", settler.work(host.clone()));
    let api = Api { host: host.clone(), menu, till, audience, wishes: Attempts::new() };
    let server = server.beside(OpsServiceServer::new(ops), ops::deadlines())?;
    let serving = server.serve(host, listener, OrderServiceServer::new(api))?;
    serving.ready();
    db.watch(host, serving.readiness());
    Ok(serving)
}

/// Reads are short; a customer waits for a payment, and no longer than a customer would.
fn deadlines() -> Deadlines {
    let seconds = Duration::from_secs;
    Deadlines::new(seconds(2)).method("PlaceOrder", seconds(5), seconds(10)).method(
        "CancelOrder",
        seconds(3),
        seconds(10),
    )
}
