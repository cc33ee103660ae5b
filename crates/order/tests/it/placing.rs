//! Placing an order, and what may happen between that and its payment.

use crate::{
    bank::{Asked, DECLINED, HELD, SILENT},
    counter::{Counter, info, lattes, reason, retried},
};
use contract::{
    order::v1::{OrderState, PlaceOrderRequest},
    payment::v1::PaymentState,
    status::{PAYMENT_DECLINED, PAYMENT_UNAVAILABLE},
    types::v1::Size,
};
use futures::future::join_all;
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn an_order_is_priced_paid_and_kept() {
    let counter = Counter::open().await;
    let request = lattes("kim");
    let order = counter.place(request.clone()).await.expect("it is paid");
    assert_eq!((order.state(), order.state_reason.as_str()), (OrderState::Paid, ""));
    assert_eq!((order.customer_id.as_str(), &order.lines), ("kim", &request.lines));
    let total = order.total.clone().expect("it has a price");
    assert_eq!((total.currency_code.as_str(), total.units, total.nanos), ("USD", 9, 0));
    assert_eq!(counter.get(&order.order_id).await, Ok(order.clone()));

    let [Asked::Pay { request: pay, correlation_id }] = &counter.bank().asked()[..] else {
        panic!("one Pay, not {:?}", counter.bank().asked());
    };
    assert_eq!(*correlation_id, request.request_id);
    assert_eq!((&pay.order_id, &pay.lines), (&order.order_id, &order.lines));
    assert_eq!((pay.customer_id.as_str(), &pay.amount), ("kim", &order.total));
    assert_eq!(counter.said().await, ["OrderPlaced"]);
    counter.close().await;
}

#[tokio::test]
async fn a_declined_card_is_an_answer() {
    let counter = Counter::open().await;
    let request = PlaceOrderRequest { payment_token: DECLINED.to_owned(), ..lattes("kim") };
    let order = counter.place(request.clone()).await.expect("a decline is no error");
    assert_eq!(order.state(), OrderState::Rejected);
    assert_eq!(order.state_reason, PAYMENT_DECLINED);
    assert_eq!(counter.place(request).await, Ok(order));
    assert_eq!(counter.bank().pays().len(), 1);
    counter.close().await;
}

