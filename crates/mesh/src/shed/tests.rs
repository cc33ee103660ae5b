//! More calls than a service can answer, on a clock that jumps ahead whenever all wait for it.

use super::*;
use crate::Deadlines;
use chassis::Host;
use http_body_util::StreamBody;
use std::{convert::Infallible, future::pending};
use tokio::{sync::Semaphore, time::timeout};
use tonic::Status;
use tonic_types::StatusExt as _;
use tower::service_fn;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const WORK: &str = "/test.v1.Kitchen/Work";
const CANCEL: &str = "/test.v1.Kitchen/Cancel";

async fn wait(time: Duration) {
    let _passed = timeout(time, pending::<()>()).await;
}

/// A service that does so much at once, and for how long each takes.
#[derive(Clone)]
struct Kitchen {
    shed: Shed,
    cooks: Arc<Semaphore>,
    each: Duration,
    /// How long a caller waits.
    patience: Duration,
    host: Host,
    answers: Arc<Mutex<Vec<Answered>>>,
}

#[derive(Clone, Copy)]
struct Answered {
    at: Instant,
    took: Duration,
    well: bool,
}

impl Kitchen {
    fn new(cooks: usize, each: Duration) -> Self {
        let limits = Deadlines::paths(SECOND * 4, [WORK, CANCEL]);
        let methods = limits.into_iter().map(|(path, limits)| {
            let first = path == CANCEL;
            (path, Method { first, ..Method::new(limits) })
        });
        let methods = Arc::new(methods.collect());
        let shed = Shed { domain: "example.org", load: Arc::default(), methods };
        let cooks = Arc::new(Semaphore::new(cooks));
        let (host, patience) = (Host::new(), SECOND * 60);
        Self { shed, cooks, each, patience, host, answers: Arc::default() }
    }

