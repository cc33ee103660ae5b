//! One address of a service: the connection to it, the calls under way there, and whether it is *in*, which is whether calls
//! go to it.
//!
//! hyper's connection is used, without tonic's channel around it: what a closed connection did not take comes back whole, to be
//! sent elsewhere; the end of a connection is seen when it comes, not by the next call; and a call costs one hop less.

use super::{
    failure::{Unreached, failed},
    keeper,
};
use crate::tls;
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    header::{Entry, USER_AGENT},
    uri::{Authority, Scheme},
};
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use std::{
    fmt, mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Notify, futures::Notified, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

/// Attempts in a row that had no answer in time: one is a slow call, two are bad luck, three are a process that stands still.
const LATE: u32 = 3;
/// How long others are preferred to an endpoint that failed a call, or would not have it. Who refuses at once has the fewest
/// calls under way, and would draw all of them to itself.
const REST: Duration = Duration::from_secs(1);
const AGENT: HeaderValue = HeaderValue::from_static(concat!("mesh/", env!("CARGO_PKG_VERSION")));

/// Where a URL leads, as requests name it, whatever the address.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// How a peer proves that it is the one.
    pub(super) tls: Option<tls::Connector>,
}

/// An address of a service.
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) origin: Origin,
    state: watch::Sender<State>,
    /// Whether the keeper was started.
    kept: AtomicBool,
    /// Somebody waits for a connection.
    wanted: Notify,
    /// It is no address of the service any more, or nobody calls the service any more.
    pub(super) gone: CancellationToken,
    under_way: AtomicUsize,
    late: AtomicU32,
    /// Whether the present connection bore an answer.
    answered: AtomicBool,
    born: Instant,
    /// Until when others are preferred, in milliseconds since it was born.
    rests: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    line: Line,
    out: Option<Out>,
}

#[derive(Debug, Default)]
enum Line {
    /// Not needed yet, or not any more.
    #[default]
    Idle,
    Connecting,
    Up(SendRequest<Body>),
    Failed(Unreached),
}

#[derive(Clone, Debug)]
struct Out {
    why: Arc<str>,
    since: SystemTime,
}

/// An address of a service, as it is now.
#[derive(Clone, Debug)]
pub struct EndpointState {
    /// Where it is.
    pub address: SocketAddr,
    /// Why it is out and since when: calls go elsewhere. None: it is in.
    pub out: Option<(String, SystemTime)>,
    /// Calls that wait for its answer.
    pub under_way: usize,
}

/// A call that waits for an endpoint's answer.
pub(super) struct UnderWay(pub(super) Arc<Endpoint>);

/// What became of a call.
pub(super) enum Sent {
    Answered(Response<Body>),
    Failed(Status),
    /// Nothing was sent: there is no connection to be had.
    Unconnected(Request<Body>, Unreached),
    /// Nothing was sent: the connection ended before.
    Closed(Request<Body>),
}

impl Endpoint {
    /// Nothing is connected yet. It ends with `parent`.
    pub(super) fn new(address: SocketAddr, origin: Origin, parent: &CancellationToken) -> Self {
        Self {
            address,
            origin,
            state: watch::Sender::default(),
            kept: AtomicBool::default(),
            wanted: Notify::new(),
            gone: parent.child_token(),
            under_way: AtomicUsize::default(),
            late: AtomicU32::default(),
            answered: AtomicBool::default(),
            born: Instant::now(),
            rests: AtomicU64::default(),
        }
    }

    /// How little a call would like to go here: the lowest is the best. One that is not connected yet will be, for the calls
    /// that come after.
    pub(super) fn reluctance(self: &Arc<Self>, tried: bool) -> u8 {
        let state = self.state.borrow();
        let up = matches!(&state.line, Line::Up(line) if !line.is_closed());
        if matches!(state.line, Line::Idle) {
            if self.kept.swap(true, Relaxed) {
                self.wanted.notify_one();
            } else {
                keeper::start(self.clone());
            }
        }
        // a dead one is worse than one that has just failed, and that is worse than to wait for a connection
        (u8::from(state.out.is_some()) << 3)
            | (u8::from(tried) << 2)
            | (u8::from(!up) << 1)
            | u8::from(self.is_resting())
    }

    fn is_resting(&self) -> bool {
        let until = self.rests.load(Relaxed);
        until > 0 && self.born.elapsed() < Duration::from_millis(until)
    }

    /// Calls that wait for its answer.
    pub(super) fn load(&self) -> usize {
        self.under_way.load(Relaxed)
    }

    pub(super) fn is_in(&self) -> bool {
        self.state.borrow().out.is_none()
    }

    pub(super) fn state(&self) -> EndpointState {
        let out = self.state.borrow().out.clone();
        let out = out.map(|Out { why, since }| (why.as_ref().to_owned(), since));
        EndpointState { address: self.address, out, under_way: self.load() }
    }

    /// Until the answer begins. `begun` is set as long as something may have been sent.
    pub(super) async fn send(&self, mut request: Request<Body>, begun: &mut bool) -> Sent {
        let mut line = match self.line().await {
            Ok(line) => line,
            Err(why) => return Sent::Unconnected(request, why),
        };
        self.origin.address(&mut request);
        *begun = true;
        match line.try_send_request(request).await {
            Ok(answer) => {
                self.heard();
                if refuses(&answer) {
                    self.rest();
                }
                Sent::Answered(answer.map(Body::new))
            }
            Err(mut error) => match error.take_message() {
                Some(request) => {
                    *begun = false;
                    Sent::Closed(request)
                }
                None => {
                    self.rest();
                    Sent::Failed(failed(error.into_error()))
                }
            },
        }
    }

