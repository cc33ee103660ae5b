//! The client's side of a call: a channel that keeps the deadlines of its calls, tries again what may be, leaves a service alone
//! that fails, and knows when nothing can have been sent.

mod attempt;
mod balance;
mod breaker;
mod budget;
mod endpoint;
mod failure;
mod keeper;
mod policy;
mod resolve;
mod retry;
mod snapshot;
#[cfg(test)]
mod tests;

pub use breaker::{BreakerState, Stage};
pub use endpoint::EndpointState;
pub(crate) use failure::Unreached;
pub use policy::Policies;
pub use snapshot::{Counts, MethodPolicy, Snapshot};

use crate::tls;
use attempt::{Answer, Call, Usual};
use balance::Balance;
use breaker::{Breaker, Outcome, Permit};
use budget::Budget;
use chassis::Host;
use failure::{NotSent, chain, expired, unsent};
use futures::future::BoxFuture;
use http::{Request, Response};
use policy::{Method, Methods, Rules};
use retry::{Health, Retry, judge, pause};
use snapshot::{Counters, count};
use std::{
    error::Error,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tonic::{Status, body::Body, transport};
use tower::Service;

/// A call with less time than this is not begun: the quickest answers of a service that stores something take as long.
const USEFUL: Duration = Duration::from_millis(5);
/// So much of its time a server is not told of: its word that the time is over comes before ours, and says more.
const MARGIN: Duration = Duration::from_millis(2);

type Answered = Result<Response<Body>, Status>;

/// The locks of what is also run under every order of threads, in `tests/permits.rs`.
mod sync {
    pub(super) use std::sync::Mutex;
}

/// A service that is called, and how.
#[derive(Debug)]
pub struct Upstream {
    /// What policies, logs and operators call it.
    pub name: &'static str,
    /// Where it is: `http://HOST:PORT`, or several with commas between them.
    pub urls: String,
    /// The flag that sets `urls`.
    pub flag: &'static str,
    /// Its full name.
    pub service: &'static str,
    /// An encoded `FileDescriptorSet` with the service: it says what streams, and what may be sent twice.
    pub descriptors: &'static [u8],
    /// How it is called.
    pub policies: Policies,
    /// How its servers are known, and what is shown to them, where a URL is `https://HOST:PORT`.
    pub tls: Option<tls::Client>,
}

/// A way to a service, connected when it is needed and again when it broke. A clone is the same way.
///
/// A call ends with `DEADLINE_EXCEEDED` when the time is over that the request gives (`grpc-timeout`) or that the policy gives,
/// whichever is shorter. Of a stream that bounds the time until it begins: it lives as long as it likes. The answer to
/// a unary call is read whole, at most 4 MiB. A method that the descriptors do not know is called once, and may stream.
#[derive(Clone)]
pub struct Channel(Arc<Stack>);

struct Stack {
    name: &'static str,
    methods: Arc<Methods>,
    rules: watch::Receiver<Arc<Rules>>,
    counters: Counters,
    budget: Budget,
    breaker: Breaker,
    usual: Usual,
    balance: Balance,
}

/// A channel for a command line, to `http://HOST:PORT`, or to several with commas between them: without a breaker, and without
/// deadlines but those of its calls. The flag is the one that sets the URLs. It lives on the runtime that this is called on.
///
/// # Errors
/// A URL is none; the error names the flag.
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
    // what goes on beside its calls ends with it
    Ok(Channel::plain(flag, Methods::none(), Balance::open(&Host::new(), urls, flag, tls)?))
}

/// Whether it is certain that nothing of the call was sent: there was no connection to send it by, no time to begin, or the
/// breaker was open.
#[must_use]
pub fn not_sent(status: &Status) -> bool {
    chain(status).any(<dyn Error>::is::<NotSent>)
}

impl Channel {
    /// A channel to an upstream; nothing is connected yet.
    ///
    /// # Errors
    /// A URL is none, and the error names the flag; the service is not in the descriptors; or the policies name a method that
    /// it has not.
    pub fn open(host: &Host, upstream: Upstream) -> anyhow::Result<Self> {
        let Upstream { name, urls, flag, service, descriptors, policies, tls } = upstream;
        let methods = Arc::new(Methods::read(descriptors, service)?);
        let rules = policies.rules(name, methods.clone())?;
        let balance = Balance::open(host, &urls, flag, tls.as_ref())?;
        Ok(Self(Arc::new(Stack::new(name, methods, rules, balance))))
    }

