//! Cancelling: row 36 of the bad inputs, with the good ones around it.

use crate::{
    bank::DECLINED,
    counter::{Counter, info, lattes, reason},
};
use contract::{
    make::v1::TicketState,
    order::v1::{Order, OrderState, PlaceOrderRequest},
    payment::v1::PaymentState,
    status::CUSTOMER_CANCELLED,
};
use tonic::Code;

async fn paid(counter: &Counter) -> Order {
    counter.place(lattes("kim")).await.expect("it is paid")
}

#[tokio::test]
async fn a_paid_order_is_cancelling_until_the_money_is_back() {
    let counter = Counter::open().await;
    let order = paid(&counter).await;
    let id = &*order.order_id;
    let cancelling = counter.cancel(id, "in a hurry", order.revision).await.expect("in time");
    assert_eq!(cancelling.state(), OrderState::Cancelling);
    assert_eq!(cancelling.state_reason, CUSTOMER_CANCELLED);
    assert_eq!(cancelling.state_note, "in a hurry");
    assert_eq!(cancelling.cancel_requested_time, cancelling.update_time);
    let again = counter.cancel(id, "still", order.revision).await;
    assert_eq!(again, Ok(cancelling), "whatever the revision");

    counter.ticket(id, 2, TicketState::Cancelled).await;
    counter.payment(id, 2, PaymentState::Cancelled).await;
    let cancelled = counter.get(id).await.expect("it is there");
    assert_eq!(cancelled.state(), OrderState::Cancelled);
    assert_eq!(counter.cancel(id, "", 1).await, Ok(cancelled));
    let said = counter.said().await;
    assert_eq!(said, ["OrderPlaced", "OrderCancelRequested", "OrderCancelled"]);
    assert!(counter.bank().voids().is_empty(), "a paid order needs no void");
    counter.close().await;
}

#[tokio::test]
async fn an_unpaid_order_is_cancelled_without_the_bar() {
    let counter = Counter::open().await;
    counter.bank().set_open(false);
    let status = counter.place(lattes("kim")).await.expect_err("Payment is down");
    let id = info(&status, "order_id");
    counter.bank().set_open(true);
    let order = counter.cancel(&id, "", 0).await.expect("it is placed");
    assert_eq!(order.state(), OrderState::Cancelling);
    let order = counter.becomes(&id, OrderState::Cancelled).await;
    assert_eq!(order.state_reason, CUSTOMER_CANCELLED);
    counter.close().await;
}

#[tokio::test]
async fn a_cancel_that_payment_could_not_hear_is_repeated() {
    let counter = Counter::open().await;
    counter.bank().set_open(false);
    let status = counter.place(lattes("kim")).await.expect_err("Payment is down");
    let id = info(&status, "order_id");
    counter.cancel(&id, "", 0).await.expect("it is placed");
    let counter = counter.reopen(&[]).await; // who asked at once is gone
    assert_eq!(counter.get(&id).await.expect("it is there").state(), OrderState::Cancelling);
    counter.bank().set_open(true);
    counter.becomes(&id, OrderState::Cancelled).await;
    counter.close().await;
}

#[tokio::test]
async fn a_cancel_that_the_bar_refuses_ends_with_the_coffee() {
    let counter = Counter::open().await;
    let id = paid(&counter).await.order_id;
    counter.cancel(&id, "in a hurry", 0).await.expect("it is paid");
    counter.cancel_refused(&id, 2).await; // before the word that the barista has begun
    let making = counter.get(&id).await.expect("it is there");
    assert_eq!((making.state(), making.state_reason.as_str()), (OrderState::Making, ""));
    counter.ticket(&id, 2, TicketState::Making).await;
    counter.cancel_refused(&id, 2).await;
    assert_eq!(counter.get(&id).await, Ok(making), "it is known already");
    counter.ticket(&id, 3, TicketState::Made).await;
    let ready = counter.get(&id).await.expect("it is there");
    counter.cancel_refused(&id, 2).await;
    assert_eq!(counter.get(&id).await, Ok(ready.clone()), "late words change nothing");
    assert_eq!(ready.state(), OrderState::Ready);
    assert_eq!(counter.said().await, ["OrderPlaced", "OrderCancelRequested"]);
    counter.close().await;
}

#[tokio::test]
async fn what_is_begun_or_ended_is_not_cancelled() {
    let counter = Counter::open().await;
    let making = paid(&counter).await.order_id;
    counter.ticket(&making, 2, TicketState::Making).await;
    let ready = paid(&counter).await.order_id;
    counter.ticket(&ready, 3, TicketState::Made).await;
    let request = PlaceOrderRequest { payment_token: DECLINED.to_owned(), ..lattes("kim") };
    let rejected = counter.place(request).await.expect("a decline is an answer").order_id;
    for id in [making, ready, rejected] {
        let before = counter.get(&id).await;
        for revision in [0, 1] {
            let status = counter.cancel(&id, "", revision).await.expect_err("too late");
            let expected = (Code::FailedPrecondition, "ORDER_NOT_CANCELLABLE".to_owned());
            assert_eq!(reason(&status), expected);
        }
        assert_eq!(counter.get(&id).await, before, "nothing happened");
    }
    counter.close().await;
}

#[tokio::test]
async fn a_cancel_of_an_old_revision_is_refused() {
    let counter = Counter::open().await;
    let order = paid(&counter).await;
    let status = counter.cancel(&order.order_id, "", 1).await.expect_err("it was placed then");
    assert_eq!(reason(&status), (Code::Aborted, "REVISION_MISMATCH".to_owned()));
    assert_eq!(counter.get(&order.order_id).await, Ok(order));
    counter.close().await;
}