#[tokio::test]
async fn a_customer_may_try_again_when_payment_is_back() {
    let counter = Counter::open().await;
    counter.bank().set_open(false);
    let request = lattes("kim");
    let status = counter.place(request.clone()).await.expect_err("Payment is down");
    assert_eq!(reason(&status), (Code::Unavailable, "PAYMENT_UNAVAILABLE".to_owned()));
    retried(&status);
    let order_id = info(&status, "order_id");
    let order = counter.get(&order_id).await.expect("it is kept");
    assert_eq!(order.state(), OrderState::Placed);

    counter.bank().set_open(true);
    let order = counter.place_until_paid(request).await;
    assert_eq!(order.order_id, order_id);
    assert_eq!(counter.bank().pays().len(), 1);
    counter.close().await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unknown_and_settled_later() {
    let counter = Counter::open_with(&["--pay-within=200ms", "--settle-after=500ms"]).await;
    let request = PlaceOrderRequest { payment_token: SILENT.to_owned(), ..lattes("kim") };
    let status = counter.place(request.clone()).await.expect_err("nobody answers");
    assert_eq!(reason(&status), (Code::Unavailable, "PAYMENT_OUTCOME_UNKNOWN".to_owned()));
    retried(&status);
    let order_id = info(&status, "order_id");
    let order = counter.becomes(&order_id, OrderState::Rejected).await;
    assert_eq!(order.state_reason, PAYMENT_UNAVAILABLE);
    let again = counter.place(request.clone()).await;
    assert_eq!(again, Ok(order), "the same request, answered as it is now");
    let payment = counter.bank().payment(&order_id).expect("it is recorded");
    assert_eq!(payment.state(), PaymentState::Voided);
    for asked in counter.bank().asked() {
        let (Asked::Pay { correlation_id, .. } | Asked::Void { correlation_id, .. }) = asked;
        assert_eq!(correlation_id, request.request_id, "all of it is part of one request");
    }
    counter.close().await;
}

/// The second attempt did not reach Payment, but the first may have.
#[tokio::test]
async fn what_is_not_known_stays_unknown_when_payment_cannot_be_reached_any_more() {
    let counter = Counter::open_with(&["--pay-within=200ms"]).await;
    let request = PlaceOrderRequest { payment_token: SILENT.to_owned(), ..lattes("kim") };
    let unknown = (Code::Unavailable, "PAYMENT_OUTCOME_UNKNOWN".to_owned());
    let status = counter.place(request.clone()).await.expect_err("nobody answers");
    assert_eq!(reason(&status), unknown);
    let order_id = info(&status, "order_id");
    let counter = counter.reopen(&["--pay-within=200ms"]).await;
    counter.bank().set_open(false);
    let status = counter.place(request.clone()).await.expect_err("nobody is there");
    assert_eq!((reason(&status), info(&status, "order_id")), (unknown, order_id));
    retried(&status);
    counter.close().await;
}

#[tokio::test]
async fn a_customer_who_hangs_up_while_paying_has_paid() {
    let counter = Counter::open().await;
    let request = PlaceOrderRequest { payment_token: HELD.to_owned(), ..lattes("kim") };
    let order_id = {
        let hung_up = counter.place(request);
        tokio::pin!(hung_up);
        tokio::select! {
            () = counter.bank().was_asked(1) => {}
            answer = &mut hung_up => panic!("the bank holds it: {answer:?}"),
        }
        counter.bank().pays()[0].order_id.clone()
    };
    counter.bank().release();
    counter.becomes(&order_id, OrderState::Paid).await;
    assert!(counter.bank().voids().is_empty());
    counter.close().await;
}

#[tokio::test]
async fn a_hundred_repeats_at_once_are_one_order_and_one_payment() {
    let counter = Counter::open().await;
    let request = PlaceOrderRequest { payment_token: HELD.to_owned(), ..lattes("kim") };
    let repeats = join_all((0..100).map(|_| counter.place(request.clone())));
    let (orders, ()) = futures::future::join(repeats, async {
        counter.bank().was_asked(1).await;
        counter.bank().release();
    })
    .await;
    let first = orders[0].clone().expect("it is paid");
    assert_eq!(first.state(), OrderState::Paid);
    assert!(orders.into_iter().all(|order| order.as_ref() == Ok(&first)));
    assert_eq!(counter.bank().asked().len(), 1);
    assert_eq!(counter.list("kim").await, [first]);
    counter.close().await;
}

#[tokio::test]
async fn a_request_id_stands_for_one_body() {
    let counter = Counter::open().await;
    let request = lattes("kim");
    let order = counter.place(request.clone()).await.expect("it is paid");
    assert_eq!(counter.place(request.clone()).await, Ok(order.clone()));
    let mut more = request.clone();
    more.lines[0].quantity = 3;
    let mut larger = request.clone();
    larger.lines[0].set_size(Size::Large);
    let another_card = PlaceOrderRequest { payment_token: "tok_other".to_owned(), ..request };
    for other in [more, larger, another_card] {
        let status = counter.place(other).await.expect_err("it is another order");
        assert_eq!(reason(&status), (Code::FailedPrecondition, "REQUEST_ID_REUSED".to_owned()));
    }
    assert_eq!(counter.list("").await, [order], "nothing happened");
    assert_eq!(counter.bank().pays().len(), 1);
    counter.close().await;
}

#[tokio::test]
async fn two_customers_may_use_the_same_request_id() {
    let counter = Counter::open().await;
    let kim = lattes("kim");
    let other = PlaceOrderRequest { customer_id: "Kim".to_owned(), ..kim.clone() };
    let [kim, other] = [counter.place(kim).await, counter.place(other).await]
        .map(|order| order.expect("it is paid"));
    assert_ne!(kim.order_id, other.order_id);
    assert_eq!([kim.customer_id, other.customer_id], ["kim", "Kim"]);
    counter.close().await;
}

#[tokio::test]
async fn an_order_voided_while_it_is_paid_is_answered_as_it_is() {
    let counter = Counter::open_with(&["--settle-after=100ms"]).await;
    let request = PlaceOrderRequest { payment_token: HELD.to_owned(), ..lattes("kim") };
    let (order, ()) = futures::future::join(counter.place(request), async {
        counter.bank().was_asked(2).await; // Pay, and the settler's Void
        counter.bank().release();
    })
    .await;
    let order = order.expect("voided is an answer, too");
    assert_eq!(order.state(), OrderState::Rejected);
    assert_eq!(order.state_reason, PAYMENT_UNAVAILABLE);
    counter.close().await;
}

#[tokio::test]
async fn too_little_time_to_pay_is_noticed_before_anything_is_stored() {
    let counter = Counter::open().await;
    counter.place_within(lattes("kim"), Duration::from_millis(5)).await.expect_err("no time");
    let order = counter.place(lattes("lee")).await.expect("it is paid");
    assert_eq!(counter.list("").await, [order]);
    assert_eq!(counter.bank().pays().len(), 1);
    counter.close().await;
}

#[tokio::test]
async fn orders_outlive_a_restart() {
    let counter = Counter::open().await;
    let request = lattes("kim");
    let order = counter.place(request.clone()).await.expect("it is paid");
    let counter = counter.reopen(&[]).await;
    assert_eq!(counter.get(&order.order_id).await, Ok(order.clone()));
    assert_eq!(counter.place(request).await, Ok(order));
    assert_eq!(counter.bank().pays().len(), 1);
    counter.close().await;
}
