//! Shedding: more calls at once than are answered in time are refused at once, so that those which are taken are answered.
//!
//! How many that is, is learnt: AIMD on latency as in Netflix's concurrency-limits, with the square root of the limit as the
//! step up as in its and Envoy's gradient. Methods share a limit, for they share the machine, but each is compared with itself:
//! with what it takes while no more calls are under way than are always taken. So a method that waits half a second for
//! somebody else is not taken for a queue, and a queue longer than that is not taken for what is usual, however long it lasts.
//! One within it is: refusing would not shorten it.

use crate::{
    Problem,
    around::{Around, Next, refuse},
    deadline,
    problem::RETRY_AFTER,
    validation,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};
use tonic::{Code, body::Body};

/// So many calls at once are always taken: as many as a single connection may bring. Up to here all that is seen is usual: a
/// service that is slower for good is known to be so, and its limit comes back.
const FLOOR: usize = 128;
/// Where a process begins, which knows nothing yet: what a second's burst may bring.
const START: usize = 512;
/// Never more: each call may hold a request of 64 KiB.
const MOST: usize = 2_048;
/// A queue that costs no more than this is none: people do not see it, and a write to a busy disk takes as long.
const SLACK: Duration = Duration::from_millis(250);
/// What a method takes may double before it is a queue; the same method does more for one caller than for another.
const TWICE: u32 = 2;
/// How long is looked before the limit moves, and at how many calls; both, and at calls that began under this limit only.
const WINDOW: Duration = Duration::from_millis(100);
const ENOUGH: u32 = 16;
/// One call's part in what is usual: the last few dozen decide.
const PART: u64 = 16;
/// The rest of a request comes with its headers, or soon; it is not waited for any longer, nor for more than a request may be.
const REST: Duration = Duration::from_millis(100);
const LARGEST: usize = validation::MOST;
/// When nothing was refused for so long, shedding is over.
const OVER: Duration = Duration::from_secs(10);

/// Refuses what is too much, before anything of it is looked at: a refusal must cost next to nothing.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) Shed);

/// Counts the calls that are worked on, once they are read, so that nobody takes a place with half a request.
#[derive(Clone)]
pub(crate) struct Shed {
    pub(crate) domain: &'static str,
    /// Of all services on a port.
    pub(crate) load: Arc<Load>,
    /// By path.
    pub(crate) methods: Arc<HashMap<String, Method>>,
}

/// What is known of a method.
#[derive(Debug, Default)]
pub(crate) struct Method {
    /// Whether its calls are taken before others.
    pub(crate) first: bool,
    /// Longer is slow, whatever is usual.
    late: Duration,
    /// In microseconds; 0 while nothing is known.
    usual: AtomicU64,
}

/// How much is done on a port, and how much may be.
#[derive(Debug, Default)]
pub(crate) struct Load(Mutex<State>);

#[derive(Debug)]
struct State {
    under_way: usize,
    limit: usize,
    window: Window,
    refusing: Option<Refusing>,
}

/// What was seen since the limit moved.
#[derive(Debug)]
struct Window {
    since: Instant,
    calls: u32,
    slow: u32,
    /// Calls at once.
    most: usize,
}

#[derive(Clone, Copy, Debug)]
struct Refusing {
    since: Instant,
    last: Instant,
    calls: u64,
}

/// A call that was taken, until it is dropped.
struct Call<'a> {
    load: &'a Load,
    method: &'a Method,
    begun: Instant,
    /// Whether few calls were under way with it.
    calm: bool,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// However long that takes, it says nothing of an answer.
    Refused,
    /// At its deadline, or its caller went away.
    GivenUp,
}

impl Around for Gate {
    async fn around(self, request: Request<Body>, mut next: impl Next) -> Response<Body> {
        let Self(shed) = self;
        match shed.methods.get(request.uri().path()) {
            Some(method) if !shed.load.takes(method) => {
                let _or_not = timeout(REST, pass_over(request.into_body())).await;
                shed.refuse()
            }
            _ => next.call(request).await,
        }
    }
}

impl Around for Shed {
    async fn around(self, request: Request<Body>, mut next: impl Next) -> Response<Body> {
        let Some(method) = self.methods.get(request.uri().path()) else {
            // no such method: the service says so
            return next.call(request).await;
        };
        let Some(mut call) = self.load.begin(method) else { return self.refuse() };
        // of a stream only until it begins
        let answer = next.call(request).await;
        call.end = End::of(&answer);
        answer
    }
}

/// Lets the rest of a refused request come, and keeps nothing of it. Answered before its end it would be reset, what still comes
/// of it would be an error of its own, and a connection that many calls are refused on would be ended for too many of those.
async fn pass_over(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > LARGEST {
            return;
        }
    }
}

impl Shed {
    /// Says when to come again, in the words of gRPC's retries (gRFC A6), too.
    fn refuse(&self) -> Response<Body> {
        let message = "more calls are under way than can be answered in time";
        let mut refused = refuse(Problem::overloaded(self.domain, message));
        let pushback =
            HeaderValue::from(u64::try_from(RETRY_AFTER.as_millis()).unwrap_or(u64::MAX));
        refused.headers_mut().insert("grpc-retry-pushback-ms", pushback);
        refused
    }
}

