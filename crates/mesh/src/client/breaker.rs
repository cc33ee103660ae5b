//! The breaker: stops asking a service that fails, so that callers are told at once and the service is left alone; and finds
//! out, with one call at a time, when it is well again. (M. Nygard, *Release It!*; the window is that of resilience4j.)
//!
//! It takes the time as an argument and its lock from `super::sync`: `tests/permits.rs` runs it under every order of threads.

use super::sync::Mutex;
use rand::Rng as _;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The window moves on in tenths: what leaves it at once is little, and it costs 80 bytes.
const BUCKETS: usize = 10;
const TENTHS: u32 = 10;

/// When it opens, and when it closes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Switched off it admits everything and counts nothing.
    pub(crate) enabled: bool,
    /// How long a call counts.
    pub(crate) window: Duration,
    /// So few calls tell nothing.
    pub(crate) calls: u32,
    /// The share of calls in the window that failed, or were slow, at which it opens.
    pub(crate) failed_percent: u32,
    /// A call is slow when it takes more than this share of an attempt's time.
    pub(crate) slow_percent: u32,
    /// How long it stays open the first time; twice as long each time that a probe fails.
    pub(crate) open_for: Duration,
    /// And how long at most.
    pub(crate) open_at_most: Duration,
    /// So many probes in a row must succeed before it closes.
    pub(crate) closes_after: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            // long enough to see 20 calls of a service with two a second, short enough to forget a restart soon
            window: Duration::from_secs(10),
            // with fewer, three unlucky calls would cut off a service that is well
            calls: 20,
            // below that, a retry gets through more often than not
            failed_percent: 50,
            // before calls begin to time out
            slow_percent: 80,
            // a restart takes a second or two
            open_for: Duration::from_secs(1),
            // after a long outage it is noticed within half a minute that it is over
            open_at_most: Duration::from_secs(30),
            // one may be luck
            closes_after: 3,
        }
    }
}

/// Whether calls are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All are.
    Closed,
    /// None is, for a while.
    Open,
    /// One at a time is, to find out.
    HalfOpen,
}

/// How a breaker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerState {
    /// Whether it is switched on.
    pub enabled: bool,
    /// Whether calls are let through.
    pub stage: Stage,
    /// Since when.
    pub since: SystemTime,
    /// The calls that count now, and those of them that failed or were slow.
    pub calls: u32,
    /// See `calls`.
    pub failed: u32,
    /// How often it opened since the process started; a probe that failed is not another time.
    pub opened: u64,
}

/// How an admitted call ended, as far as the service is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The service is well: it answered, be it with a refusal.
    Well,
    /// It failed, or was too slow.
    Failed,
}

/// Why a call is not admitted: the breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the breaker is open")]
pub(crate) struct Refused;

/// The breaker of one upstream.
pub(crate) struct Breaker {
    name: &'static str,
    state: Mutex<State>,
}

struct State {
    stage: Inner,
    /// Counts the stages: a call that was admitted in an earlier one says nothing about this one.
    epoch: u64,
    since: SystemTime,
    opened: u64,
}

enum Inner {
    Closed(Window),
    Open {
        until: Instant,
        /// How often in a row, without closing in between.
        times: u32,
    },
    HalfOpen {
        times: u32,
        /// Whether a probe is under way.
        probing: bool,
        well: u32,
    },
}

impl Breaker {
    pub(crate) fn new(name: &'static str, now: Instant) -> Self {
        let stage = Inner::Closed(Window::new(now));
        let state = State { stage, epoch: 0, since: SystemTime::now(), opened: 0 };
        Self { name, state: Mutex::new(state) }
    }

