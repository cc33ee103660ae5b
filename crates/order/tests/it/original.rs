//! What the original system did wrong at this place: it called Payment within its transaction, and hid what went wrong there.

use crate::{
    bank::{BROKEN, HELD},
    counter::{Counter, info, lattes, logged, reason, retried},
};
use contract::order::v1::{OrderState, PlaceOrderRequest};
use tonic::Code;

/// While Payment thinks, the order is stored, and nothing of the database is held: others order, pay and change their minds.
#[tokio::test]
async fn payment_is_called_when_the_order_is_stored_and_outside_every_transaction() {
    let counter = Counter::open().await;
    let regret = counter.place(lattes("lee")).await.expect("it is paid");
    let held = PlaceOrderRequest { payment_token: HELD.to_owned(), ..lattes("kim") };
    let (paid, ()) = futures::future::join(counter.place(held), async {
        counter.bank().was_asked(2).await;
        let order_id = counter.bank().pays()[1].order_id.clone();
        let stored = counter.get(&order_id).await.expect("it was stored before Payment was asked");
        assert_eq!((stored.state(), stored.customer_id.as_str()), (OrderState::Placed, "kim"));
        let other = counter.place(lattes("ann")).await.expect("nobody waits for kim's bank");
        assert_eq!(other.state(), OrderState::Paid);
        let regretted = counter.cancel(&regret.order_id, "", 0).await.expect("nor does a cancel");
        assert_eq!(regretted.state(), OrderState::Cancelling);
        assert_eq!(counter.get(&order_id).await, Ok(stored), "kim's bank thinks still");
        counter.bank().release();
    })
    .await;
    assert_eq!(paid.expect("it is paid").state(), OrderState::Paid);
    counter.close().await;
}

#[tokio::test]
async fn what_breaks_in_payment_is_told_to_the_caller_and_to_the_log() {
    let counter = Counter::open().await;
    let broken = PlaceOrderRequest { payment_token: BROKEN.to_owned(), ..lattes("kim") };
    let status = counter.place(broken.clone()).await.expect_err("it is not known to be paid");
    assert_eq!(reason(&status), (Code::Unavailable, "PAYMENT_OUTCOME_UNKNOWN".to_owned()));
    retried(&status);
    let order_id = info(&status, "order_id");
    assert!(!status.message().contains("the till is on fire"), "what is inside stays inside");
    let log = logged();
    let told: Vec<_> = log.lines().filter(|line| line.contains(&order_id)).collect();
    assert!(told.iter().any(|line| line.contains("the till is on fire")), "{told:?}");
    let order = counter.get(&order_id).await.expect("it is kept");
    assert_eq!(order.state(), OrderState::Placed, "unknown is neither paid nor refused");
    counter.close().await;
}
