//! What Order does while its breaker keeps it from Payment.

use crate::counter::{Counter, Refused, info, lattes, reason, retried};
use contract::{
    ops::v1::BreakerState,
    order::v1::{OrderState, PlaceOrderRequest},
};
use futures::future::join_all;
use std::collections::BTreeSet;
use tonic::Code;
use tonic_types::StatusExt as _;

/// How a bank is called that four calls are enough for to be left alone. A second is long for a call over loopback, on a busy
/// machine too.
fn policies(breaker: &str) -> String {
    let calls = "attempt_timeout = \"1s\"\nattempts = 1";
    format!("[payment]\n{calls}\n[payment.breaker]\ncalls = 4\nslow_percent = 100\n{breaker}\n")
}

const FOR_LONG: &str = "open_for = \"10m\"";
const SHORTLY: &str = "open_for = \"50ms\"\nopen_at_most = \"50ms\"";
const NEVER: &str = "enabled = false";

fn outcome_unknown() -> (Code, String) {
    (Code::Unavailable, "PAYMENT_OUTCOME_UNKNOWN".to_owned())
}

/// Places orders at a bank that stands still, until one is not even stored: those that were, and that one.
async fn until_open(counter: &Counter) -> (Vec<PlaceOrderRequest>, PlaceOrderRequest, Refused) {
    let mut stored = Vec::new();
    loop {
        let request = lattes("lee");
        let status = counter.place(request.clone()).await.expect_err("the bank stands still");
        if reason(&status) != outcome_unknown() {
            return (stored, request, status);
        }
        stored.push(request);
        assert!(stored.len() < 20, "it does not open");
    }
}

#[tokio::test]
async fn an_open_breaker_refuses_an_order_before_it_is_stored() {
    let counter = Counter::open_by(&policies(FOR_LONG), &[]).await;
    let before = lattes("kim");
    let paid = counter.place(before.clone()).await.expect("it is paid");
    counter.bank().set_frozen(true);
    let (stored, request, refused) = until_open(&counter).await;
    assert_eq!(stored.len(), 3, "with the one that was paid four calls, most of which failed");
    assert_eq!(reason(&refused), (Code::Unavailable, "PAYMENT_UNAVAILABLE".to_owned()));
    retried(&refused);
    let details = refused.get_details_error_info().expect("it says why");
    assert!(!details.metadata.contains_key("order_id"), "there is none");
    assert_eq!(counter.list("").await.len(), 4);

    assert_eq!(counter.place(before).await, Ok(paid), "what is known is answered");
    let again = counter.place(stored[0].clone()).await.expect_err("nobody knows");
    assert_eq!(reason(&again), outcome_unknown());
    assert!(counter.get(&info(&again, "order_id")).await.is_ok());
    assert_eq!(counter.bank().pays().len(), 4, "nobody was asked since");
    let mesh = counter.mesh().await;
    assert_eq!((mesh.name.as_str(), mesh.service.as_str()), ("payment", "order"));
    assert_eq!(
        (mesh.breaker_state(), mesh.counts.map(|it| it.openings)),
        (BreakerState::Open, Some(1))
    );

    counter.bank().set_frozen(false);
    counter.set_policies(&policies(NEVER));
    counter.place_until_paid(request).await;
    assert_eq!(counter.said().await, ["OrderPlaced"; 5], "and nothing of what was refused");
    counter.close().await;
}

#[tokio::test]
async fn a_breaker_closes_when_payment_is_back() {
    let counter = Counter::open_by(&policies(SHORTLY), &[]).await;
    counter.bank().set_frozen(true);
    until_open(&counter).await;
    counter.bank().set_frozen(false);
    for _probe in 0..3 {
        counter.place_until_paid(lattes("kim")).await;
    }
    let mesh = counter.mesh().await;
    assert_eq!(mesh.breaker_state(), BreakerState::Closed);
    let all = join_all((0..10).map(|_| counter.place(lattes("max")))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    counter.close().await;
}

#[tokio::test]
async fn who_comes_back_is_asked_after_the_oldest_orders_and_not_run_over() {
    let counter = Counter::open_by(&policies(NEVER), &[]).await;
    counter.bank().set_frozen(true);
    let place = async |count| {
        let placed = join_all((0..count).map(|_| counter.place(lattes("kim")))).await;
        let unpaid = |it: Result<_, Refused>| info(&it.expect_err("it stands still"), "order_id");
        placed.into_iter().map(unpaid).collect::<BTreeSet<_>>()
    };
    let (oldest, others) = (place(20).await, place(25).await);
    let counter = counter.reopen(&["--settle-after=0s"]).await;
    counter.bank().was_asked(45 + 20).await;
    let voids = counter.bank().voids();
    let first: BTreeSet<_> = voids[..20].iter().map(|void| void.order_id.clone()).collect();
    assert_eq!(first, oldest);
    counter.bank().set_frozen(false);
    for order_id in oldest.iter().chain(&others) {
        counter.becomes(order_id, OrderState::Rejected).await;
    }
    assert!(counter.bank().most_voids_at_a_time() <= 20);
    counter.close().await;
}
