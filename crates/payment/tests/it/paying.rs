//! Charging an order, and what may happen between the provider's answer and ours. Row 37 of the bad inputs.

use crate::desk::{DECLINED, Desk, SLOW, TRACE, purchase, reason, retried, usd, with_card};
use contract::{
    payment::v1::{PayRequest, PaymentState},
    status::PAYMENT_DECLINED,
};
use futures::future::join_all;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;
use uuid::Uuid;

/// What Order gives Payment, in all.
const PAY_WITHIN: Duration = Duration::from_secs(3);

#[tokio::test]
async fn an_order_is_charged_told_and_kept() {
    let desk = Desk::open().await;
    let request = purchase();
    let payment = desk.pay(request.clone()).await.expect("it is paid");
    assert_eq!((payment.state(), payment.state_reason.as_str()), (PaymentState::Approved, ""));
    assert_eq!((&payment.order_id, payment.revision), (&request.order_id, 1));
    assert_eq!((payment.customer_id.as_str(), &payment.lines), ("kim", &request.lines));
    assert_eq!((&payment.amount, &payment.refunded), (&request.amount, &usd(0)));
    assert_eq!(payment.create_time, payment.update_time);
    assert_eq!(desk.of(&request.order_id).await, payment);
    assert_eq!(desk.get(&payment.payment_id).await.expect("it is there"), payment);
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)));
    let (_before, told) = desk.says("PaymentApproved", &request.order_id).await;
    assert_eq!(told, payment, "the whole payment is told");
    assert_eq!(desk.said().await, ["PaymentApproved"]);
    desk.close().await;
}

#[tokio::test]
async fn an_order_that_is_paid_twice_is_charged_once() {
    let desk = Desk::open().await;
    let request = purchase();
    let payment = desk.pay(request.clone()).await.expect("it is paid");
    let another_card = PayRequest { payment_token: DECLINED.to_owned(), ..request.clone() };
    for repeat in [request.clone(), another_card] {
        assert_eq!(desk.pay(repeat).await.expect("the same payment"), payment);
    }
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)));
    assert_eq!(desk.said().await, ["PaymentApproved"]);
    desk.close().await;
}

#[tokio::test]
async fn a_hundred_pays_at_once_are_one_payment_and_one_charge() {
    let desk = Desk::open_with(&["--provider-latency=100ms"]).await;
    let request = purchase();
    let answers = join_all((0..100).map(|_| desk.pay(request.clone()))).await;
    let payment = desk.of(&request.order_id).await;
    assert_eq!(payment.state(), PaymentState::Approved);
    assert!(answers.into_iter().all(|answer| answer.expect("it is paid") == payment));
    assert_eq!(desk.list().await, [payment]);
    assert_eq!(desk.charged("").await, (usd(900), usd(0)), "there is no other charge");
    assert_eq!(desk.said().await, ["PaymentApproved"]);
    desk.close().await;
}

#[tokio::test]
async fn a_declined_card_is_an_answer_which_the_order_keeps() {
    let desk = Desk::open().await;
    let request = with_card(DECLINED);
    let payment = desk.pay(request.clone()).await.expect("a decline is no error");
    assert_eq!(payment.state(), PaymentState::Declined);
    assert_eq!(payment.state_reason, PAYMENT_DECLINED);
    let another_card = PayRequest { payment_token: String::new(), ..request.clone() };
    assert_eq!(desk.pay(another_card).await.expect("the same payment"), payment);
    assert_eq!(desk.charges("").await, []);
    let (_before, told) = desk.says("PaymentDeclined", &request.order_id).await;
    assert_eq!(told, payment);
    assert_eq!(desk.said().await, ["PaymentDeclined"]);
    desk.close().await;
}

#[tokio::test]
async fn another_amount_is_another_charge_and_refused() {
    let desk = Desk::open().await;
    for request in [purchase(), with_card(DECLINED)] {
        let payment = desk.pay(request.clone()).await.expect("an answer");
        let charges = desk.charges("").await;
        for minor in [899, 901] {
            let other = PayRequest { amount: usd(minor), ..request.clone() };
            let status = desk.pay(other).await.expect_err("it is another amount");
            let expected = (Code::FailedPrecondition, "AMOUNT_MISMATCH".to_owned());
            assert_eq!(reason(&status), expected);
        }
        assert_eq!(desk.of(&request.order_id).await, payment, "nothing happened");
        assert_eq!(desk.charges("").await, charges);
    }
    desk.close().await;
}