    /// Lets a call through, or not. What is let through tells how it ended, or drops the permit if that says nothing.
    pub(crate) fn enter(&self, settings: &Settings, now: Instant) -> Result<Permit<'_>, Refused> {
        if !settings.enabled {
            return Ok(Permit { breaker: None, epoch: 0 });
        }
        let mut state = self.lock();
        match &mut state.stage {
            Inner::Closed(_) => {}
            Inner::HalfOpen { probing, .. } if !*probing => *probing = true,
            Inner::Open { until, times } if *until <= now => {
                let times = *times;
                state.change(Inner::HalfOpen { times, probing: true, well: 0 });
            }
            Inner::Open { .. } | Inner::HalfOpen { .. } => return Err(Refused),
        }
        Ok(Permit { breaker: Some(self), epoch: state.epoch })
    }

    /// Whether a call would be refused now.
    pub(crate) fn refuses(&self, settings: &Settings, now: Instant) -> bool {
        settings.enabled
            && match self.lock().stage {
                Inner::Closed(_) => false,
                Inner::Open { until, .. } => now < until,
                Inner::HalfOpen { probing, .. } => probing,
            }
    }

    pub(crate) fn snapshot(&self, settings: &Settings, now: Instant) -> BreakerState {
        let mut state = self.lock();
        let (stage, (calls, failed)) = match &mut state.stage {
            Inner::Closed(window) => (Stage::Closed, window.totals(settings.window, now)),
            Inner::Open { .. } => (Stage::Open, (0, 0)),
            Inner::HalfOpen { .. } => (Stage::HalfOpen, (0, 0)),
        };
        let State { since, opened, .. } = *state;
        BreakerState { enabled: settings.enabled, stage, since, calls, failed, opened }
    }

    fn settle(&self, epoch: u64, outcome: Outcome, settings: &Settings, now: Instant) {
        let mut state = self.lock();
        if state.epoch != epoch {
            return;
        }
        let change = match &mut state.stage {
            Inner::Closed(window) => {
                window.note(outcome, settings.window, now);
                let (calls, failed) = window.totals(settings.window, now);
                let share = u64::from(calls) * u64::from(settings.failed_percent);
                if calls < settings.calls || u64::from(failed) * 100 < share {
                    return;
                }
                state.opened += 1;
                let open_for = state.open(settings, 0, now);
                Change::Opened { calls, failed, open_for }
            }
            Inner::HalfOpen { times, .. } if outcome == Outcome::Failed => {
                let times = times.saturating_add(1);
                Change::StaysOpen { open_for: state.open(settings, times, now) }
            }
            Inner::HalfOpen { probing, well, .. } => {
                (*probing, *well) = (false, *well + 1);
                if *well < settings.closes_after {
                    return;
                }
                state.change(Inner::Closed(Window::new(now)));
                Change::Closed
            }
            // nothing was admitted in this epoch
            Inner::Open { .. } => return,
        };
        drop(state);
        change.log(self.name, settings);
    }

    /// A probe ended without telling anything: the next call is one.
    fn give_back(&self, epoch: u64) {
        let mut state = self.lock();
        if state.epoch == epoch
            && let Inner::HalfOpen { probing, .. } = &mut state.stage
        {
            *probing = false;
        }
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = State> + '_ {
        self.state.lock().expect("no panic while locked")
    }
}

impl State {
    fn change(&mut self, stage: Inner) {
        self.stage = stage;
        self.epoch += 1;
        self.since = SystemTime::now();
    }

    /// For how long. Up to a fifth longer than it is set to: the breakers of several replicas do not probe together.
    fn open(&mut self, settings: &Settings, times: u32, now: Instant) -> Duration {
        let doubled = settings.open_for.saturating_mul(2_u32.saturating_pow(times));
        let open_for = doubled.min(settings.open_at_most);
        let open_for = open_for.mul_f64(rand::rng().random_range(1.0..1.2));
        self.change(Inner::Open { until: now + open_for, times });
        open_for
    }
}

/// The right to make one call.
#[must_use]
pub(crate) struct Permit<'a> {
    /// None: the breaker is switched off, or the end was told.
    breaker: Option<&'a Breaker>,
    epoch: u64,
}

impl Permit<'_> {
    /// Tells how the call ended.
    pub(crate) fn settle(mut self, outcome: Outcome, settings: &Settings, now: Instant) {
        if let Some(breaker) = self.breaker.take() {
            breaker.settle(self.epoch, outcome, settings, now);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take() {
            breaker.give_back(self.epoch);
        }
    }
}

/// The calls of the last while.
struct Window {
    buckets: [Bucket; BUCKETS],
    /// The one that is filled now, and since when.
    current: usize,
    since: Instant,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    calls: u32,
    failed: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { buckets: [Bucket::default(); BUCKETS], current: 0, since: now }
    }

    fn note(&mut self, outcome: Outcome, length: Duration, now: Instant) {
        self.move_on(length, now);
        let bucket = &mut self.buckets[self.current];
        bucket.calls = bucket.calls.saturating_add(1);
        bucket.failed = bucket.failed.saturating_add(u32::from(outcome == Outcome::Failed));
    }

    /// All calls, and those that failed.
    fn totals(&mut self, length: Duration, now: Instant) -> (u32, u32) {
        self.move_on(length, now);
        self.buckets.iter().fold((0, 0), |(calls, failed), bucket| {
            (bucket.calls.saturating_add(calls), bucket.failed.saturating_add(failed))
        })
    }

    fn move_on(&mut self, length: Duration, now: Instant) {
        let width = length / TENTHS;
        if now.saturating_duration_since(self.since) >= length + width {
            *self = Self::new(now);
            return;
        }
        while now.saturating_duration_since(self.since) >= width {
            self.since += width;
            self.current = (self.current + 1) % BUCKETS;
            self.buckets[self.current] = Bucket::default();
        }
    }
}

/// What is told of a change, once.
enum Change {
    Opened { calls: u32, failed: u32, open_for: Duration },
    StaysOpen { open_for: Duration },
    Closed,
}

impl Change {
    fn log(&self, name: &'static str, settings: &Settings) {
        match self {
            Self::Opened { calls, failed, open_for } => tracing::warn!(
                upstream = name,
                "the breaker of {name} opens for {open_for:.1?}: {failed} of {calls} calls failed or were slow within {:?}",
                settings.window
            ),
            Self::StaysOpen { open_for } => tracing::warn!(
                upstream = name,
                "the breaker of {name} stays open for another {open_for:.1?}: the probe failed"
            ),
            Self::Closed => tracing::info!(
                upstream = name,
                "the breaker of {name} closes: {} probes succeeded",
                settings.closes_after
            ),
        }
    }
}