    /// The same way, of [`connect`], for who knows what is called: what may be sent twice is tried again.
    ///
    /// # Errors
    /// The descriptors are malformed.
    pub fn knowing(&self, descriptors: &[u8]) -> anyhow::Result<Self> {
        Ok(Self::plain(self.0.name, Methods::all_of(descriptors)?, self.0.balance.clone()))
    }

    fn plain(name: &'static str, methods: Methods, balance: Balance) -> Self {
        let rules = watch::Sender::new(Arc::new(Rules::plain(&methods))).subscribe();
        Self(Arc::new(Stack::new(name, Arc::new(methods), rules, balance)))
    }

    /// Whether a call would be refused now, because the breaker is open: what leads to a call is better not begun.
    #[must_use]
    pub fn refuses(&self) -> bool {
        let rules = self.0.rules.borrow().clone();
        self.0.breaker.refuses(&rules.breaker, Instant::now())
    }

    /// How it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let Stack { name, methods, rules, counters, budget, breaker, balance, .. } = &*self.0;
        let (rules, now) = (rules.borrow().clone(), Instant::now());
        let policy = |(name, path): (&str, &str)| {
            let Method { facts, timeout, attempt_timeout, attempts } = *rules.method(path);
            let idempotent = facts.idempotent;
            MethodPolicy { name: name.to_owned(), idempotent, timeout, attempt_timeout, attempts }
        };
        let breaker = breaker.snapshot(&rules.breaker, now);
        Snapshot {
            name,
            service: methods.service,
            endpoints: balance.endpoints(),
            budget: budget.left(&rules.budget, now),
            methods: methods.of_service().map(policy).collect(),
            counts: counters.read(breaker.opened),
            breaker,
        }
    }
}

impl Stack {
    fn new(
        name: &'static str,
        methods: Arc<Methods>,
        rules: watch::Receiver<Arc<Rules>>,
        balance: Balance,
    ) -> Self {
        let now = Instant::now();
        let (budget, breaker) = (Budget::new(now), Breaker::new(name, now));
        let (counters, usual) = (Counters::default(), Usual::default());
        Self { name, methods, rules, counters, budget, breaker, usual, balance }
    }

    /// What a call goes through, from the caller's side to the service's.
    async fn call(self: Arc<Self>, request: Request<Body>) -> Answered {
        let rules = self.rules.borrow().clone();
        let method = rules.method(request.uri().path());
        count(&self.counters.calls);
        self.budget.deposit(&rules.budget);
        // the total deadline is around all: attempts and the waits between them end with it
        let mut call = Call::read(request, method).await?;
        let most = method.attempt_timeout.unwrap_or(policy::ATTEMPT_TIMEOUT);
        let usual = self.usual.note(call.left(), most);
        // retries are around the breaker: it counts each attempt, and what it refuses is not tried again
        let mut retry = Retry::new(method, &self.budget, &rules.budget);
        loop {
            // the breaker is around the attempt's timeout: what takes too long is what it must see
            let Ok(permit) = self.breaker.enter(&rules.breaker, Instant::now()) else {
                count(&self.counters.refused);
                return retry.end(|| self.refused());
            };
            count(&self.counters.attempts);
            if retry.made() > 0 {
                count(&self.counters.retries);
            }
            // innermost, where each attempt has its own: the timeout, the headers that tell of it, and the endpoint
            let answer = call.attempt(&self.balance, method, usual, retry.made()).await;
            let verdict = judge(&answer);
            settle(permit, verdict.health, &answer, usual, &rules);
            let Some(wait) = retry.take(answer, verdict.again, &call) else {
                return retry.end(expired);
            };
            pause(wait).await;
        }
    }

    fn refused(&self) -> Status {
        let message = format!("{} fails, and is left alone for a while", self.name);
        unsent(Status::unavailable(message), None)
    }
}

/// Tells the breaker how an attempt ended, unless that says nothing about the service.
fn settle(permit: Permit<'_>, health: Health, answer: &Answer, usual: Duration, rules: &Rules) {
    let slow = usual.saturating_mul(rules.breaker.slow_percent) / 100;
    let outcome = match health {
        Health::Well if answer.took > slow => Outcome::Failed,
        Health::Well => Outcome::Well,
        Health::Failing => Outcome::Failed,
        Health::Late if answer.telling => Outcome::Failed,
        Health::Late | Health::Unsaid => return,
    };
    permit.settle(outcome, &rules.breaker, Instant::now());
}

impl From<transport::Channel> for Channel {
    fn from(channel: transport::Channel) -> Self {
        Self::plain("a channel", Methods::none(), channel.into())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Answered>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // waiting for the connection takes of the call's time, so the call does it
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.clone().call(request))
    }
}