    fn rest(&self) {
        let until = (self.born.elapsed() + REST).as_millis();
        self.rests.store(u64::try_from(until).unwrap_or(u64::MAX), Relaxed);
    }

    /// The connection, as soon as there is one; else why there is none.
    async fn line(&self) -> Result<SendRequest<Body>, Unreached> {
        // nearly every call: nobody is to be waited for
        if let Line::Up(line) = &self.state.borrow().line
            && !line.is_closed()
        {
            return Ok(line.clone());
        }
        let mut states = self.state.subscribe();
        let mut asked = false;
        loop {
            match &states.borrow_and_update().line {
                Line::Up(line) if !line.is_closed() => return Ok(line.clone()),
                Line::Failed(why) if asked || self.gone.is_cancelled() => return Err(why.clone()),
                // that was before
                Line::Failed(_) | Line::Idle => self.wanted.notify_one(),
                // its keeper sees it soon
                Line::Connecting | Line::Up(_) => {}
            }
            asked = true;
            states.changed().await.expect("the sender is here");
        }
    }

    /// There was no answer in time. Whether that was once too often: it stands still.
    pub(super) fn is_late(&self) -> bool {
        self.late.fetch_add(1, Relaxed) + 1 >= LATE
    }

    /// An answer came, whatever it says: somebody is there.
    pub(super) fn heard(&self) {
        // written only when it changes, for all calls read it
        if self.late.load(Relaxed) > 0 {
            self.late.store(0, Relaxed);
        }
        self.comes_in();
    }

    /// It answered its keeper. That is no call's answer: the next call that has none in time takes it out again.
    pub(super) fn proved(&self) {
        self.late.store(LATE - 1, Relaxed);
        self.comes_in();
    }

    fn comes_in(&self) {
        if !self.answered.load(Relaxed) {
            self.answered.store(true, Relaxed);
        }
        if !self.is_in() {
            let mut was = None;
            self.state.send_if_modified(|state| {
                was = state.out.take();
                was.is_some()
            });
            if was.is_some() {
                tracing::info!(address = %self.address, "{self} answers again: calls go to it");
            }
        }
    }

    /// Calls go elsewhere, from now on.
    pub(super) fn take_out(&self, why: &str) {
        self.put_out(why, None);
    }

    fn put_out(&self, why: &str, line: Option<Line>) {
        let mut news = false;
        self.state.send_modify(|state| {
            if let Some(line) = line {
                state.line = line;
            }
            let out = || Out { why: why.into(), since: SystemTime::now() };
            news = state.out.is_none();
            state.out.get_or_insert_with(out);
        });
        if news {
            tracing::warn!(address = %self.address, "{self} is taken out, no calls go to it: {why}");
        }
    }
}

/// What the keeper tells and hears.
impl Endpoint {
    pub(super) fn connecting(&self) {
        self.answered.store(false, Relaxed);
        self.state.send_modify(|state| state.line = Line::Connecting);
    }

    pub(super) fn connected(&self, line: SendRequest<Body>) {
        self.state.send_modify(|state| state.line = Line::Up(line));
    }

    /// Takes it out: nobody can be connected to.
    pub(super) fn unconnected(&self, why: Unreached) {
        self.put_out(&why.to_string(), Some(Line::Failed(why)));
    }

    pub(super) fn idle(&self) {
        self.state.send_modify(|state| state.line = Line::Idle);
    }

    /// Whoever waits for a connection waits in vain.
    pub(super) fn left(&self) {
        let why = "it is no address of the service any more";
        self.state.send_modify(|state| state.line = Line::Failed(Unreached::told(why)));
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }

    /// Until somebody waits for a connection.
    pub(super) fn wanted(&self) -> Notified<'_> {
        self.wanted.notified()
    }

    /// Until it is out.
    pub(super) async fn is_out(&self) {
        let mut states = self.state.subscribe();
        let _out = states.wait_for(|state| state.out.is_some()).await;
    }
}

/// Whether it would rather not have had the call: UNAVAILABLE, `RESOURCE_EXHAUSTED`, or a proxy's word instead of gRPC's.
fn refuses<B>(answer: &Response<B>) -> bool {
    let told = answer.headers().get("grpc-status");
    answer.status() != StatusCode::OK || told.is_some_and(|code| code == "14" || code == "8")
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.origin.authority;
        let address = self.address.to_string();
        if authority.as_str() == address {
            return f.write_str(&address);
        }
        write!(f, "{authority} at {address}")
    }
}

impl UnderWay {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.under_way.fetch_add(1, Relaxed);
        Self(endpoint)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

impl Origin {
    /// Addresses a request, as HTTP/2 wants it, and says who sends it.
    fn address(&self, request: &mut Request<Body>) {
        let mut parts = mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query.get_or_insert_with(|| "/".parse().expect("it is a path"));
        *request.uri_mut() = Uri::from_parts(parts).expect("all its parts are there");
        if let Ok(Entry::Vacant(agent)) = request.headers_mut().try_entry(USER_AGENT) {
            agent.insert(AGENT);
        }
    }

    /// `grpc.health.v1.Health/Check` of the whole server, which every server of this crate answers; another one says that it
    /// has no such service, and shows by that as well that it is there.
    pub(super) fn check(&self) -> Request<Body> {
        // an empty message: no flags, no bytes
        let body = Body::new(Full::new(Bytes::from_static(&[0; 5])));
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from_static("/grpc.health.v1.Health/Check");
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        self.address(&mut request);
        request
    }
}
