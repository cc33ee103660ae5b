//! The limits of a machine, to be put beside the shop's figures: what bare JetStream and bare tonic do on it, without a line of ours.
//!
//! ```sh
//! limits publish nats://127.0.0.1:4222    # events a second, 600 bytes each, 256 under way, each with a message id
//! limits call 128                         # unary calls a second over loopback, so many at a time, server and client in one process
//! ```

use anyhow::Context as _;
use async_nats::{HeaderMap, jetstream};
use futures::{StreamExt as _, stream};
use std::time::Duration;
use tokio::time::Instant;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const EVENTS: u32 = 200_000;
const EVENT_BYTES: usize = 600;
const UNDER_WAY: usize = 256;
const CALLS_FOR: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["publish", url] => publish(url).await,
        ["call", callers] => call(callers.parse().context("how many callers?")?).await,
        _ => anyhow::bail!("limits publish NATS_URL | limits call CALLERS"),
    }
}

/// Pipelined publishes into a stream of its own, which it deletes again.
async fn publish(url: &str) -> anyhow::Result<()> {
    let context = jetstream::new(async_nats::connect(url).await?);
    let config = jetstream::stream::Config {
        name: "LIMITS".to_owned(),
        subjects: vec!["limits".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await?;
    let begin = Instant::now();
    let publish = |n: u32| {
        let context = context.clone();
        async move {
            let mut headers = HeaderMap::new();
            headers.insert(async_nats::header::NATS_MESSAGE_ID, n.to_string());
            let payload = vec![0; EVENT_BYTES].into();
            let ack = context.publish_with_headers("limits", headers, payload).await?;
            anyhow::Ok(ack.await?)
        }
    };
    let mut acks = stream::iter(0..EVENTS).map(publish).buffer_unordered(UNDER_WAY);
    while let Some(ack) = acks.next().await {
        ack?;
    }
    println!("{:.0} events/s", f64::from(EVENTS) / begin.elapsed().as_secs_f64());
    context.delete_stream("LIMITS").await?;
    Ok(())
}

/// The health check of tonic-health, by callers who share four connections.
async fn call(callers: u32) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let server =
        tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming);
    let calls = async {
        let mut clients = Vec::new();
        for _ in 0..4 {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?;
            clients.push(HealthClient::new(endpoint.connect().await?));
        }
        let begin = Instant::now();
        let caller = |mut client: HealthClient<tonic::transport::Channel>| async move {
            let mut calls = 0_u32;
            while begin.elapsed() < CALLS_FOR {
                client.check(HealthCheckRequest::default()).await?;
                calls += 1;
            }
            anyhow::Ok(calls)
        };
        let callers = (0..callers).zip(clients.iter().cycle()).map(|(_, one)| caller(one.clone()));
        let calls: u32 = futures::future::try_join_all(callers).await?.into_iter().sum();
        println!("{:.0} calls/s", f64::from(calls) / begin.elapsed().as_secs_f64());
        anyhow::Ok(())
    };
    tokio::select! {
        ended = server => Ok(ended?),
        done = calls => done,
    }
}
