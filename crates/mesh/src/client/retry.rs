//! Retries: what an answer says about a next attempt and about the health of the service, and when the next attempt is made.
//! (gRFC A6; back-off with full jitter: M. Brooker, *Exponential Backoff And Jitter*.)

use super::{
    USEFUL,
    attempt::{Answer, Call},
    budget::{self, Budget},
    not_sent,
    policy::Method,
};
use rand::Rng as _;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// As long as it is certain that nothing was sent, that is worth more to know than an attempt which this little time is left
/// for: it would most likely end in doubt.
const CERTAIN: Duration = Duration::from_millis(20);
/// The longest wait before the first retry; twice as long before the next.
const BACK_OFF: Duration = Duration::from_millis(10);
/// The shortest: a connection that is being closed is known to be so by then, and another one taken.
const LEAST: Duration = Duration::from_millis(5);

/// The reasons of a server that did not begin: it sheds load, or is stopping.
const NOT_BEGUN: [&str; 2] = ["OVERLOADED", "DRAINING"];

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) health: Health,
    pub(super) again: Again,
}

/// How the service is, as far as one answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It answers, be it with a refusal.
    Well,
    Failing,
    /// It did not answer in the time it was given; that may have been too little.
    Late,
    /// The answer says nothing about it.
    Unsaid,
}

/// Whether the same may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It would be answered the same, or who answers says no.
    No,
    /// If the method allows it: the last time may have had its effect.
    IfIdempotent,
    /// And who answers says when.
    IfIdempotentAfter(Duration),
    /// Nothing of it was sent.
    Yes,
    /// Who answers says so, and when: it has not begun.
    After(Duration),
}

/// What an answer says. The table of retries is this function.
pub(super) fn judge(answer: &Answer) -> Verdict {
    let (health, again) = match (&answer.result, &answer.refusal) {
        (Err(status), _) => transport(status),
        (Ok(_), Some(status)) => told(status),
        (Ok(_), None) => (Health::Well, Again::No),
    };
    Verdict { health, again }
}

/// A status that the transport made: nobody answered.
fn transport(status: &Status) -> (Health, Again) {
    match status.code() {
        Code::Unavailable if not_sent(status) => (Health::Failing, Again::Yes),
        Code::DeadlineExceeded if not_sent(status) => (Health::Late, Again::Yes),
        Code::DeadlineExceeded => (Health::Late, Again::IfIdempotent),
        // ours: an answer came, and is larger than what is read
        Code::OutOfRange => (Health::Well, Again::No),
        // the last two are what a call comes to that a GOAWAY overtakes
        Code::Unavailable | Code::Cancelled | Code::Internal => {
            (Health::Failing, Again::IfIdempotent)
        }
        _ => (Health::Failing, Again::No),
    }
}

/// A status that somebody answered with: the service, or a proxy before it.
fn told(status: &Status) -> (Health, Again) {
    let reason = crate::reason(status);
    let reason = reason.as_deref();
    let again = pushback(status, reason).unwrap_or(match (status.code(), reason) {
        // the attempt's own time was over, and its server knew first
        (Code::DeadlineExceeded, Some("DEADLINE"))
        // no service of ours leaves the reason out
        | (Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled, None) => Again::IfIdempotent,
        _ => Again::No,
    });
    let health = match (status.code(), reason) {
        // who sheds what is too much, or goes, does the rest: a breaker that opened then would make an outage of an overload
        (_, Some(reason)) if NOT_BEGUN.contains(&reason) => Health::Unsaid,
        // a quota, or a proxy's: of what is too large, our services say so
        (Code::ResourceExhausted, None) => Health::Unsaid,
        (Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss, _) => Health::Failing,
        // tonic's servers say CANCELLED when the time is over that they were given
        (Code::DeadlineExceeded, _) | (Code::Cancelled, None) => Health::Late,
        _ => Health::Well,
    };
    (health, again)
}

/// What who answers says about a retry: `grpc-retry-pushback-ms` to meshes, or else `RetryInfo` to everybody. That says when,
/// and only some reasons say that the first time had no effect.
fn pushback(status: &Status, reason: Option<&str>) -> Option<Again> {
    if let Some(value) = status.metadata().get("grpc-retry-pushback-ms") {
        // a negative number means no, and so does what is no number (gRFC A6)
        let millis = value.to_str().ok().and_then(|value| value.parse().ok());
        return Some(
            millis.map_or(Again::No, |millis| Again::After(Duration::from_millis(millis))),
        );
    }
    let delay = status.get_details_retry_info()?.retry_delay?;
    let not_begun = reason.is_some_and(|reason| NOT_BEGUN.contains(&reason));
    Some(if not_begun { Again::After(delay) } else { Again::IfIdempotentAfter(delay) })
}