impl Method {
    pub(crate) fn new(limits: deadline::Limits) -> Self {
        // who has waited for half of the time that there is waits for others
        Self { late: limits.default / 2, ..Self::default() }
    }

    /// Whether a call says that there is a queue; nothing if it says nothing.
    fn is_slow(&self, took: Duration, end: End) -> Option<bool> {
        let usual = Duration::from_micros(self.usual.load(Relaxed));
        let twice = usual * TWICE;
        match end {
            End::Answered if usual.is_zero() => Some(took > self.late),
            // what is late all the same while few are there is not made earlier by refusing others
            End::Answered => Some(took > (twice + SLACK).min(self.late.max(usual + SLACK))),
            // how long an answer would have taken nobody knows: this long at least
            End::GivenUp if usual.is_zero() => (took > self.late).then_some(true),
            // who gives up sooner than is usual had no time, whatever there is; who gives up later found a queue
            End::GivenUp => (took > usual.max(WINDOW)).then_some(true),
            End::Refused => None,
        }
    }

    fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let usual = match self.usual.load(Relaxed) {
            0 => took,
            usual => usual - usual / PART + took / PART,
        };
        self.usual.store(usual.max(1), Relaxed);
    }
}

impl Load {
    /// Whether there is room for one more.
    fn takes(&self, method: &Method) -> bool {
        self.room(method).is_some()
    }

    fn begin<'a>(&'a self, method: &'a Method) -> Option<Call<'a>> {
        let mut state = self.room(method)?;
        state.under_way += 1;
        state.window.most = state.window.most.max(state.under_way);
        let calm = state.under_way <= FLOOR;
        Some(Call { load: self, method, begun: Instant::now(), calm, end: End::GivenUp })
    }

    /// Nothing if there is no room.
    fn room(&self, method: &Method) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state();
        // a quarter is kept for those who go first
        let room = if method.first { state.limit + state.limit / 4 } else { state.limit };
        if state.under_way < room {
            return Some(state);
        }
        let (begins, limit) = (state.refuse(Instant::now()), state.limit);
        drop(state);
        if begins {
            tracing::warn!(limit, "calls are shed: more come than are answered in time");
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // nothing in there is left half done
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for State {
    fn default() -> Self {
        Self { under_way: 0, limit: START, window: Window::new(Instant::now(), 0), refusing: None }
    }
}

impl State {
    /// Whether it is the first for long.
    fn refuse(&mut self, now: Instant) -> bool {
        let begins = self.refusing.is_none();
        let refusing = self.refusing.get_or_insert(Refusing { since: now, last: now, calls: 0 });
        refusing.last = now;
        refusing.calls += 1;
        begins
    }

    fn see(&mut self, slow: bool, now: Instant) {
        self.window.calls += 1;
        self.window.slow += u32::from(slow);
        if now - self.window.since < WINDOW || self.window.calls < ENOUGH {
            return;
        }
        let most = self.window.most;
        if self.window.slow > self.window.calls / 2 {
            // few calls are slow for reasons of their own, and more is not to blame on a limit that nobody came near
            if most > FLOOR {
                self.limit = (self.limit.min(most) / 10 * 9).max(FLOOR);
            }
        } else if most > self.limit / 2 {
            self.limit = (self.limit + self.limit.isqrt()).min(MOST);
        }
        self.window = Window::new(now, self.under_way);
    }

    /// What was refused, once that is over.
    fn over(&mut self, now: Instant) -> Option<Refusing> {
        self.refusing.take_if(|refusing| now - refusing.last >= OVER)
    }
}

impl Window {
    fn new(since: Instant, under_way: usize) -> Self {
        Self { since, calls: 0, slow: 0, most: under_way }
    }
}

impl End {
    fn of(answer: &Response<Body>) -> Self {
        let status = answer.headers().get("grpc-status").map(HeaderValue::as_bytes);
        match status.map(Code::from_bytes) {
            // an answer's status comes after it
            None | Some(Code::Ok) => Self::Answered,
            Some(Code::DeadlineExceeded) => Self::GivenUp,
            Some(_) => Self::Refused,
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now - self.begun;
        let mut state = self.load.state();
        if self.calm && state.under_way <= FLOOR && self.end == End::Answered {
            self.method.learn(took);
        }
        state.under_way -= 1;
        // what began before the limit moved says nothing of where it is now
        if self.begun >= state.window.since
            && let Some(slow) = self.method.is_slow(took, self.end)
        {
            state.see(slow, now);
        }
        let (over, limit) = (state.over(now), state.limit);
        drop(state);
        if let Some(Refusing { since, last, calls }) = over {
            let time = last - since;
            tracing::info!(calls, ?time, limit, "no calls are shed any more");
        }
    }
}

#[cfg(test)]
mod tests;
