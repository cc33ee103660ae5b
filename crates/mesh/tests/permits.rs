//! The breaker's permits under every order of threads that there is (`loom`): the breaker itself, with other locks.

#[allow(dead_code, reason = "the test asks for less than a channel does")]
#[path = "../src/client/breaker.rs"]
pub mod breaker;

/// What the breaker takes from the module around it.
mod sync {
    pub(super) use loom::sync::Mutex;
}

use breaker::{Breaker, Outcome, Permit, Settings, Stage};
use loom::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};
use std::time::Duration;
use tokio::time::Instant;

const SETTINGS: Settings = Settings {
    enabled: true,
    window: Duration::from_secs(10),
    calls: 1,
    failed_percent: 50,
    slow_percent: 80,
    open_for: Duration::from_secs(1),
    open_at_most: Duration::from_secs(30),
    closes_after: 2,
};

/// Of a thread, in bytes.
const STACK: usize = 256 * 1024;

/// A breaker with a probe due, and who probes. Leaked, so that threads may hold its permits.
struct Bench {
    breaker: Breaker,
    due: Instant,
    probing: AtomicUsize,
}

impl Bench {
    /// Beside it a permit of the time before it opened.
    fn open(now: Instant) -> (&'static Self, Permit<'static>) {
        let due = now + Duration::from_secs(2);
        let breaker = Breaker::new("a service", now);
        let bench = Box::leak(Box::new(Self { breaker, due, probing: AtomicUsize::new(0) }));
        let [old, failed] = [(); 2].map(|()| bench.breaker.enter(&SETTINGS, now));
        failed.expect("it is closed").settle(Outcome::Failed, &SETTINGS, now);
        assert!(bench.breaker.refuses(&SETTINGS, now));
        (bench, old.expect("it is closed"))
    }

    /// Probes if it may; no outcome is a caller who hangs up.
    fn probe(&self, outcome: Option<Outcome>) {
        let Ok(permit) = self.breaker.enter(&SETTINGS, self.due) else { return };
        assert_eq!(self.probing.fetch_add(1, SeqCst), 0, "one at a time");
        self.probing.fetch_sub(1, SeqCst);
        match outcome {
            Some(outcome) => permit.settle(outcome, &SETTINGS, self.due),
            None => drop(permit),
        }
    }

    fn stage(&self) -> Stage {
        self.breaker.snapshot(&SETTINGS, self.due).stage
    }

    /// Two more probes are admitted, and close it.
    fn closes(&self) {
        for _probe in 0..SETTINGS.closes_after {
            assert!(!self.breaker.refuses(&SETTINGS, self.due), "a permit leaked");
            self.probe(Some(Outcome::Well));
        }
        assert_eq!(self.stage(), Stage::Closed);
    }
}

/// Runs it under every order of threads.
fn always(run: impl Fn(Instant) + Sync + Send + Copy + 'static) {
    // loom wants the same to happen each time
    let now = Instant::now();
    loom::model(move || {
        // loom's own first thread has a stack of 32 KiB, which the seeding of a random number overflows
        let roomy = thread::Builder::new().stack_size(STACK).spawn(move || run(now));
        roomy.expect("there is room").join().expect("it does not panic");
    });
}

/// What another thread does.
fn spawn(work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::Builder::new().stack_size(STACK).spawn(work).expect("there is room")
}

#[test]
fn callers_who_hang_up_leave_no_permit_behind() {
    always(|now| {
        let (bench, _old) = Bench::open(now);
        let others = [(); 2].map(|()| spawn(move || bench.probe(None)));
        bench.probe(None);
        for other in others {
            other.join().expect("it does not panic");
        }
        bench.closes();
    });
}

#[test]
fn who_was_admitted_before_frees_no_probe_of_now() {
    always(|now| {
        let (bench, old) = Bench::open(now);
        let hangs_up = spawn(move || drop(old));
        let other = spawn(move || bench.probe(None));
        bench.probe(None);
        hangs_up.join().expect("it does not panic");
        other.join().expect("it does not panic");
        bench.closes();
    });
}

#[test]
fn a_failed_probe_opens_it_whatever_the_others_say() {
    always(|now| {
        let (bench, old) = Bench::open(now);
        let late = spawn(move || old.settle(Outcome::Well, &SETTINGS, now));
        let well = spawn(move || bench.probe(Some(Outcome::Well)));
        bench.probe(Some(Outcome::Failed));
        late.join().expect("it does not panic");
        well.join().expect("it does not panic");
        // the failed one came first, in between, or was refused because the other was under way
        let state = bench.breaker.snapshot(&SETTINGS, bench.due);
        assert!(matches!(state.stage, Stage::Open | Stage::HalfOpen), "{state:?}");
        assert_eq!(state.opened, 1);
    });
}
