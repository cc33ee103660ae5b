//! The client's side of a call: a channel that keeps the deadlines of its calls, and that knows when nothing can have been
//! sent.

use crate::{
    deadline::{self, RESOLUTION},
    tls,
};
use anyhow::{Context as _, bail, ensure};
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use std::{
    error::Error,
    future::poll_fn,
    iter::successors,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::timeout;
use tonic::{
    Code, ConnectError, Status, TimeoutExpired,
    body::Body,
    transport::{self, Endpoint},
};
use tower::Service;

/// A peer in the same house answers in a millisecond; one that takes this long is not there.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a silent peer is asked whether it is there, calls or no calls, and how long it may take to say so: a connection
/// that died without a word is found before the next call trusts it.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);

/// A connection to a service, made when it is needed and made again when it broke. A clone is the same connection.
///
/// Of several replicas it holds on to one, and goes to the next when that cannot be connected to; calls are not spread.
///
/// It ends a call when the time is over that the request gives (`grpc-timeout`), with `DEADLINE_EXCEEDED`. That bounds the
/// time until the answer's headers come, for a channel cannot tell a unary answer from a stream, which lives as long as it
/// likes. Our servers answer all at once; whoever must not wait for the rest of an answer bounds the whole call as well.
#[derive(Clone, Debug)]
pub struct Channel {
    replicas: Arc<[transport::Channel]>,
    /// Of the replica that is held on to.
    held: Arc<AtomicUsize>,
}

/// A channel to the service at a URL, `http://HOST:PORT`, or at several with commas between them; nothing is connected yet.
/// The flag is the one that sets the URL. The connection lives on the runtime that this is called on.
///
/// # Errors
/// It is no such URL; the error names the flag.
pub fn connect(urls: &str, flag: &'static str) -> anyhow::Result<Channel> {
    connect_secure(urls, flag, None)
}

/// As [`connect`], and `https://HOST:PORT` is called over TLS.
///
/// # Errors
/// It is no such URL, or an `https` one without `tls`; the error names the flag.
pub fn connect_secure(
    urls: &str,
    flag: &'static str,
    tls: Option<&tls::Client>,
) -> anyhow::Result<Channel> {
    let replicas =
        urls.split(',').map(|url| endpoint(url, flag, tls)).collect::<anyhow::Result<_>>()?;
    Ok(Channel { replicas, held: Arc::default() })
}

fn endpoint(
    url: &str,
    flag: &'static str,
    tls: Option<&tls::Client>,
) -> anyhow::Result<transport::Channel> {
    let endpoint = || {
        let uri: Uri = url.parse()?;
        let secure = uri.scheme_str() == Some("https");
        let plain = (secure || uri.scheme_str() == Some("http"))
            && uri.path() == "/"
            && uri.query().is_none();
        // a port that is none is no part of these, nor is a user
        let host = uri.host().unwrap_or_default().to_owned();
        let whole = uri.port().map_or(host.clone(), |port| format!("{host}:{port}"));
        let authority = uri.authority().is_some_and(|authority| authority.as_str() == whole);
        ensure!(plain && authority, "it is http://HOST:PORT or https://HOST:PORT");
        let connector = match tls {
            Some(tls) if secure => Some(tls.connector(&host)?),
            None if secure => bail!("https:// needs an authority to believe (--tls-ca)"),
            _ => None,
        };
        Ok((Endpoint::from(uri), connector))
    };
    let (endpoint, connector) =
        endpoint().with_context(|| format!("{url} is no URL of a service ({flag})"))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        // messages are small: waiting for more to send with them costs up to 40 ms
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true);
    Ok(match connector {
        Some(connector) => endpoint.connect_with_connector_lazy(connector),
        None => endpoint.connect_lazy(),
    })
}

/// Whether it is certain that nothing of the call was sent: there was no connection to send it by, or no time to begin.
#[must_use]
pub fn not_sent(status: &Status) -> bool {
    chain(status).any(<dyn Error>::is::<NotSent>)
}

/// The mark of a call that was not sent.
#[derive(Debug, thiserror::Error)]
#[error("nothing was sent")]
struct NotSent(#[source] Option<transport::Error>);

impl From<transport::Channel> for Channel {
    fn from(channel: transport::Channel) -> Self {
        Self { replicas: [channel].into(), held: Arc::default() }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // waiting for the connection takes of the call's time, so the call does it
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let time = match deadline::read(request.headers()) {
                Ok(Some(time)) if time < RESOLUTION => return Err(unsent(expired(), None)),
                Ok(Some(time)) => time,
                Ok(None) => Duration::MAX,
                Err(malformed) => {
                    return Err(unsent(Status::internal(malformed.to_string()), None));
                }
            };
            match &*channel.replicas {
                [only] => send(only.clone(), request, time).await,
                _ => timeout(time, channel.send_somewhere(request, time))
                    .await
                    .unwrap_or_else(|_elapsed| Err(expired())),
            }
        })
    }
}

impl Channel {
    /// To the replica that is held on to; if nothing can have been sent there, to the next.
    async fn send_somewhere(
        &self,
        request: Request<Body>,
        time: Duration,
    ) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        // our callers send one message, which is there already
        let body = body.collect().await?.to_bytes();
        let first = self.held.load(Ordering::Relaxed);
        let mut tried = 0;
        loop {
            let number = (first + tried) % self.replicas.len();
            let request = Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
            let answer = send(self.replicas[number].clone(), request, time).await;
            tried += 1;
            match answer {
                Err(status)
                    if tried < self.replicas.len()
                        && status.code() == Code::Unavailable
                        && not_sent(&status) => {}
                answer => {
                    self.held.store(number, Ordering::Relaxed);
                    return answer;
                }
            }
        }
    }
}

/// Until the answer begins: a stream lives as long as it likes.
async fn send(
    mut channel: transport::Channel,
    request: Request<Body>,
    time: Duration,
) -> Result<Response<Body>, Status> {
    let mut begun = false;
    let answer = async {
        poll_fn(|context| channel.poll_ready(context)).await?;
        begun = true;
        channel.call(request).await
    };
    match timeout(time, answer).await {
        Ok(answer) => answer.map_err(failed),
        Err(_elapsed) if begun => Err(expired()),
        Err(_elapsed) => Err(unsent(expired(), None)),
    }
}

fn failed(error: transport::Error) -> Status {
    if chain(&error).any(<dyn Error>::is::<ConnectError>) {
        let status = Status::unavailable("the service cannot be connected to");
        return unsent(status, Some(error));
    }
    // tonic keeps the deadline, too, and says CANCELLED
    if chain(&error).any(<dyn Error>::is::<TimeoutExpired>) {
        return expired();
    }
    // tonic says CANCELLED for a connection that was closed under the call, and UNKNOWN for one that broke
    let closed = |error: &hyper::Error| error.is_canceled();
    let closed = chain(&error).filter_map(|error| error.downcast_ref()).any(closed);
    let status = Status::from_error(error.into());
    if !closed && status.code() != Code::Unknown {
        return status;
    }
    let mut broken = Status::unavailable("the connection broke");
    broken.set_source(Arc::new(status));
    broken
}

fn expired() -> Status {
    Status::new(Code::DeadlineExceeded, "there was no answer within the call's deadline")
}

fn unsent(mut status: Status, why: Option<transport::Error>) -> Status {
    status.set_source(Arc::new(NotSent(why)));
    status
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}
