//! Connections of a listening port: accepted, served over HTTP/2, and ended by the drain.
//!
//! tonic's own server is not used: it answers a `grpc-timeout` by itself, with CANCELLED, and its shutdown waits for ever for
//! a connection that says nothing, or that watches health.

#[cfg(test)]
mod tests;

use crate::{
    identity::Peer,
    limits::{Limits, Peers, Seat},
    line::{self, End},
    listener::Port,
    protocol::Protocol,
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
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tower::ServiceBuilder;

/// Calls at once on a connection; more wait at the client. What one client can make us hold is this times a message.
const STREAMS: u32 = 128;
/// Calls that are given up before we have looked at them, of one connection at once: as many as it may have. More of them is
/// an attack ("rapid reset", CVE-2023-44487), and ends the connection with `ENHANCE_YOUR_CALM`.
const GIVEN_UP: usize = 128;
/// Streams that break HTTP/2's rules, in a connection's life, before it is ended in the same way, with the calls under way.
/// A refusal that crosses with what its call still sends counts, too, and each is a frame and no more: so it is what five
/// minutes ([`Limits::age`]) of 3,000 refusals a second bring.
const BROKEN: usize = 1_000_000;
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

/// The calls of a connection.
#[derive(Debug, Default)]
struct Usage {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One of them, until it is dropped.
struct InUse(Arc<Usage>);

impl Usage {
    fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// How many calls there were, if none is under way.
    fn at_rest(&self) -> Option<u64> {
        // in this order: what ends meanwhile must not stand for what begins
        let ended = self.ended.load(Relaxed);
        (self.begun() == ended).then_some(ended)
    }

    fn begin(self: &Arc<Self>) -> InUse {
        self.begun.fetch_add(1, Relaxed);
        InUse(self.clone())
    }

    /// Until nothing was done for so long, and for less than twice that.
    async fn stands_still(&self, time: Duration) {
        loop {
            let before = self.at_rest();
            sleep_until(Instant::now() + time).await;
            if before.is_some() && self.at_rest() == before {
                return;
            }
        }
    }

    /// Until the peer has to be told to go: it asks nothing, or has been here for long.
    async fn expires(&self, born: Instant, limits: &Limits) {
        sleep_until(born + limits.first_call).await;
        if self.begun() > 0 {
            let old = sleep_until(born + limits.some_age());
            tokio::select! {
                () = old => {}
                () = self.stands_still(limits.idle) => {}
            }
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Relaxed);
    }
}

/// Runs everything of a connection as the host's tasks: each is a call.
#[derive(Clone)]
struct Tasks {
    host: Host,
    usage: Arc<Usage>,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let (in_use, draining) = (self.usage.begin(), self.host.draining());
        self.host.track(async move {
            let _until_it_ends = in_use;
            attend(task, draining).await;
        });
    }
}

/// What the connections of a port share.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) host: Host,
    pub(crate) routes: Protocol<Routes>,
    pub(crate) under_way: TaskTracker,
}

/// Serves a port until the drain. The drain waits for the calls under way, whoever else is connected.
pub(crate) async fn accept(door: Door, port: Port) -> anyhow::Result<()> {
    let Port { flag, address, socket, tls, limits } = port;
    let (draining, peers) = (door.host.draining(), Peers::new(limits));
    let mut warned = false;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = draining.cancelled() => break Ok(()), // and the socket is closed
        };
        match accepted {
            Ok((stream, peer)) => {
                warned = false;
                // whoever is one too many is hung up on
                let Some(seat) = peers.admit(peer) else { continue };
                // messages are small: waiting for more to send with them costs up to 40 ms. A peer who is gone already shows
                // soon enough.
                let _gone = stream.set_nodelay(true);
                let served = shake(door.clone(), tls.clone(), (stream, peer), limits);
                door.host.track(seated(seat, served));
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

/// Keeps a place as long as it is used.
async fn seated(_until_it_ends: Seat, served: impl Future<Output = ()>) {
    served.await;
}

/// Serves a connection when it is known who is there, if that is asked.
async fn shake(
    door: Door,
    tls: Option<tls::Server>,
    (stream, address): (TcpStream, SocketAddr),
    limits: Limits,
) {
    let born = Instant::now();
    let Some(tls) = tls else { return serve(door, stream, None, (born, limits)).await };
    let draining = door.host.draining();
    let shaken = tokio::select! {
        shaken = tls.accept(stream, address) => shaken,
        () = draining.cancelled() => None, // nothing was asked yet
    };
    if let Some((stream, peer)) = shaken {
        serve(door, stream, peer, (born, limits)).await;
    }
}

/// A connection that was accepted, with the limits on its time from then on.
async fn serve<S>(door: Door, stream: S, peer: Option<Peer>, (born, limits): (Instant, Limits))
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Door { host, routes, under_way } = door;
    let usage = Arc::new(Usage::default());
    let tasks = Tasks { host: host.clone(), usage: usage.clone() };
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
            .max_pending_accept_reset_streams(GIVEN_UP)
            .max_local_error_reset_streams(BROKEN)
            .max_send_buf_size(UNSENT)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .serve_connection(line, TowerToHyperService::new(service));
        let (mut connection, draining) = (pin!(connection), host.draining());
        let told_to_go = async {
            tokio::select! {
                () = draining.cancelled() => {}
                () = usage.expires(born, &limits) => {}
            }
        };
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = told_to_go => {
                // GOAWAY; what it asks before it hears of that is answered, as are the calls under way
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    // whoever is cut off here never spoke, does not listen, or does not read
                    () = drained(&draining, &under_way, &end, &usage) => return,
                    () = deserted(&usage, &end) => return,
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

/// Waits until a peer that was told to go has nothing to do here any more: it does not listen. Calls under way are finished,
/// however long they take.
async fn deserted<S>(usage: &Usage, end: &End<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    usage.stands_still(if usage.begun() > 0 { PONG } else { GOODBYE }).await;
    say_the_last(usage, end).await;
}

/// The last answers are handed over, but not all may be on their way.
async fn say_the_last<S>(usage: &Usage, end: &End<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    end.stands_still(if usage.begun() > 0 { LAST_CALL } else { GOODBYE }).await;
}

/// Waits until the process drains and no call is left, and nothing is written any more.
async fn drained<S>(
    draining: &CancellationToken,
    under_way: &TaskTracker,
    end: &End<S>,
    usage: &Usage,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    draining.cancelled().await;
    under_way.close();
    under_way.wait().await;
    say_the_last(usage, end).await;
}