#[tokio::test]
async fn what_is_told_says_what_it_is_part_of() {
    let desk = Desk::open().await;
    let (request, request_id) = (purchase(), Uuid::new_v4());
    let payment = desk.pay_for(request_id, request.clone()).await;
    let (_before, approved) = desk.hears("PaymentApproved", &request.order_id).await;
    assert_eq!(approved.traceparent.as_deref(), Some(TRACE));
    desk.cancel(&payment.payment_id, "").await.expect("it is paid");
    let (_before, asked) = desk.hears("PaymentCancelRequested", &request.order_id).await;
    for event in [approved, asked] {
        assert_eq!(event.correlation_id, request_id, "the request that began the order");
        assert_eq!(event.subject.to_string(), request.order_id);
        assert_eq!(&*event.source, "/starcoffee/payment");
    }
    desk.close().await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_while_paying_has_paid() {
    let desk = Desk::open_with(&["--charge-within=10s"]).await;
    let request = with_card(SLOW);
    let hung_up = desk.pay_within(request.clone(), Duration::from_secs(1)).await;
    hung_up.expect_err("the bank takes its time");
    let payment = desk.becomes(&request.order_id, PaymentState::Approved).await;
    assert_eq!(desk.pay(request.clone()).await.expect("the same payment"), payment);
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)));
    desk.close().await;
}

#[tokio::test]
async fn a_bank_that_takes_too_long_has_taken_nothing() {
    let desk = Desk::open_with(&["--charge-within=100ms"]).await;
    let request = with_card(SLOW);
    let status = desk.pay(request.clone()).await.expect_err("it takes two seconds");
    assert_eq!(reason(&status), (Code::Unavailable, "PAYMENT_UNAVAILABLE".to_owned()));
    retried(&status);
    desk.is_untouched().await;
    let another_card = PayRequest { payment_token: String::new(), ..request };
    let payment = desk.pay(another_card).await.expect("the order may still be paid");
    assert_eq!(payment.state(), PaymentState::Approved);
    desk.close().await;
}

#[tokio::test]
async fn a_provider_that_fails_is_asked_again_by_who_asks_again() {
    let desk = Desk::open_with(&["--provider-failure-share=1"]).await;
    let request = purchase();
    let status = desk.pay(request.clone()).await.expect_err("it fails");
    assert_eq!(reason(&status), (Code::Unavailable, "PAYMENT_UNAVAILABLE".to_owned()));
    retried(&status);
    desk.is_untouched().await;
    let desk = desk.reopen(&[]).await;
    let payment = desk.pay(request.clone()).await.expect("now it works");
    assert_eq!(payment.state(), PaymentState::Approved);
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)));
    desk.close().await;
}

#[tokio::test]
async fn a_charge_that_nobody_told_us_of_is_found_by_who_asks_again() {
    let desk = Desk::open_with(&["--provider-silent-share=1", "--charge-within=200ms"]).await;
    let (request, asked) = (purchase(), Instant::now());
    let status = desk.pay(request.clone()).await.expect_err("nobody answers");
    assert!(asked.elapsed() < PAY_WITHIN, "Order still listens");
    assert_eq!(reason(&status), (Code::Unavailable, "PAYMENT_UNAVAILABLE".to_owned()));
    retried(&status);
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)), "the money is gone");
    let status = desk.try_of(&request.order_id).await.expect_err("and nothing is recorded");
    assert_eq!(reason(&status), (Code::NotFound, "PAYMENT_NOT_FOUND".to_owned()));

    let desk = desk.reopen(&[]).await;
    let payment = desk.pay(request.clone()).await.expect("the same key, the same answer");
    assert_eq!((payment.state(), &payment.amount), (PaymentState::Approved, &request.amount));
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)), "charged once");
    desk.close().await;
}

#[tokio::test]
async fn payments_and_charges_outlive_a_restart() {
    let desk = Desk::open().await;
    let requests = [purchase(), with_card(DECLINED)];
    let mut payments = Vec::new();
    for request in &requests {
        payments.push(desk.pay(request.clone()).await.expect("an answer"));
    }
    let charges = desk.charges("").await;
    let desk = desk.reopen(&["--provider-decline-share=1"]).await;
    for (request, payment) in requests.iter().zip(&payments) {
        assert_eq!(desk.of(&request.order_id).await, *payment);
        assert_eq!(desk.pay(request.clone()).await.expect("the same payment"), *payment);
    }
    assert_eq!(desk.charges("").await, charges);
    let declined = desk.pay(purchase()).await.expect("another order is declined");
    assert_eq!(declined.state(), PaymentState::Declined);
    desk.close().await;
}