    /// Through the gate and the count, as around a service.
    async fn call(&self, path: &'static str, body: Body) -> Response<Body> {
        let (shed, cooks, each) = (self.shed.clone(), self.cooks.clone(), self.each);
        let work = service_fn(move |_| {
            let cooks = cooks.clone();
            async move {
                let _cook = cooks.acquire().await.expect("they do not go home");
                wait(each).await;
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let worked_on = service_fn(move |request| {
            let (shed, work) = (shed.clone(), work.clone());
            async move { Ok::<_, Infallible>(shed.around(request, work).await) }
        });
        let request = Request::post(path).body(body).expect("it is a request");
        Gate(self.shed.clone()).around(request, worked_on).await
    }

    /// A caller of its own.
    fn send(&self, path: &'static str) {
        let kitchen = self.clone();
        self.host.track(async move {
            let begun = Instant::now();
            let answer = timeout(kitchen.patience, kitchen.call(path, Body::empty())).await;
            let Ok(answer) = answer else { return };
            let (at, took) = (Instant::now(), begun.elapsed());
            let well = End::of(&answer) == End::Answered;
            kitchen.answers.lock().expect("no panic").push(Answered { at, took, well });
        });
    }

    /// So many callers come each second, however long they wait; then the answers of that time.
    async fn rush(&self, each_second: usize, time: Duration) -> Vec<Answered> {
        let since = Instant::now();
        for tick in 1.. {
            if since.elapsed() >= time {
                break;
            }
            let due = each_second * tick / 100 - each_second * (tick - 1) / 100;
            (0..due).for_each(|_| self.send(WORK));
            wait(MILLI * 10).await;
        }
        let answers = self.answers.lock().expect("no panic");
        answers.iter().filter(|answer| answer.at >= since).copied().collect()
    }

    fn limit(&self) -> usize {
        self.shed.load.state().limit
    }
}

fn refused(answers: &[Answered]) -> usize {
    answers.iter().filter(|answer| !answer.well).count()
}

#[tokio::test(start_paused = true)]
async fn three_times_too_many_cost_no_answers_and_are_forgotten_at_once() {
    let kitchen = Kitchen::new(16, MILLI * 10); // 1,600 a second
    let usual = kitchen.rush(800, SECOND * 2).await;
    assert_eq!(refused(&usual), 0);
    let rush = kitchen.rush(4_800, SECOND * 5).await;
    let well: Vec<_> = rush.iter().filter(|answer| answer.well).collect();
    assert!(well.len() >= 1_600 * 5 * 9 / 10, "{}", well.len());
    let longest = well.iter().map(|answer| answer.took).max();
    assert!(longest < Some(MILLI * 500), "nobody waits for long: {longest:?}");
    let refusals = rush.iter().filter(|answer| !answer.well);
    assert!(refusals.clone().count() > 1_600 * 5, "{}", refusals.count());
    assert!(refusals.clone().all(|answer| answer.took.is_zero()), "and is told so at once");
    wait(SECOND).await;
    let after = kitchen.rush(800, SECOND * 2).await;
    assert_eq!(refused(&after), 0);
    assert!(after.iter().all(|answer| answer.took < MILLI * 50));
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_without_a_queue_is_not_shed() {
    let kitchen = Kitchen::new(Semaphore::MAX_PERMITS, MILLI * 500);
    assert_eq!(refused(&kitchen.rush(200, SECOND * 3).await), 0, "100 at once");
    let grows = kitchen.rush(1_500, SECOND * 20).await;
    assert!(refused(&grows) < grows.len() / 4, "{} of {}", refused(&grows), grows.len());
    assert_eq!(refused(&kitchen.rush(1_500, SECOND * 5).await), 0, "750 at once");
    assert!(kitchen.limit() <= MOST);
}

#[tokio::test(start_paused = true)]
async fn when_a_service_becomes_slow_for_good_its_limit_comes_back() {
    let mut kitchen = Kitchen::new(Semaphore::MAX_PERMITS, MILLI * 100);
    assert_eq!(refused(&kitchen.rush(1_000, SECOND * 3).await), 0);
    kitchen.each = SECOND;
    kitchen.rush(400, SECOND * 40).await;
    let used = kitchen.rush(400, SECOND * 40).await;
    assert_eq!(refused(&used[used.len() / 2..]), 0, "it is usual by now: {}", kitchen.limit());
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_callers_all_give_up_soon_is_seen_to_be_too_slow() {
    let mut kitchen = Kitchen::new(Semaphore::MAX_PERMITS, MILLI * 500);
    assert_eq!(refused(&kitchen.rush(200, SECOND * 3).await), 0);
    kitchen.cooks = Arc::new(Semaphore::new(8));
    kitchen.patience = MILLI * 600;
    kitchen.rush(800, SECOND * 5).await;
    assert!(kitchen.limit() < START / 2, "{}", kitchen.limit());
}

#[tokio::test(start_paused = true)]
async fn few_calls_are_taken_however_slow_they_are() {
    let kitchen = Kitchen::new(10, SECOND * 3);
    for _window in 0..50 {
        wait(WINDOW).await;
        (0..ENOUGH).for_each(|_| kitchen.shed.load.state().see(true, Instant::now()));
    }
    assert_eq!(kitchen.limit(), START, "no limit is to blame for few calls");
    for _window in 0..50 {
        wait(WINDOW).await;
        kitchen.shed.load.state().window.most = FLOOR + 1;
        (0..ENOUGH).for_each(|_| kitchen.shed.load.state().see(true, Instant::now()));
    }
    assert_eq!(kitchen.limit(), FLOOR);
    for _round in 0..5 {
        let callers = (0..FLOOR).map(|_| kitchen.call(WORK, Body::empty()));
        let answers = futures::future::join_all(callers).await;
        assert!(answers.iter().all(|answer| End::of(answer) == End::Answered));
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_first_is_taken_when_others_are_not() {
    let kitchen = Kitchen::new(0, MILLI);
    (0..START).for_each(|_| kitchen.send(WORK));
    wait(MILLI).await;
    // it has a body, which never comes
    let never = || {
        Body::new(StreamBody::new(futures::stream::pending::<
            Result<http_body::Frame<Bytes>, Infallible>,
        >()))
    };
    let begun = Instant::now();
    let answer = kitchen.call(WORK, never()).await;
    assert!(begun.elapsed() < REST * 2, "it is not waited for");
    let status = Status::from_header_map(answer.headers()).expect("it is refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(crate::reason(&status).as_deref(), Some("OVERLOADED"));
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(delay, Some(RETRY_AFTER));
    assert_eq!(answer.headers()["grpc-retry-pushback-ms"], "1000");
    (0..START / 4).for_each(|_| kitchen.send(CANCEL));
    wait(MILLI).await;
    assert!(kitchen.answers.lock().expect("no panic").is_empty(), "they are worked on");
    let last = kitchen.call(CANCEL, Body::empty()).await;
    assert_eq!(End::of(&last), End::Refused, "what is kept for them has an end, too");
}

#[test]
fn a_queue_is_told_from_what_is_usual() {
    let limits = Deadlines::paths(SECOND * 4, [WORK])[WORK];
    let method = Method::new(limits);
    assert_eq!(method.is_slow(SECOND, End::Answered), Some(false), "nothing is known yet");
    assert_eq!(method.is_slow(SECOND * 3, End::Answered), Some(true), "but that is too long");
    (0..100).for_each(|_| method.learn(MILLI * 20));
    for (took, end, slow) in [
        (MILLI * 280, End::Answered, Some(false)),
        (MILLI * 300, End::Answered, Some(true)),
        (MILLI * 90, End::GivenUp, None),
        (MILLI * 110, End::GivenUp, Some(true)),
        (SECOND * 3, End::Refused, None),
    ] {
        assert_eq!(method.is_slow(took, end), slow, "{took:?} {end:?}");
    }
    (0..200).for_each(|_| method.learn(SECOND));
    assert_eq!(method.is_slow(MILLI * 1_900, End::Answered), Some(false), "it is usual now");
    assert_eq!(method.is_slow(MILLI * 2_100, End::Answered), Some(true), "half of its deadline");
    (0..200).for_each(|_| method.learn(SECOND * 3));
    assert_eq!(method.is_slow(SECOND * 3, End::Answered), Some(false), "no queue is to blame");
}
