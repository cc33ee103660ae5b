//! MyPage: what the customer sees, merged from all that the other services tell. It decides nothing and publishes nothing.
//!
//! ```text
//! MyPageService ──► api ◄─────────────┐
//! all events ──► events ──► writer ─► store
//! RebuildService ─► rebuild ──┴─────► next
//! ```

mod api;
mod events;
mod history;
#[allow(
    unreachable_pub,
    reason = "what SeaORM derives from a row is pub, and so is what a row is made of"
)]
mod my_order;
mod next;
mod rebuild;
mod store;

use api::Api;
use chassis::Host;
use contract::{
    DESCRIPTORS, ERROR_DOMAIN,
    mypage::v1::my_page_service_server::{MyPageServiceServer, SERVICE_NAME},
    ops::v1::rebuild_service_server::RebuildServiceServer,
};
use journal::{Audience, Bus, Database, Writer, audience, consumer, database, writer};
use mesh::{Deadlines, Listener, Server, Serving};
use my_order::Model as MyOrder;
use ops::{Ops, OpsServiceServer};
use rebuild::Rebuild;
use std::{net::SocketAddr, time::Duration};
use store::Migrator;

/// The settings of `MyPage`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "MyPage")]
#[group(skip)] // its name would be that of every other `Config`
pub struct Config {
    /// Where MyPage listens; port 0 takes a free one
    #[arg(
        id = "mypage_listen",
        long = "mypage-listen",
        env = "STARCOFFEE_MYPAGE_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8084"
    )]
    pub listen: SocketAddr,
    /// Where MyPage's health is told to those who run it
    #[arg(
        id = "mypage_admin_listen",
        long = "mypage-admin-listen",
        env = "STARCOFFEE_MYPAGE_ADMIN_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:9084"
    )]
    pub admin_listen: SocketAddr,
    /// What the API is served over; none: plaintext. The process has one for all it does
    #[arg(skip)]
    pub tls: Option<mesh::tls::Server>,
}

/// Opens `MyPage`: listens, brings its database up to date, and merges what it hears until the host drains.
///
/// # Errors
/// A port is taken, or the database cannot be used.
pub async fn serve(
    host: &Host,
    bus: &Bus,
    database: &database::Source,
    config: Config,
) -> anyhow::Result<Serving> {
    let Config { listen, admin_listen, tls } = config;
    let (api, admin) = (("--mypage-listen", listen), ("--mypage-admin-listen", admin_listen));
    let listener = Listener::bind(api, admin).await?.secure(tls);
    // reads are short
    let deadlines = Deadlines::new(Duration::from_secs(2));
    let server = Server::new(ERROR_DOMAIN, DESCRIPTORS, SERVICE_NAME, deadlines)?;

    let db = Database::open(database).await?;
    db.migrate::<Migrator>().await?;
    let writer: Writer<MyOrder> = Writer::open(host, &db, None, writer::Config::default());
    let ops = Ops::open(host, bus, &db, "mypage", events::routes(), &writer, Vec::new());
    consumer::open(host, bus, "mypage", events::routes(), &writer, consumer::Config::default());

    next::mend(&writer).await?;
    let rebuild = Rebuild { writer: writer.clone(), pool: db.pool.clone() };
    let rebuild = RebuildServiceServer::new(rebuild);
    let audience = Audience::open(host, &db, &writer, audience::Config::default());
    let api = Api { host: host.clone(), audience, pool: db.pool.clone() };
    let server = server.beside(OpsServiceServer::new(ops), ops::deadlines())?;
    let server = server.beside(rebuild, rebuild::deadlines())?;
    let serving = server.serve(host, listener, MyPageServiceServer::new(api))?;
    serving.ready();
    db.watch(host, serving.readiness());
    Ok(serving)
}
