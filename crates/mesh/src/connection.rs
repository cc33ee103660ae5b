//! Connections of a listening port: accepted, served over HTTP/2, and ended by the drain.
//!
//! tonic's own server is not used: it answers a `grpc-timeout` by itself, with CANCELLED, and its shutdown waits for ever for
//! a connection that says nothing, or that watches health.

use crate::{
    line::{self, End},
    listener::Port,
};
use anyhow::Context as _;
use chassis::Host;
use hyper::server::conn::http2::Builder;
use hyper_util::{rt::TokioTimer, service::TowerToHyperService};
use std::{error::Error, future::pending, io, pin::pin, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

/// Calls at once on a connection; more wait at the client. What one client can make us hold is this times a message.
const STREAMS: u32 = 128;
/// The headers of a call. Tokens and traces take a tenth of it.
const HEADERS: u32 = 16 * 1024;
/// How often a silent peer is asked whether it is there, and how long it may take to say so. What died without a word, as a
/// phone does or a cut cable, holds its watches half a minute at most.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// How long a connection may stand still when no call is left. Answers and GOAWAY are sent by then, or not taken.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long to wait before the next try when the process may open no more files: they are closed meanwhile.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Runs everything of a connection as the host's tasks.
#[derive(Clone)]
struct Tasks(Host);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.track(task);
    }
}

/// Serves a port until the drain. The drain waits for the calls under way, whoever else is connected.
pub(crate) async fn accept(
    host: Host,
    port: Port,
    routes: Routes,
    under_way: TaskTracker,
) -> anyhow::Result<()> {
    let Port { flag, address, socket } = port;
    let mut http = Builder::new(Tasks(host.clone()));
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    let draining = host.draining();
    let mut warned = false;
    loop {
        let accepted = tokio::select! {
            accepted = next(&socket) => accepted,
            () = draining.cancelled() => break Ok(()), // and the socket is closed
        };
        match accepted {
            Ok(Some(stream)) => {
                warned = false;
                let (http, routes) = (http.clone(), routes.clone());
                host.track(serve(host.clone(), http, stream, routes, under_way.clone()));
            }
            Ok(None) => {
                if !warned {
                    tracing::warn!("{address} ({flag}): too many files are open to accept more");
                }
                warned = true;
                let _ended = timeout(EXHAUSTED, draining.cancelled()).await;
            }
            Err(error) => break Err(error).with_context(|| format!("cannot accept on {address}")),
        }
    }
}

/// The next connection; none when no more can be opened for now.
async fn next(socket: &TcpListener) -> io::Result<Option<TcpStream>> {
    loop {
        match socket.accept().await {
            Ok((stream, _peer)) => return Ok(Some(stream)),
            // ENFILE, EMFILE: the system has no more, or this process
            Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => return Ok(None),
            // it is the peer who is gone
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn serve(
    host: Host,
    http: Builder<Tasks>,
    stream: TcpStream,
    routes: Routes,
    under_way: TaskTracker,
) {
    // messages are small: waiting for more to send with them costs up to 40 ms. A peer who is gone already shows soon enough.
    let _gone = stream.set_nodelay(true);
    let (line, end) = line::new(stream);
    let ended = {
        let connection = http.serve_connection(line, TowerToHyperService::new(routes));
        let (mut connection, draining) = (pin!(connection), host.draining());
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    // whoever is cut off here never spoke, does not read, or only watches health
                    () = stands_still(&under_way, &end) => return,
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
async fn stands_still(under_way: &TaskTracker, end: &End) {
    under_way.close();
    under_way.wait().await;
    let mut before = None;
    // the last answers are handed over, but not all may be on their way
    while before.replace(end.written()) != Some(end.written()) {
        let _passed = timeout(GOODBYE, pending::<()>()).await;
    }
}