/// The attempts of a call.
pub(super) struct Retry<'a> {
    method: &'a Method,
    budget: (&'a Budget, &'a budget::Settings),
    made: u32,
    /// What is answered in the end: of the last attempt that may have been sent, or else of the last.
    answer: Option<Answer>,
    /// Whether that attempt may have been sent.
    sent: bool,
}

impl<'a> Retry<'a> {
    pub(super) fn new(
        method: &'a Method,
        budget: &'a Budget,
        settings: &'a budget::Settings,
    ) -> Self {
        Self { method, budget: (budget, settings), made: 0, answer: None, sent: false }
    }

    /// How many attempts came before.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Takes an attempt's answer. Says how long to wait before the next attempt, if there is to be one.
    pub(super) fn take(&mut self, answer: Answer, again: Again, call: &Call) -> Option<Duration> {
        self.made += 1;
        let sent = !answer.result.as_ref().is_err_and(not_sent);
        if sent || !self.sent {
            (self.answer, self.sent) = (Some(answer), sent);
        }
        let wait = match again {
            Again::No => return None,
            Again::IfIdempotent | Again::IfIdempotentAfter(_) if !self.method.facts.idempotent => {
                return None;
            }
            Again::IfIdempotent | Again::Yes => back_off(self.made),
            Again::After(time) | Again::IfIdempotentAfter(time) => spread(time),
        };
        let needs = if self.sent { USEFUL } else { CERTAIN };
        let (budget, settings) = self.budget;
        let worth = self.made < self.method.attempts
            && call.repeats()
            // what cannot be answered in time any more is not waited for
            && wait.saturating_add(needs) <= call.left()
            && budget.withdraw(settings, Instant::now());
        worth.then_some(wait)
    }

    /// What the caller is told: `otherwise` when there was no attempt.
    pub(super) fn end(self, otherwise: impl FnOnce() -> Status) -> super::Answered {
        self.answer.map_or_else(|| Err(otherwise()), |answer| answer.result)
    }
}

/// Between 5 ms and 10 ms · 2ⁿ⁻¹ after so many attempts.
fn back_off(made: u32) -> Duration {
    let most = BACK_OFF.saturating_mul(2_u32.saturating_pow(made.saturating_sub(1)));
    rand::rng().random_range(LEAST..=most)
}

/// Up to a tenth longer: those who were told the same do not come back together.
fn spread(time: Duration) -> Duration {
    time.saturating_add((time / 10).mul_f64(rand::rng().random_range(0.0..1.0)))
}

/// Lets the time before a retry pass.
#[allow(clippy::disallowed_methods, reason = "the mesh's one place to wait for time")]
pub(super) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

#[cfg(test)]
mod tests {
    use super::super::failure::{expired, unsent};
    use super::super::policy::{Facts, Shape};
    use super::*;
    use crate::Problem;
    use http::{Request, Response};
    use tonic::body::Body;

    fn came(result: super::super::Answered, refusal: Option<Status>) -> Verdict {
        judge(&Answer { result, refusal, took: Duration::ZERO, telling: true })
    }

    fn answered(status: impl Into<Status>) -> (Health, Again) {
        let verdict = came(Ok(Response::new(Body::empty())), Some(status.into()));
        (verdict.health, verdict.again)
    }

    fn made(status: Status) -> (Health, Again) {
        let verdict = came(Err(status), None);
        (verdict.health, verdict.again)
    }

    fn ours(code: Code, reason: &'static str) -> Problem {
        Problem::new("example.org", code, reason, "for some reason")
    }

    #[test]
    fn what_the_transport_made_is_retried_if_the_method_allows_it() {
        for code in [Code::Unavailable, Code::Cancelled, Code::Internal] {
            let told = made(Status::new(code, "a connection broke"));
            assert_eq!(told, (Health::Failing, Again::IfIdempotent), "{code}");
        }
        assert_eq!(made(expired()), (Health::Late, Again::IfIdempotent));
        assert_eq!(made(Status::resource_exhausted("calm")), (Health::Failing, Again::No));
        let large = made(Status::out_of_range("the answer is larger than 4 MiB"));
        assert_eq!(large, (Health::Well, Again::No), "somebody answered");
        let nothing = |status| unsent(status, None);
        let unreached = nothing(Status::unavailable("nobody is there"));
        assert_eq!(made(unreached), (Health::Failing, Again::Yes));
        assert_eq!(made(nothing(expired())), (Health::Late, Again::Yes));
    }

