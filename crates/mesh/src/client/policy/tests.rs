//! Files of policies, good and bad.

use super::{file::Limits, *};

/// `Bill.Send` may be sent twice, `Bill.Watch` streams, nothing is known of `Bill.Print`.
fn methods() -> Arc<Methods> {
    let methods = [
        ("/test.v1.Bill/Print", Facts { idempotent: false, shape: Shape::Unary }),
        ("/test.v1.Bill/Send", Facts { idempotent: true, shape: Shape::Unary }),
        ("/test.v1.Bill/Watch", Facts { idempotent: true, shape: Shape::Stream }),
    ];
    Arc::new(Methods::of("test.v1.Bill", methods))
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn the_documented_file_says_what_holds_without_one() {
    let said = include_str!("policies.toml");
    let file = File::parse(said).expect("it is valid");
    let section = &file.0["billing"];
    assert_eq!(section.breaker, breaker::Settings::default());
    assert_eq!(section.budget, budget::Settings::default());
    let limits = Limits {
        timeout: Some(TIMEOUT),
        attempt_timeout: Some(ATTEMPT_TIMEOUT),
        attempts: Some(ATTEMPTS),
    };
    assert_eq!((section.limits, section.methods["Charge"]), (limits, limits));
}

#[test]
fn what_a_file_says_is_in_force_and_nothing_else_changes() {
    let policies = Policies::default();
    let rules = policies.rules("bills", methods()).expect("nothing is said");
    let other = policies.rules("letters", methods()).expect("nothing is said");
    let before = other.borrow().clone();
    policies
        .take("[bills]\ntimeout = '4s'\nbreaker.calls = 7\n[bills.methods.Send]\nattempt_timeout = '1s'\nattempts = 2")
        .expect("it is valid");
    let now = rules.borrow().clone();
    let of = |method: &str| *now.method(&format!("/test.v1.Bill/{method}"));
    let Method { facts, timeout, attempt_timeout, attempts } = of("Send");
    assert_eq!((facts.idempotent, facts.shape), (true, Shape::Unary));
    assert_eq!((timeout, attempt_timeout, attempts), (seconds(4), seconds(1), 2));
    let print = of("Print");
    assert_eq!((print.timeout, print.attempt_timeout), (seconds(4), Some(ATTEMPT_TIMEOUT)));
    assert_eq!((print.attempts, now.breaker.calls), (ATTEMPTS, 7));
    assert_eq!(of("Nothing").facts, Facts::UNKNOWN);
    assert!(Arc::ptr_eq(&before, &other.borrow()) || before.breaker == other.borrow().breaker);
    policies.take("").expect("an empty file is valid");
    assert_eq!(rules.borrow().method("/test.v1.Bill/Send").timeout, Some(TIMEOUT));
}

#[test]
fn an_invalid_file_changes_nothing_and_says_where_it_is_wrong() {
    let policies = Policies::default();
    let rules = policies.rules("bills", methods()).expect("nothing is said");
    policies.take("bills.timeout = '4s'").expect("it is valid");
    for (text, parts) in [
        ("[bills", &["line 1"][..]),
        ("\n\nbills = 3", &["bills"]),
        ("bills.timeot = '1s'", &["bills", "timeot", "attempt_timeout"]),
        ("bills.timeout = 3", &["bills", "integer"]),
        ("bills.timeout = 'soon'", &["bills", "soon", "250ms"]),
        ("bills.timeout = '1ms'", &["bills.timeout", "1ms", "10ms"]),
        ("bills.timeout = '2h'", &["bills.timeout"]),
        ("bills.attempts = 0", &["bills.attempts", "1 to 5"]),
        ("bills.attempts = 6", &["bills.attempts", "1 to 5"]),
        ("bills.attempts = -1", &["bills"]),
        ("[bills]\ntimeout = '1s'\nattempt_timeout = '2s'", &["bills.attempt_timeout is longer"]),
        ("bills.attempt_timeout = '11s'", &["bills.attempt_timeout is longer", "10s"]),
        (
            "[bills]\ntimeout = '1s'\nmethods.Send.attempt_timeout = '2s'",
            &["bills.methods.Send.attempt_timeout is longer"],
        ),
        ("bills.breaker.failed_percent = 0", &["bills.breaker.failed_percent", "1 to 100"]),
        ("bills.breaker.failed_percent = 101", &["bills.breaker.failed_percent"]),
        ("bills.breaker.window = '100ms'", &["bills.breaker.window", "1s"]),
        ("bills.breaker.on = true", &["bills.breaker", "`on`"]),
        ("bills.breaker.open_at_most = '500ms'", &["bills.breaker.open_for is longer"]),
        ("bills.budget.percent = 200", &["bills.budget.percent"]),
        ("bills.budget = 3", &["bills.budget"]),
        ("bills.methods.Send.breaker.calls = 3", &["bills.methods.Send", "`breaker`"]),
        ("bills.methods.Sned.attempts = 2", &["bills.methods.Sned", "test.v1.Bill"]),
    ] {
        let error = format!("{:#}", policies.take(text).expect_err(text));
        for part in parts {
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(rules.borrow().method("/test.v1.Bill/Send").timeout, seconds(4), "{text}");
    }
}

#[test]
fn an_attempt_has_no_more_time_than_its_call() {
    let policies = Policies::default();
    let rules = policies.rules("bills", methods()).expect("nothing is said");
    let attempt = |method: &str| rules.borrow().method(method).attempt_timeout;
    policies.take("bills.timeout = '1s'\nbills.methods.Send.timeout = '500ms'").expect("valid");
    assert_eq!(attempt("/test.v1.Bill/Print"), seconds(1));
    assert_eq!(attempt("/test.v1.Bill/Send"), Some(Duration::from_millis(500)));
    assert_eq!(attempt("/test.v1.Bill/Nothing"), seconds(1));
}

#[test]
fn an_upstream_that_comes_later_is_checked_too() {
    let policies = Policies::default();
    policies.take("bills.methods.Sned.attempts = 2").expect("nobody knows that upstream");
    let error = policies.rules("bills", methods()).expect_err("it has no such method");
    assert!(format!("{error:#}").contains("bills.methods.Sned"), "{error:#}");
}
