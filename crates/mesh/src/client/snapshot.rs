//! What a channel is doing, for operators.

use super::{breaker::BreakerState, endpoint::EndpointState};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How a channel is at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Of the upstream.
    pub name: &'static str,
    /// The full name of its service.
    pub service: &'static str,
    /// Where calls go.
    pub endpoints: Vec<EndpointState>,
    /// Whether calls go there.
    pub breaker: BreakerState,
    /// How many retries there may be now.
    pub budget: u64,
    /// What is in force for each method of the upstream's service.
    pub methods: Vec<MethodPolicy>,
    /// What was done since the process started.
    pub counts: Counts,
}

/// What is in force for a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodPolicy {
    /// Its name within the service.
    pub name: String,
    /// Whether a call may be made twice.
    pub idempotent: bool,
    /// What a call may take, all attempts together; none: as long as its caller says.
    pub timeout: Option<Duration>,
    /// What an attempt may take, until it begins to be answered if it is a stream's.
    pub attempt_timeout: Option<Duration>,
    /// How many there may be.
    pub attempts: u32,
}

/// What a channel has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that were asked for.
    pub calls: u64,
    /// Attempts that were made.
    pub attempts: u64,
    /// Those of them that were not the first.
    pub retries: u64,
    /// Attempts that the breaker refused.
    pub refused: u64,
    /// How often the breaker opened.
    pub opened: u64,
}

/// Counts as it goes.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) calls: AtomicU64,
    pub(super) attempts: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self, opened: u64) -> Counts {
        Counts {
            calls: self.calls.load(Relaxed),
            attempts: self.attempts.load(Relaxed),
            retries: self.retries.load(Relaxed),
            refused: self.refused.load(Relaxed),
            opened,
        }
    }
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
