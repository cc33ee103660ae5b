//! Make: the barista's queue. It alone knows whether a coffee was begun, so it alone decides whether a cancel comes in time.
//!
//! ```text
//! MakeService ──► api ───────┐
//! barista (if asked for) ────┼─► writer ─► store
//! PaymentApproved, ─► events ┘      └─► outbox ──► Coffee…, CancelRefused
//! …CancelRequested
//! ```

mod api;
mod barista;
mod events;
#[allow(
    unreachable_pub,
    reason = "what SeaORM derives from a row is pub, and so is what a row is made of"
)]
mod roll;
mod store;
#[allow(
    unreachable_pub,
    reason = "what SeaORM derives from a row is pub, and so is what a row is made of"
)]
mod ticket;

use api::Api;
use barista::Barista;
use chassis::Host;
use contract::{
    DESCRIPTORS, ERROR_DOMAIN,
    make::v1::make_service_server::{MakeServiceServer, SERVICE_NAME},
};
use journal::{
    Audience, Bus, Database, Outbox, Writer, audience, consumer, database, purge, writer,
};
use mesh::{Deadlines, Listener, Server, Serving};
use ops::{Ops, OpsServiceServer};
use std::{net::SocketAddr, time::Duration};
use store::Migrator;
use ticket::Model as Ticket;

/// The settings of Make.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Make")]
#[group(skip)] // its name would be that of every other `Config`
pub struct Config {
    /// Where Make listens; port 0 takes a free one
    #[arg(
        id = "make_listen",
        long = "make-listen",
        env = "STARCOFFEE_MAKE_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8083"
    )]
    pub listen: SocketAddr,
    /// Where Make's health is told to those who run it
    #[arg(
        id = "make_admin_listen",
        long = "make-admin-listen",
        env = "STARCOFFEE_MAKE_ADMIN_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:9083"
    )]
    pub admin_listen: SocketAddr,
    /// How long events that were published stay in Make's outbox: what can be replayed
    #[arg(
        id = "make_keep_events",
        long = "make-keep-events",
        env = "STARCOFFEE_MAKE_KEEP_EVENTS",
        value_name = "DURATION",
        default_value = "30d",
        value_parser = chassis::args::duration
    )]
    pub keep_events: Duration,
    /// A barista who never sleeps: starts each ticket at once, and is done with it after this time [default: none]
    #[arg(long, env = "STARCOFFEE_AUTO_BARISTA", value_name = "DURATION", value_parser = chassis::args::duration)]
    pub auto_barista: Option<Duration>,
    /// What the API is served over; none: plaintext. The process has one for all it does
    #[arg(skip)]
    pub tls: Option<mesh::tls::Server>,
}

/// Opens Make: listens, brings its database up to date, and queues tickets until the host drains.
///
/// # Errors
/// A port is taken, or the database cannot be used.
pub async fn serve(
    host: &Host,
    bus: &Bus,
    database: &database::Source,
    config: Config,
) -> anyhow::Result<Serving> {
    let Config { listen, admin_listen, keep_events, auto_barista, tls } = config;
    let (api, admin) = (("--make-listen", listen), ("--make-admin-listen", admin_listen));
    let listener = Listener::bind(api, admin).await?.secure(tls);
    let server = Server::new(ERROR_DOMAIN, DESCRIPTORS, SERVICE_NAME, deadlines())?;

    let db = Database::open(database).await?;
    db.migrate::<Migrator>().await?;
    let outbox = Outbox::open(host, &db, bus, "/starcoffee/make");
    let writer: Writer<Ticket> = Writer::open(host, &db, Some(outbox), writer::Config::default());
    let keep = purge::Config::keeping(keep_events);
    purge::open(host, &db, &writer, keep, |pool, orders| Box::pin(store::settled(pool, orders)));
    let routes = events::routes();
    let ops = Ops::open(host, bus, &db, "make", routes.clone(), &writer, Vec::new());
    consumer::open(host, bus, "make", routes, &writer, consumer::Config::default());

    let audience = Audience::open(host, &db, &writer, audience::Config::default());
    let pool = db.pool.clone();
    if let Some(brewing) = auto_barista {
        let (writer, audience, pool) = (writer.clone(), audience.clone(), pool.clone());
        let barista = Barista { writer, audience, pool, brewing };
        host.spawn("the automatic barista", barista.work(host.clone()));
    }
    let api = Api { host: host.clone(), writer, audience, pool };
    let server = server.beside(OpsServiceServer::new(ops), ops::deadlines())?;
    let serving = server.serve(host, listener, MakeServiceServer::new(api))?;
    serving.ready();
    db.watch(host, serving.readiness());
    Ok(serving)
}

/// Reads are short; moves wait for a commit.
fn deadlines() -> Deadlines {
    let seconds = Duration::from_secs;
    Deadlines::new(seconds(2))
        .method("StartTicket", seconds(3), seconds(10))
        .method("CompleteTicket", seconds(3), seconds(10))
        .method("RejectTicket", seconds(3), seconds(10))
}
