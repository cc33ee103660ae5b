//! "Never charge this order": who comes first decides. Row 37 of the bad inputs.

use crate::desk::{DECLINED, Desk, SLOW, purchase, reason, usd, with_card};
use contract::payment::v1::{PayRequest, Payment, PaymentState};
use futures::future::join_all;
use tonic::{Code, Status};

async fn refused_as_voided(desk: &Desk, request: PayRequest) {
    let status = desk.pay(request).await.expect_err("it is never charged");
    assert_eq!(reason(&status), (Code::FailedPrecondition, "PAYMENT_VOIDED".to_owned()));
}

#[tokio::test]
async fn a_void_after_a_pay_tells_how_it_was_paid() {
    let desk = Desk::open().await;
    for request in [purchase(), with_card(DECLINED)] {
        let payment = desk.pay(request.clone()).await.expect("an answer");
        let told = desk.void(&request.order_id).await.expect("that is an answer, too");
        assert_eq!(told, payment);
        assert_eq!(desk.pay(request).await.expect("nothing happened"), payment);
    }
    assert_eq!(desk.charged("").await, (usd(900), usd(0)));
    assert_eq!(desk.said().await, ["PaymentApproved", "PaymentDeclined"]);
    desk.close().await;
}

#[tokio::test]
async fn a_pay_after_a_void_is_refused_and_nobody_is_charged() {
    let desk = Desk::open().await;
    let request = purchase();
    let voided = desk.void(&request.order_id).await.expect("nobody has paid");
    assert_eq!((voided.state(), &voided.order_id), (PaymentState::Voided, &request.order_id));
    assert_eq!((voided.customer_id.as_str(), voided.revision), ("kim", 1));
    assert_eq!((&voided.amount, &voided.refunded), (&usd(0), &usd(0)));
    refused_as_voided(&desk, request.clone()).await;
    let other_amount = PayRequest { amount: usd(1), ..request.clone() };
    refused_as_voided(&desk, other_amount).await;

    let (_before, told) = desk.says("PaymentCancelled", &request.order_id).await;
    assert_eq!((told.state(), &told.refunded), (PaymentState::Voided, &usd(0)));
    assert_eq!((&told.payment_id, told.revision), (&voided.payment_id, 2));
    assert_eq!(desk.void(&request.order_id).await.expect("the same again"), told);
    refused_as_voided(&desk, request.clone()).await;
    assert_eq!(desk.charges("").await, []);
    assert_eq!(desk.said().await, ["PaymentCancelled"]);
    desk.close().await;
}

#[tokio::test]
async fn a_void_overtakes_a_charge_that_is_under_way() {
    let desk = Desk::open_with(&["--charge-within=10s"]).await;
    let request = with_card(SLOW);
    let (paid, voided) = futures::future::join(desk.pay(request.clone()), async {
        // asked on the same connection, so Pay is there by then
        desk.try_of(&request.order_id).await.expect_err("the bank takes its time");
        desk.void(&request.order_id).await
    })
    .await;
    assert_eq!(voided.expect("nothing is recorded yet").state(), PaymentState::Voided);
    let status = paid.expect_err("the provider was told first");
    assert_eq!(reason(&status), (Code::FailedPrecondition, "PAYMENT_VOIDED".to_owned()));
    assert_eq!(desk.charges("").await, []);
    desk.close().await;
}

#[tokio::test]
async fn what_a_silent_provider_took_is_given_back_with_the_void() {
    let desk = Desk::open_with(&["--provider-silent-share=1", "--charge-within=200ms"]).await;
    let request = purchase();
    desk.pay(request.clone()).await.expect_err("nobody answers");
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)), "the money is gone");
    let voided = desk.void(&request.order_id).await.expect("nothing is recorded");
    assert_eq!(voided.state(), PaymentState::Voided);
    let (_before, told) = desk.says("PaymentCancelled", &request.order_id).await;
    assert_eq!((told.state(), told.refunded), (PaymentState::Voided, usd(0)));
    assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(900)), "it is back");
    refused_as_voided(&desk, request).await;
    desk.close().await;
}

#[tokio::test]
async fn a_void_needs_no_provider_but_is_told_when_the_provider_knows() {
    let desk = Desk::open().await;
    let [request, other] = [purchase(), purchase()];
    let paid = desk.pay(other.clone()).await.expect("it is paid");
    let away = desk.provider_away().await;
    let voided = desk.void(&request.order_id).await.expect("we decide, not the provider");
    assert_eq!(voided.state(), PaymentState::Voided);
    refused_as_voided(&desk, request.clone()).await;
    // what is said last needs no provider
    desk.cancel(&paid.payment_id, "").await.expect("it is paid");
    let (before, _last) = desk.says("PaymentCancelRequested", &other.order_id).await;
    assert_eq!(before, ["PaymentApproved"], "the provider does not know of the void");
    assert_eq!(desk.of(&request.order_id).await, voided);

    away.ends().await;
    let (_before, told) = desk.says("PaymentCancelled", &request.order_id).await;
    assert_eq!(told, desk.of(&request.order_id).await);
    desk.close().await;
}

/// All who pay and all who void hear of the same decision.
#[tokio::test]
async fn of_many_pays_and_voids_at_once_one_decides_for_all() {
    let desk = Desk::open_with(&["--provider-latency=0ms..5ms"]).await;
    for _ in 0..10 {
        let request = purchase();
        let pays = join_all((0..20).map(|_| desk.pay(request.clone())));
        let voids = join_all((0..20).map(|_| desk.void(&request.order_id)));
        let (paid, voided) = futures::future::join(pays, voids).await;
        let state = desk.of(&request.order_id).await.state();
        let told = |answer: Result<Payment, Status>| match answer {
            Ok(payment) => payment.state(),
            Err(status) if reason(&status).1 == "PAYMENT_VOIDED" => PaymentState::Voided,
            Err(status) => panic!("{status:?}"),
        };
        assert!(paid.into_iter().chain(voided).all(|answer| told(answer) == state));
        if state == PaymentState::Approved {
            assert_eq!(desk.charged(&request.order_id).await, (usd(900), usd(0)));
        } else {
            desk.says("PaymentCancelled", &request.order_id).await;
            let charges = desk.charges(&request.order_id).await;
            assert!(charges.iter().all(|charge| charge.refunded == charge.amount), "{charges:?}");
        }
    }
    desk.close().await;
}
