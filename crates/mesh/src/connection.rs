//! Connections of a listening port: accepted, served over HTTP/2, and ended by the drain.
//!
//! tonic's own server is not used: it answers a `grpc-timeout` by itself, with CANCELLED, and its shutdown waits for ever for
//! a connection that says nothing, or that watches health.

#[cfg(test)]
mod tests;

use crate::{
    identity::Peer,
    line::{self, End},
    listener::Port,
    reader::{LAST_CALL, Pieces, attend},
    tls,
};
use anyhow::Context as _;
use chassis::Host;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2::Builder};
use hyper_util::{rt::TokioTimer, service::TowerToHyperService};
use std::{
    error::Error,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::ServiceBuilder;

/// Calls at once on a connection; more wait at the client. What one client can make us hold is this times a message.
const STREAMS: u32 = 128;
/// The headers of a call. Tokens and traces take a tenth of it.
const HEADERS: u32 = 16 * 1024;
/// How often a silent peer is asked whether it is there, and how long it may take to say so. What died without a word, as a
/// phone does or a cut cable, holds its watches half a minute at most.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// How long a connection may stand still when no call is left: GOAWAY is sent by then, or not taken. One that carried calls
/// has [`LAST_CALL`], for the end of an answer may still wait in it for a slow reader; whoever understands GOAWAY ends both
/// at once.
const GOODBYE: Duration = Duration::from_millis(500);
/// What HTTP/2 may hold of an answer while the socket is full. What is more waits where it is seen to.
const UNSENT: usize = 64 * 1024;
/// How long to wait before the next try when nothing can be accepted: what is missing, such as files, is freed meanwhile.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Runs everything of a connection as the host's tasks: each is a call.
#[derive(Clone)]
struct Tasks {
    host: Host,
    /// Whether there were any.
    carried: Arc<AtomicBool>,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.carried.store(true, Relaxed);
        self.host.track(attend(task, self.host.draining()));
    }
}

/// Serves a port until the drain. The drain waits for the calls under way, whoever else is connected.
pub(crate) async fn accept(
    host: Host,
    port: Port,
    routes: Routes,
    under_way: TaskTracker,
) -> anyhow::Result<()> {
    let Port { flag, address, socket, tls } = port;
    let draining = host.draining();
    let mut warned = false;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = draining.cancelled() => break Ok(()), // and the socket is closed
        };
        match accepted {
            Ok((stream, peer)) => {
                warned = false;
                // messages are small: waiting for more to send with them costs up to 40 ms. A peer who is gone already shows
                // soon enough.
                let _gone = stream.set_nodelay(true);
                let (tls, routes, under_way) = (tls.clone(), routes.clone(), under_way.clone());
                host.track(shake(host.clone(), tls, (stream, peer), routes, under_way));
            }
            Err(error) => match Failure::of(&error) {
                Failure::Peer => {}
                Failure::Passing => {
                    if !warned {
                        let error: &(dyn Error + 'static) = &error;
                        tracing::warn!(error, "{address} ({flag}): cannot accept for now");
                    }
                    warned = true;
                    let _ended = timeout(EXHAUSTED, draining.cancelled()).await;
                }
                Failure::Socket => {
                    break Err(error).with_context(|| format!("cannot accept on {address}"));
                }
            },
        }
    }
}

/// Whose failure it is that nothing was accepted.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The peer is gone already.
    Peer,
    /// Something is missing for now: files, memory, a network, or a permission of a firewall.
    Passing,
    /// The socket will never be one to accept on.
    Socket,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            // EBADF, EINVAL, ENOTSOCK
            (_, Some(9 | 22 | 88)) => Self::Socket,
            (
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
                | io::ErrorKind::TimedOut,
                _,
            ) => Self::Peer,
            _ => Self::Passing,
        }
    }
}

/// Serves a connection when it is known who is there, if that is asked.
async fn shake(
    host: Host,
    tls: Option<tls::Server>,
    (stream, address): (TcpStream, SocketAddr),
    routes: Routes,
    under_way: TaskTracker,
) {
    let Some(tls) = tls else { return serve(host, stream, None, routes, under_way).await };
    let draining = host.draining();
    let shaken = tokio::select! {
        shaken = tls.accept(stream, address) => shaken,
        () = draining.cancelled() => None, // nothing was asked yet
    };
    if let Some((stream, peer)) = shaken {
        serve(host, stream, peer, routes, under_way).await;
    }
}

async fn serve<S>(host: Host, stream: S, peer: Option<Peer>, routes: Routes, under_way: TaskTracker)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let carried = Arc::new(AtomicBool::new(false));
    let tasks = Tasks { host: host.clone(), carried: carried.clone() };
    let service = ServiceBuilder::new()
        // first: all that comes by this connection is the peer's
        .map_request(move |mut request: Request<Incoming>| {
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            request
        })
        .map_response(|answer: Response<_>| answer.map(Pieces::new))
        .service(routes);
    let (line, end) = line::new(stream);
    let ended = {
        let connection = Builder::new(tasks)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS)
            .max_send_buf_size(UNSENT)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .serve_connection(line, TowerToHyperService::new(service));
        let (mut connection, draining) = (pin!(connection), host.draining());
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    // whoever is cut off here never spoke, or does not read
                    () = stands_still(&under_way, &end, &carried) => return,
                }
            }
        }
    };
    match ended {
        Ok(()) => end.close().await,
        // peers go as they like; whoever looks for a reason finds it
        Err(error) => {
            let error: &(dyn Error + 'static) = &error;
            tracing::debug!(error, "a connection broke");
        }
    }
}

/// Waits until no call is left, and nothing is written any more.
async fn stands_still<S>(under_way: &TaskTracker, end: &End<S>, carried: &AtomicBool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    under_way.close();
    under_way.wait().await;
    // the last answers are handed over, but not all may be on their way
    end.stands_still(if carried.load(Relaxed) { LAST_CALL } else { GOODBYE }).await;
}
