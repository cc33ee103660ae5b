//! Who keeps an endpoint: makes its connection when it is needed and again when it ends, and asks one that is out whether it is
//! there.

use super::{
    endpoint::Endpoint,
    failure::{BoxError, Unreached},
};
use futures::future::BoxFuture;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rand::Rng as _;
use std::{future::pending, mem, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::body::Body;

/// A peer in the same house answers in a millisecond; one that takes this long is not there.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// How often a silent peer is asked whether it is there, calls or no calls, and how long it may take to say so: a connection
/// that died without a word is found before the next call trusts it.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);
/// How long an endpoint that is out may take to show that it is there.
const PROOF: Duration = Duration::from_secs(1);
/// A connection that ends sooner, and bore no answer, was none: what accepts it is not the service.
const YOUNG: Duration = Duration::from_secs(1);
/// The pauses between tries while an endpoint is out: short at first, for most of them are restarts; doubled up to what people
/// do not wait for.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(3);
/// The pause that no call shortens: when all endpoints are away each call wants a connection, and a host with many callers
/// would do little else than try. Less than a call that waits notices.
const WANTED: Duration = Duration::from_millis(30);
/// What was well for so long begins anew with the shortest pause.
const CALM: Duration = Duration::from_secs(10);

type Connection = BoxFuture<'static, hyper::Result<()>>;

/// Keeps an endpoint until it is gone.
#[allow(
    clippy::disallowed_methods,
    reason = "a connection ends with its channel: calls that a drain waits for still need it, so the drain cannot wait for it"
)]
pub(super) fn start(endpoint: Arc<Endpoint>) {
    tokio::spawn(async move {
        let gone = endpoint.gone.clone();
        tokio::select! {
            () = gone.cancelled() => endpoint.left(),
            // what was sent by its connection is answered nonetheless: hyper sees to that
            () = keep(&endpoint) => {}
        }
    });
}

async fn keep(endpoint: &Endpoint) {
    let mut pauses = Pauses::default();
    loop {
        endpoint.connecting();
        let connected = timeout(CONNECT, connect(endpoint)).await;
        let connected = connected.unwrap_or_else(|_elapsed| Err("nobody is there in 1 s".into()));
        let why = match connected {
            Ok((line, connection)) => {
                let begun = Instant::now();
                endpoint.connected(line.clone());
                let ended = live(endpoint, line, connection, &mut pauses).await;
                match ended {
                    // a server that restarts, or wants its clients to connect anew: at once, for calls go on
                    _ if endpoint.has_answered() => continue,
                    Err(error) if begun.elapsed() < YOUNG => Unreached::of(&error),
                    _ if begun.elapsed() < YOUNG => Unreached::told("it closes its connections"),
                    _ => {
                        endpoint.idle();
                        endpoint.wanted().await;
                        continue;
                    }
                }
            }
            Err(error) => Unreached::of(&*error),
        };
        endpoint.unconnected(why);
        let pause = pauses.next();
        wait(WANTED).await;
        // or as soon as a call has nowhere else to go
        let _wanted = timeout(pause.saturating_sub(WANTED), endpoint.wanted()).await;
    }
}

async fn connect(endpoint: &Endpoint) -> Result<(SendRequest<Body>, Connection), BoxError> {
    let stream = TcpStream::connect(endpoint.address).await?;
    // messages are small: waiting for more to send with them costs up to 40 ms
    stream.set_nodelay(true)?;
    match &endpoint.origin.tls {
        None => speak(TokioIo::new(stream)).await,
        Some(tls) => speak(TokioIo::new(tls.secure(stream).await?)).await,
    }
}

async fn speak<S>(stream: S) -> Result<(SendRequest<Body>, Connection), BoxError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    builder.keep_alive_interval(PING).keep_alive_timeout(PONG).keep_alive_while_idle(true);
    let (line, connection) = builder.handshake(stream).await?;
    Ok((line, Box::pin(connection)))
}

/// Drives a connection until it takes no more calls. As long as the endpoint is out, it must show that it is there: to accept
/// a connection proves nothing, for the system does that for a process that stands still.
async fn live(
    endpoint: &Endpoint,
    line: SendRequest<Body>,
    connection: Connection,
    pauses: &mut Pauses,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    // who is out, and could be connected to again, is asked at once
    let mut at_once = !endpoint.is_in();
    loop {
        let proof = async {
            endpoint.is_out().await;
            if !mem::take(&mut at_once) {
                wait(pauses.next()).await;
            }
            let answer = line.clone().send_request(endpoint.origin.check());
            timeout(PROOF, answer).await.is_ok_and(|answer| answer.is_ok())
        };
        tokio::select! {
            ended = &mut connection => return ended,
            proved = proof => if proved {
                endpoint.proved();
            }
        }
    }
}

/// Lets time pass: a connection says by itself when it ends, and calls say when they need one.
async fn wait(pause: Duration) {
    let _over = timeout(pause, pending::<()>()).await;
}

/// Exponential back-off with jitter, so that those who lost the same peer do not come back together.
#[derive(Default)]
struct Pauses {
    failures: u32,
    last: Option<Instant>,
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let now = Instant::now();
        let calm = |last: Instant| now.duration_since(last) > CALM;
        if self.last.replace(now).is_none_or(calm) {
            self.failures = 0;
        }
        let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        longest.min(LAST_PAUSE).mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}