    #[test]
    fn what_a_service_says_is_retried_if_it_says_when() {
        let second = Duration::from_secs(1);
        let draining = answered(Problem::draining("example.org"));
        assert_eq!(draining, (Health::Unsaid, Again::After(second)));
        let overloaded = answered(Problem::overloaded("example.org", "too much"));
        assert_eq!(overloaded, (Health::Unsaid, Again::After(second)));
        for (code, reason, health) in [
            (Code::NotFound, "NOT_FOUND", Health::Well),
            (Code::Aborted, "REVISION_MISMATCH", Health::Well),
            (Code::FailedPrecondition, "VOIDED", Health::Well),
            (Code::ResourceExhausted, "ANSWER_TOO_LARGE", Health::Well),
            (Code::Internal, "INTERNAL", Health::Failing),
            (Code::Unavailable, "OUTCOME_UNKNOWN", Health::Failing),
        ] {
            assert_eq!(answered(ours(code, reason)), (health, Again::No), "{reason}");
        }
        let unstored = answered(Problem::unstored("example.org"));
        assert_eq!(unstored, (Health::Failing, Again::IfIdempotentAfter(second)), "is it undone?");
        let late = answered(ours(Code::DeadlineExceeded, "DEADLINE"));
        assert_eq!(late, (Health::Late, Again::IfIdempotent), "it knew before us");
    }

    #[test]
    fn a_pushback_is_stronger_than_all_else() {
        for (value, again) in [
            ("-1", Again::No),
            ("soon", Again::No),
            ("0", Again::After(Duration::ZERO)),
            ("20", Again::After(Duration::from_millis(20))),
        ] {
            for status in [
                Status::from(Problem::overloaded("example.org", "too much")),
                Status::unavailable("a proxy says so"),
                Status::not_found("it is not there"),
            ] {
                let mut status = status;
                let pushback = value.parse().expect("it is ASCII");
                status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
                assert_eq!(answered(status).1, again, "{value}");
            }
        }
    }

    #[test]
    fn a_proxy_has_no_reasons() {
        let away = answered(Status::unavailable("no healthy upstream"));
        assert_eq!(away, (Health::Failing, Again::IfIdempotent));
        assert_eq!(answered(Status::internal("a bug")), (Health::Failing, Again::No));
        assert_eq!(answered(Status::not_found("no")), (Health::Well, Again::No));
        let quota = answered(Status::resource_exhausted("too many requests"));
        assert_eq!(quota, (Health::Unsaid, Again::No));
        let late = answered(Status::cancelled("Timeout expired"));
        assert_eq!(late, (Health::Late, Again::IfIdempotent), "so says a server of tonic's");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_certainly_not_sent_is_not_put_in_doubt_at_the_last_moment() {
        let facts = Facts { idempotent: true, shape: Shape::Unary };
        let method = Method { facts, timeout: None, attempt_timeout: None, attempts: 3 };
        let (budget, settings) = (Budget::new(Instant::now()), budget::Settings::default());
        let away = || Status::unavailable("nobody is there");
        for (left, status, again, goes_on) in [
            ("24m", unsent(away(), None), Again::Yes, false),
            ("31m", unsent(away(), None), Again::Yes, true),
            ("9m", away(), Again::IfIdempotent, false),
            ("16m", away(), Again::IfIdempotent, true),
        ] {
            let request = Request::builder().header("grpc-timeout", left).body(Body::empty());
            let call = Call::read(request.expect("it is one"), &method).await.expect("it has time");
            let mut retry = Retry::new(&method, &budget, &settings);
            let (took, telling) = (Duration::ZERO, true);
            let answer = Answer { result: Err(status), refusal: None, took, telling };
            assert_eq!(retry.take(answer, again, &call).is_some(), goes_on, "{left} {again:?}");
        }
    }

    #[test]
    fn waits_grow_and_vary() {
        for (made, most_ms) in [(1, 10), (2, 20), (3, 40)] {
            let waits: Vec<_> = (0..200).map(|_| back_off(made)).collect();
            let most = Duration::from_millis(most_ms);
            assert!(waits.iter().all(|wait| (LEAST..=most).contains(wait)));
            assert!(waits.iter().any(|wait| *wait != waits[0]), "they do not come together");
        }
        let second = Duration::from_secs(1);
        assert!((second..second * 11 / 10).contains(&spread(second)));
    }
}
