//! Giving money back: the bar decides, the provider acknowledges, and only then is it told.

use crate::desk::{DECLINED, Desk, purchase, reason, usd, with_card};
use contract::{
    payment::v1::{PayRequest, Payment, PaymentState},
    status::{BAR_REJECTED, CUSTOMER_CANCELLED, OPERATOR_CANCELLED},
};
use tonic::Code;

async fn paid(desk: &Desk) -> (PayRequest, Payment) {
    let request = purchase();
    let payment = desk.pay(request.clone()).await.expect("it is paid");
    (request, payment)
}

#[tokio::test]
async fn a_coffee_that_is_cancelled_is_refunded_once() {
    let desk = Desk::open().await;
    let (request, payment) = paid(&desk).await;
    desk.coffee_cancelled(&request.order_id, BAR_REJECTED, "no milk").await;
    let refunded = desk.becomes(&request.order_id, PaymentState::Cancelled).await;
    assert_eq!((refunded.state_reason.as_str(), &*refunded.state_note), (BAR_REJECTED, "no milk"));
    assert_eq!((&refunded.amount, &refunded.refunded), (&usd(900), &usd(900)));
    assert_eq!((&refunded.payment_id, &refunded.lines), (&payment.payment_id, &payment.lines));
    assert!(refunded.revision > payment.revision);
    let (_before, told) = desk.says("PaymentCancelled", &request.order_id).await;
    assert_eq!(told, refunded);
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(900)));

    desk.coffee_cancelled(&request.order_id, CUSTOMER_CANCELLED, "late and repeated").await;
    desk.cancel_refused(&request.order_id).await;
    assert_eq!(desk.pay(request.clone()).await.expect("the payment as it is"), refunded);
    assert_eq!(desk.void(&request.order_id).await.expect("the payment as it is"), refunded);
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(900)));
    assert_eq!(desk.said().await, ["PaymentApproved", "PaymentCancelled"]);
    desk.close().await;
}

#[tokio::test]
async fn a_refund_is_told_only_when_the_provider_has_acknowledged_it() {
    let desk = Desk::open().await;
    let [(request, _payment), (other, another)] = [paid(&desk).await, paid(&desk).await];
    let away = desk.provider_away().await;
    desk.coffee_cancelled(&request.order_id, CUSTOMER_CANCELLED, "in a hurry").await;
    let pending = desk.of(&request.order_id).await;
    assert_eq!((pending.state(), &pending.refunded), (PaymentState::CancelPending, &usd(0)));
    // what is said last needs no provider
    desk.cancel(&another.payment_id, "").await.expect("it is paid");
    let (before, _last) = desk.says("PaymentCancelRequested", &other.order_id).await;
    assert_eq!(before, ["PaymentApproved", "PaymentApproved"]);
    // nothing moves it back: the bar has agreed
    desk.cancel_refused(&request.order_id).await;
    assert_eq!(desk.of(&request.order_id).await, pending);
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)));

    away.ends().await;
    let (_before, told) = desk.says("PaymentCancelled", &request.order_id).await;
    assert_eq!((told.state(), &told.refunded), (PaymentState::Cancelled, &usd(900)));
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(900)));
    desk.close().await;
}

#[tokio::test]
async fn what_a_former_process_owed_is_given_back_by_the_next() {
    let desk = Desk::open_with(&["--drain-timeout=1s"]).await;
    let (request, _payment) = paid(&desk).await;
    let never_paid = purchase();
    let away = desk.provider_away().await;
    desk.coffee_cancelled(&request.order_id, CUSTOMER_CANCELLED, "in a hurry").await;
    desk.void(&never_paid.order_id).await.expect("we decide");
    let pending = desk.of(&request.order_id).await;
    assert_eq!(pending.state(), PaymentState::CancelPending);
    let data = desk.close().await;
    away.ends().await;
    let desk = Desk::start(data, &[]).await.expect("it starts again");
    let (_before, refunded) = desk.says("PaymentCancelled", &request.order_id).await;
    assert_eq!((refunded.state(), &refunded.refunded), (PaymentState::Cancelled, &usd(900)));
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(900)));
    let (_before, voided) = desk.says("PaymentCancelled", &never_paid.order_id).await;
    assert_eq!((voided.state(), &voided.refunded), (PaymentState::Voided, &usd(0)));
    desk.close().await;
}

