//! A greeter that falls ill and gets well, and a client that lives with it: `cargo run -p mesh --example greeter`.
//!
//! It prints what each of the client's calls came to. Watch for three things: calls that a proxy's error would have failed are
//! tried again; a greeter that fails for good is left alone, and callers are told so at once; and when it is well, it is found
//! out, one call at a time. The breaker's own words are in the log.

use chassis::{DrainConfig, Host};
use futures::future::BoxFuture;
use http::{Request, Response};
use mesh::{
    Channel, Deadlines, Listener, Policies, Problem, Server, Upstream,
    client::{Stage, not_sent},
};
use prost::Message as _;
use std::{
    convert::Infallible,
    future::ready,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, interval};
use tonic::{Code, Status, body::Body, client::Grpc, server::NamedService};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

const NAME: &str = "example.v1.Greeter";
const PROTO: &str = r#"
    syntax = "proto3";
    package example.v1;
    service Greeter {
      // Who is greeted twice is none the worse for it, so the client may try again.
      rpc Greet(Person) returns (Greeting) { option idempotency_level = IDEMPOTENT; }
    }
    message Person { string name = 1; }
    message Greeting { string text = 1; }
"#;

// what a build script would have generated
#[derive(Clone, PartialEq, prost::Message)]
struct Person {
    #[prost(string, tag = "1")]
    name: String,
}
#[derive(Clone, PartialEq, prost::Message)]
struct Greeting {
    #[prost(string, tag = "1")]
    text: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_target(false).without_time().init();
    let host = Host::new();
    let directory = tempfile::tempdir()?;
    let descriptors: &'static [u8] = descriptors(directory.path())?.leak();

    let any = "127.0.0.1:0".parse()?;
    let listener = Listener::bind(("--listen", any), ("--admin-listen", any)).await?;
    let server =
        Server::new("example.org", descriptors, NAME, Deadlines::new(Duration::from_secs(5)))?;
    let serving = server.serve(&host, listener, Greeter::default())?;
    serving.ready();

    // a shorter breaker than the built-in one: an example should not take long
    let file = directory.path().join("policies.toml");
    std::fs::write(&file, "[greeter]\nattempt_timeout = '500ms'\nbreaker.open_for = '500ms'\n")?;
    let upstream = Upstream {
        name: "greeter",
        urls: format!("http://{}", serving.address),
        flag: "--greeter-url",
        service: NAME,
        descriptors,
        policies: Policies::open(&host, Some(&file), "--policies")?,
    };
    let channel = Channel::open(&host, upstream)?;
    host.spawn("the client", greet(host.clone(), channel));
    host.run(&DrainConfig { delay: Duration::ZERO, timeout: Duration::from_secs(5) }).await
}

/// A greeting every 50 ms, until the greeter has fallen ill and is well again.
async fn greet(host: Host, channel: Channel) -> anyhow::Result<()> {
    let mut every = interval(Duration::from_millis(50));
    let mut opened = false;
    for number in 1.. {
        every.tick().await;
        let begun = Instant::now();
        let told = match call(&channel).await {
            Ok(greeting) => greeting.text,
            Err(status) if not_sent(&status) => format!("not sent: {}", status.message()),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        println!("{number:3}  {:6.1?}  {told}", begun.elapsed());
        let stage = channel.snapshot().breaker.stage;
        opened |= stage == Stage::Open;
        if (opened && stage == Stage::Closed) || host.draining().is_cancelled() {
            break;
        }
    }
    let counts = channel.snapshot().counts;
    println!(
        "{} calls, {} attempts of which {} were retries, {} refused by the breaker, which opened {} time(s)",
        counts.calls, counts.attempts, counts.retries, counts.refused, counts.opened
    );
    host.stop("the example is over");
    host.draining().cancelled().await;
    Ok(())
}

async fn call(channel: &Channel) -> Result<Greeting, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let person = tonic::Request::new(Person { name: "Ada".to_owned() });
    let path = http::uri::PathAndQuery::from_static("/example.v1.Greeter/Greet");
    let codec = ProstCodec::<Person, Greeting>::default();
    grpc.unary(person, path, codec).await.map(tonic::Response::into_inner)
}

/// Fails every fifth time as a proxy does, and then for a while for good.
#[derive(Clone, Default)]
struct Greeter {
    asked: Arc<AtomicUsize>,
}

impl Greeter {
    fn greet(&self, person: tonic::Request<Person>) -> Result<tonic::Response<Greeting>, Status> {
        match self.asked.fetch_add(1, Relaxed) {
            30..50 => Err(Problem::new("example.org", Code::Internal, "ILL", "I am ill").into()),
            number if number % 5 == 4 => Err(Status::unavailable("a proxy finds nobody")),
            _ => {
                let text = format!("Hello, {}!", person.into_inner().name);
                Ok(tonic::Response::new(Greeting { text }))
            }
        }
    }
}

impl NamedService for Greeter {
    const NAME: &'static str = NAME;
}

impl Service<Request<Body>> for Greeter {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let greeter = self.clone();
        Box::pin(async move {
            let greet = service_fn(move |person| ready(greeter.greet(person)));
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Greeting, Person>::default());
            Ok(grpc.unary(greet, request).await)
        })
    }
}

/// The proto as an encoded `FileDescriptorSet`, which a build script would have written.
fn descriptors(directory: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::write(directory.join("example.proto"), PROTO)?;
    Ok(protox::compile(["example.proto"], [directory])?.encode_to_vec())
}
