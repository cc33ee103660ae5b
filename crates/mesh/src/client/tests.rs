//! The breaker's edges, in paused time. Not at its foot: `tests/permits.rs` includes it with other locks.

use super::breaker::{Breaker, Outcome, Permit, Settings, Stage};
use std::time::Duration;
use tokio::time::{Instant, advance};

const MS: Duration = Duration::from_millis(1);

struct Bench {
    breaker: Breaker,
    settings: Settings,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self { breaker: Breaker::new("a service", Instant::now()), settings }
    }

    fn enter(&self) -> Option<Permit<'_>> {
        self.breaker.enter(&self.settings, Instant::now()).ok()
    }

    fn settle(&self, permit: Permit<'_>, outcome: Outcome) {
        permit.settle(outcome, &self.settings, Instant::now());
    }

    /// Makes so many calls; all are admitted.
    fn calls(&self, count: usize, outcome: Outcome) {
        for _call in 0..count {
            let permit = self.enter().expect("it is admitted");
            self.settle(permit, outcome);
        }
    }

    fn stage(&self) -> Stage {
        self.breaker.snapshot(&self.settings, Instant::now()).stage
    }

    fn opened(&self) -> u64 {
        self.breaker.snapshot(&self.settings, Instant::now()).opened
    }

    fn refuses(&self) -> bool {
        self.breaker.refuses(&self.settings, Instant::now())
    }

    /// Opens it, and lets the time pass until a probe is due.
    async fn wait_for_probe(&self) {
        self.calls(20, Outcome::Failed);
        advance(self.settings.open_for.mul_f64(1.2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_few_failures_do_not_open_it() {
    let bench = Bench::new();
    bench.calls(19, Outcome::Failed);
    assert_eq!((bench.stage(), bench.refuses()), (Stage::Closed, false));
    bench.calls(1, Outcome::Failed);
    assert_eq!((bench.stage(), bench.refuses()), (Stage::Open, true));
    assert!(bench.enter().is_none());
}

#[tokio::test(start_paused = true)]
async fn it_opens_when_half_of_the_calls_fail() {
    let bench = Bench::new();
    bench.calls(11, Outcome::Well);
    bench.calls(10, Outcome::Failed);
    assert_eq!(bench.stage(), Stage::Closed, "10 of 21");
    bench.calls(1, Outcome::Failed);
    assert_eq!(bench.stage(), Stage::Open, "11 of 22");
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_window_does_not_count() {
    for (seconds, stage) in [(9, Stage::Open), (11, Stage::Closed), (3_600, Stage::Closed)] {
        let bench = Bench::new();
        bench.calls(19, Outcome::Failed);
        advance(Duration::from_secs(seconds)).await;
        bench.calls(1, Outcome::Failed);
        assert_eq!(bench.stage(), stage, "after {seconds} s");
    }
    let bench = Bench::new();
    for _second in 0..60 {
        // 19 within any window
        bench.calls(1, Outcome::Failed);
        advance(Duration::from_millis(600)).await;
        assert_eq!(bench.stage(), Stage::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn it_stays_open_longer_each_time_a_probe_fails() {
    let bench = Bench::new();
    bench.calls(20, Outcome::Failed);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let open = Duration::from_secs(seconds);
        advance(open - MS).await;
        assert!(bench.refuses() && bench.enter().is_none(), "within {seconds} s");
        advance(open.mul_f64(0.2) + MS).await;
        assert!(!bench.refuses(), "a probe is due after {seconds} s");
        bench.calls(1, Outcome::Failed);
        assert_eq!(bench.stage(), Stage::Open);
    }
    assert_eq!(bench.opened(), 1, "all that is one time");
}

#[tokio::test(start_paused = true)]
async fn one_probe_at_a_time_and_three_close_it() {
    let bench = Bench::new();
    bench.wait_for_probe().await;
    for _probe in 0..3 {
        assert!(!bench.refuses());
        let probe = bench.enter().expect("one is admitted");
        assert_eq!(bench.stage(), Stage::HalfOpen);
        assert!(bench.refuses() && bench.enter().is_none(), "and no second");
        bench.settle(probe, Outcome::Well);
    }
    assert_eq!(bench.stage(), Stage::Closed);
    bench.calls(19, Outcome::Failed);
    assert_eq!(bench.stage(), Stage::Closed, "what was before is forgotten");
    bench.calls(1, Outcome::Failed);
    assert_eq!((bench.stage(), bench.opened()), (Stage::Open, 2));
    advance(Duration::from_secs(1) - MS).await;
    assert!(bench.refuses());
    advance(Duration::from_millis(201)).await;
    assert!(!bench.refuses(), "it begins with a second again");
}

#[tokio::test(start_paused = true)]
async fn probes_must_succeed_in_a_row() {
    let bench = Bench::new();
    bench.wait_for_probe().await;
    bench.calls(2, Outcome::Well);
    bench.calls(1, Outcome::Failed);
    assert_eq!(bench.stage(), Stage::Open);
    advance(Duration::from_millis(2_400)).await;
    bench.calls(2, Outcome::Well);
    assert_eq!(bench.stage(), Stage::HalfOpen);
    bench.calls(1, Outcome::Well);
    assert_eq!(bench.stage(), Stage::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_gives_its_permit_back() {
    let bench = Bench::new();
    bench.wait_for_probe().await;
    for _hang_up in 0..5 {
        drop(bench.enter().expect("a probe is due"));
    }
    bench.calls(3, Outcome::Well);
    assert_eq!(bench.stage(), Stage::Closed);
}

#[tokio::test(start_paused = true)]
async fn who_was_admitted_before_tells_nothing_about_now() {
    let bench = Bench::new();
    let [failed, well, dropped, later] = [(); 4].map(|()| bench.enter().expect("it is closed"));
    bench.wait_for_probe().await;
    bench.settle(well, Outcome::Well);
    assert_eq!(bench.stage(), Stage::Open);
    let probe = bench.enter().expect("a probe is due");
    bench.settle(failed, Outcome::Failed);
    drop(dropped);
    assert!(bench.enter().is_none(), "the probe is still under way");
    bench.settle(probe, Outcome::Well);
    bench.calls(2, Outcome::Well);
    assert_eq!(bench.stage(), Stage::Closed);
    bench.calls(19, Outcome::Failed);
    bench.settle(later, Outcome::Failed);
    assert_eq!(bench.stage(), Stage::Closed, "it was of another time");
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_admits_everything() {
    let off = Settings { enabled: false, ..Settings::default() };
    let mut bench = Bench::with(off);
    bench.calls(100, Outcome::Failed);
    bench.settings.enabled = true;
    assert_eq!(bench.stage(), Stage::Closed, "nothing was counted");
    bench.calls(20, Outcome::Failed);
    assert!(bench.refuses());
    bench.settings.enabled = false;
    assert!(!bench.refuses(), "it is switched off as soon as somebody says so");
    bench.calls(1, Outcome::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_says_nothing_is_not_counted() {
    let bench = Bench::new();
    bench.calls(19, Outcome::Failed);
    for _hang_up in 0..100 {
        drop(bench.enter().expect("it is closed"));
    }
    let state = bench.breaker.snapshot(&bench.settings, Instant::now());
    assert_eq!((state.stage, state.calls, state.failed), (Stage::Closed, 19, 19));
}