#[tokio::test]
async fn a_cancel_that_overtakes_the_pay_leaves_nothing_to_charge() {
    let desk = Desk::open().await;
    let request = purchase();
    desk.coffee_cancelled(&request.order_id, CUSTOMER_CANCELLED, "in a hurry").await;
    let voided = desk.of(&request.order_id).await;
    assert_eq!((voided.state(), &*voided.customer_id), (PaymentState::Voided, "kim"));
    assert_eq!(
        (voided.state_reason.as_str(), voided.state_note.as_str()),
        (CUSTOMER_CANCELLED, "in a hurry")
    );
    let status = desk.pay(request.clone()).await.expect_err("it is never charged");
    assert_eq!(reason(&status), (Code::FailedPrecondition, "PAYMENT_VOIDED".to_owned()));
    let (_before, told) = desk.says("PaymentCancelled", &request.order_id).await;
    assert_eq!((told.state(), &told.refunded), (PaymentState::Voided, &usd(0)));
    assert_eq!(desk.charges("").await, []);
    desk.close().await;
}

#[tokio::test]
async fn an_operator_s_cancel_waits_for_the_bar_and_ends_where_the_bar_refuses() {
    let desk = Desk::open().await;
    let (request, payment) = paid(&desk).await;
    let pending = desk.cancel(&payment.payment_id, "a mistake").await.expect("it is paid");
    assert_eq!(pending.state(), PaymentState::CancelPending);
    assert_eq!(
        (pending.state_reason.as_str(), pending.state_note.as_str()),
        (OPERATOR_CANCELLED, "a mistake")
    );
    let again = desk.cancel(&payment.payment_id, "again").await.expect("it is asked already");
    assert_eq!(again, pending);
    let (_before, told) = desk.says("PaymentCancelRequested", &request.order_id).await;
    assert_eq!(told, pending);

    desk.cancel_refused(&request.order_id).await;
    let kept = desk.of(&request.order_id).await;
    assert_eq!((kept.state(), kept.state_reason.as_str()), (PaymentState::Approved, ""));
    assert_eq!((kept.state_note.as_str(), kept.revision), ("", pending.revision + 1));
    desk.cancel_refused(&request.order_id).await;
    assert_eq!(desk.of(&request.order_id).await, kept, "said twice, heard once");
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)));
    let said = ["PaymentApproved", "PaymentCancelRequested", "PaymentApproved"];
    assert_eq!(desk.said().await, said);
    desk.close().await;
}

#[tokio::test]
async fn an_operator_s_cancel_gives_the_money_back_when_the_bar_agrees() {
    let desk = Desk::open().await;
    let (request, payment) = paid(&desk).await;
    desk.cancel(&payment.payment_id, "a mistake").await.expect("it is paid");
    desk.coffee_cancelled(&request.order_id, OPERATOR_CANCELLED, "a mistake").await;
    let (_before, refunded) = desk.says("PaymentCancelled", &request.order_id).await;
    assert_eq!((refunded.state(), &refunded.refunded), (PaymentState::Cancelled, &usd(900)));
    assert_eq!(refunded.state_reason, OPERATOR_CANCELLED);
    let again = desk.cancel(&payment.payment_id, "again").await.expect("it is cancelled");
    assert_eq!(again, refunded);
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(900)));
    let said = ["PaymentApproved", "PaymentCancelRequested", "PaymentCancelled"];
    assert_eq!(desk.said().await, said);
    desk.close().await;
}

#[tokio::test]
async fn without_money_there_is_nothing_to_cancel() {
    let desk = Desk::open().await;
    let declined = desk.pay(with_card(DECLINED)).await.expect("a decline is an answer");
    let never_paid = purchase().order_id;
    desk.void(&never_paid).await.expect("nobody has paid");
    let (_before, voided) = desk.says("PaymentCancelled", &never_paid).await;
    for payment in [declined, voided] {
        let status = desk.cancel(&payment.payment_id, "").await.expect_err("nothing was taken");
        assert_eq!(reason(&status), (Code::FailedPrecondition, "PAYMENT_STATE".to_owned()));
        desk.cancel_refused(&payment.order_id).await;
        desk.coffee_cancelled(&payment.order_id, CUSTOMER_CANCELLED, "").await;
        assert_eq!(desk.of(&payment.order_id).await, payment, "nothing happened");
    }
    assert_eq!(desk.said().await, ["PaymentDeclined", "PaymentCancelled"]);
    desk.close().await;
}

#[tokio::test]
async fn what_the_bar_kept_of_a_customer_s_cancel_stays_paid() {
    let desk = Desk::open().await;
    let (request, payment) = paid(&desk).await;
    desk.cancel_refused(&request.order_id).await;
    assert_eq!(desk.of(&request.order_id).await, payment, "it never left APPROVED");
    assert_eq!(desk.said().await, ["PaymentApproved"]);
    desk.close().await;
}
