//! The retry budget: of a service that is failing nobody asks much more than of one that is well. Retries are paid for by
//! calls, and a few by the time that passes. (gRFC A6's throttling, Finagle's `RetryBudget`.)

use super::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// In thousandths, so that a tenth of a retry is a whole number.
const RETRY: u64 = 1_000;
/// What can be saved up: the calls that one connection carries fit in, all of which may fail at once when it breaks.
const MOST: u64 = 128 * RETRY;
/// A process that has just started may retry a little, too.
const FIRST: u64 = 10 * RETRY;

/// How many retries there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// For each hundred calls.
    pub(crate) percent: u32,
    /// Each second, whether or not there are calls: for services that are seldom called.
    pub(crate) per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        // what a service that runs at 90 % of its capacity can still carry
        Self { percent: 10, per_second: 1 }
    }
}

/// The budget of one upstream.
pub(crate) struct Budget(Mutex<State>);

struct State {
    /// In thousandths of a retry.
    saved: u64,
    /// Up to when time has paid.
    paid: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { saved: FIRST, paid: now }))
    }

    /// A call pays its share.
    pub(crate) fn deposit(&self, settings: &Settings) {
        let mut state = self.0.lock().expect("no panic while locked");
        state.saved = (state.saved + u64::from(settings.percent) * RETRY / 100).min(MOST);
    }

    /// Whether there may be a retry; if so, it is paid.
    pub(crate) fn withdraw(&self, settings: &Settings, now: Instant) -> bool {
        let mut state = self.0.lock().expect("no panic while locked");
        state.pass(settings, now);
        let rest = state.saved.checked_sub(RETRY);
        state.saved = rest.unwrap_or(state.saved);
        rest.is_some()
    }

    /// How many retries there may be now.
    pub(crate) fn left(&self, settings: &Settings, now: Instant) -> u64 {
        let mut state = self.0.lock().expect("no panic while locked");
        state.pass(settings, now);
        state.saved / RETRY
    }
}

impl State {
    fn pass(&mut self, settings: &Settings, now: Instant) {
        // by whole milliseconds: what is left of one is paid the next time
        let passed = now.saturating_duration_since(self.paid).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.paid += Duration::from_millis(passed);
        let paid = passed.saturating_mul(u64::from(settings.per_second));
        self.saved = self.saved.saturating_add(paid).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(budget: &Budget, settings: &Settings) -> usize {
        let now = Instant::now();
        (0..1_000).take_while(|_| budget.withdraw(settings, now)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_tenth_of_the_calls() {
        let (budget, settings) = (Budget::new(Instant::now()), Settings::default());
        assert_eq!(spend(&budget, &settings), 10, "a process begins with a few");
        for _call in 0..9 {
            budget.deposit(&settings);
        }
        assert_eq!(spend(&budget, &settings), 0, "nine calls are not ten");
        budget.deposit(&settings);
        assert_eq!(spend(&budget, &settings), 1);
        for _call in 0..100_000 {
            budget.deposit(&settings);
        }
        assert_eq!(budget.left(&settings, Instant::now()), 128);
        assert_eq!(spend(&budget, &settings), 128, "more is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn time_pays_one_a_second() {
        let (budget, settings) = (Budget::new(Instant::now()), Settings::default());
        spend(&budget, &settings);
        for _half in 0..2 {
            assert_eq!(spend(&budget, &settings), 0);
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert_eq!(spend(&budget, &settings), 1, "halves add up");
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(spend(&budget, &settings), 128, "an hour does not pay for a storm");
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_may_be_nothing() {
        let (budget, none) = (Budget::new(Instant::now()), Settings { percent: 0, per_second: 0 });
        spend(&budget, &none);
        for _call in 0..1_000 {
            budget.deposit(&none);
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(spend(&budget, &none), 0);
    }
}
