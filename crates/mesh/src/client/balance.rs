//! The endpoints of an upstream: one is held on to, and the next is taken when it cannot be connected to.

use super::{
    endpoint::EndpointState,
    failure::{expired, failed, unsent},
    not_sent,
};
use anyhow::{Context as _, ensure};
use chassis::Host;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;
use tonic::{
    Code, Status,
    body::Body,
    transport::{self, Endpoint},
};
use tower::Service as _;

/// A peer in the same house answers in a millisecond; one that takes this long is not there.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a silent peer is asked whether it is there, calls or no calls, and how long it may take to say so: a connection
/// that died without a word is found before the next call trusts it.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);

/// The endpoints of an upstream. A clone is the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Balance {
    replicas: Arc<[transport::Channel]>,
    /// Of the replica that is held on to.
    held: Arc<AtomicUsize>,
}

/// Where a call was tried.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tried(());

impl Balance {
    /// # Errors
    /// A URL is none; the error names the flag.
    pub(crate) fn open(_host: &Host, urls: &str, flag: &'static str) -> anyhow::Result<Self> {
        let replica = |url: &str| endpoint(url, flag);
        let replicas = urls.split(',').map(replica).collect::<anyhow::Result<_>>()?;
        Ok(Self { replicas, held: Arc::default() })
    }

    /// What is known of them; of these, nothing is.
    pub(crate) fn endpoints(&self) -> Vec<EndpointState> {
        let Self { .. } = self;
        Vec::new()
    }

    /// One attempt, until the answer begins. To the replica that is held on to; if nothing can have been sent there, to the
    /// next.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        time: Duration,
        _tried: &mut Tried,
    ) -> Result<Response<Body>, Status> {
        match &*self.replicas {
            [only] => send(only.clone(), request, time).await,
            _ => timeout(time, self.send_somewhere(request, time))
                .await
                .unwrap_or_else(|_elapsed| Err(expired())),
        }
    }

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

impl From<transport::Channel> for Balance {
    fn from(channel: transport::Channel) -> Self {
        Self { replicas: [channel].into(), held: Arc::default() }
    }
}

fn endpoint(url: &str, flag: &'static str) -> anyhow::Result<transport::Channel> {
    let endpoint = || {
        let uri: Uri = url.parse()?;
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        // a port that is none is no part of these, nor is a user
        let host = uri.host().unwrap_or_default();
        let whole = uri.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let authority = uri.authority().is_some_and(|authority| authority.as_str() == whole);
        ensure!(plain && authority, "it is http://HOST:PORT");
        Ok(Endpoint::from(uri))
    };
    let endpoint = endpoint().with_context(|| format!("{url} is no URL of a service ({flag})"))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        // messages are small: waiting for more to send with them costs up to 40 ms
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
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
