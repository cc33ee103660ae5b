//! When it is not known whether a payment went through.

use crate::{open, people};
use contract::{order::v1::OrderState, payment::v1::PaymentState};
use std::time::Duration;
use testbed::until;
use tonic::Code;
use tonic_types::StatusExt as _;

#[tokio::test]
async fn who_was_told_that_the_outcome_is_unknown_is_never_charged() -> anyhow::Result<()> {
    let shop = open(&["--settle-after", "1s", "--provider-silent-share", "1"]).await?;
    let request = people::lattes("kim");
    let unknown = people::place(&shop, request.clone()).await.expect_err("nobody answers");
    let info = unknown.get_details_error_info().expect("our errors say why");
    assert_eq!(
        (unknown.code(), info.reason.as_str()),
        (Code::Unavailable, "PAYMENT_OUTCOME_UNKNOWN")
    );
    let order_id = &info.metadata["order_id"];
    assert!(unknown.get_details_retry_info().is_some(), "people may ask again");

    let settled = people::becomes(&shop, order_id, OrderState::Rejected).await?;
    assert_eq!(settled.state_reason, "PAYMENT_UNAVAILABLE");
    let refunded = until("the money to be back", people::SOON, async || {
        let charge = people::charges(&shop, order_id).await.ok()?.pop()?;
        (charge.refunded == charge.amount).then_some(charge.amount)
    });
    assert_eq!(refunded.await?, settled.total, "it was charged, and it is given back");
    assert_eq!(people::payment(&shop, order_id).await?.state(), PaymentState::Voided);
    let again = people::place(&shop, request).await?;
    assert_eq!((again.state(), &again.order_id), (OrderState::Rejected, order_id));
    assert!(people::tickets(&shop, order_id).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn who_hangs_up_while_paying_has_paid() -> anyhow::Result<()> {
    let shop = open(&["--settle-after", "5s"]).await?;
    let mut request = people::lattes("kim");
    "tok_slow".clone_into(&mut request.payment_token);
    let impatient = tokio::time::timeout(Duration::from_millis(500), people::place(&shop, request));
    assert!(impatient.await.is_err(), "the card takes two seconds");
    let found =
        until("the order", people::SOON, async || people::orders(&shop, "kim").await.ok()?.pop());
    let order_id = found.await?.order_id;
    people::becomes(&shop, &order_id, OrderState::Paid).await?;
    people::make(&shop, &order_id).await?;
    let charges = people::charges(&shop, &order_id).await?;
    assert_eq!((charges.len(), charges[0].refunded.clone().unwrap_or_default().units), (1, 0));
    Ok(())
}

#[tokio::test]
async fn an_unpaid_order_is_cancelled_without_a_barista_and_never_charged() -> anyhow::Result<()> {
    let shop = open(&["--provider-silent-share", "1"]).await?;
    let unknown = people::place(&shop, people::lattes("kim")).await.expect_err("nobody answers");
    let info = unknown.get_details_error_info().expect("our errors say why");
    let order_id = &info.metadata["order_id"];
    people::cancel(&shop, order_id).await?;
    let cancelled = people::becomes(&shop, order_id, OrderState::Cancelled).await?;
    assert_eq!(cancelled.state_reason, "CUSTOMER_CANCELLED");
    until("the money to be back", people::SOON, async || {
        let charge = people::charges(&shop, order_id).await.ok()?.pop()?;
        (charge.refunded == charge.amount).then_some(())
    })
    .await
}
