//! Changing one's mind, in time and too late.

use crate::{open, people};
use contract::{
    make::v1::TicketState,
    order::v1::{CancelOrderRequest, OrderState},
    payment::v1::PaymentState,
};
use testbed::Doors as _;
use tonic::Code;

#[tokio::test]
async fn a_cancel_before_the_barista_begins_gives_the_money_back() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order = people::paid(&shop, "kim").await?;
    people::ticket(&shop, &order.order_id).await?;
    let asked = people::cancel(&shop, &order.order_id).await?;
    assert!([OrderState::Cancelling, OrderState::Cancelled].contains(&asked.state()), "{asked:?}");
    let cancelled = people::becomes(&shop, &order.order_id, OrderState::Cancelled).await?;
    assert_eq!(cancelled.state_reason, "CUSTOMER_CANCELLED");
    let again = people::cancel(&shop, &order.order_id).await?;
    assert_eq!(again.state(), OrderState::Cancelled, "a second cancel changes nothing");

    let charges = people::charges(&shop, &order.order_id).await?;
    assert_eq!((charges.len(), &charges[0].refunded), (1, &order.total));
    let payment = people::payment(&shop, &order.order_id).await?;
    assert_eq!((payment.state(), &payment.refunded), (PaymentState::Cancelled, &order.total));
    let ticket = people::ticket_becomes(&shop, &order.order_id, TicketState::Cancelled).await?;
    let refused = people::start(&shop, &ticket.ticket_id).await.expect_err("it is cancelled");
    assert_eq!(people::reason(&refused), "TICKET_STATE");
    let mine = people::shown(&shop, "kim", OrderState::Cancelled).await?;
    assert_eq!(mine.charged.unwrap_or_default().units, 0);
    Ok(())
}

#[tokio::test]
async fn a_cancel_after_the_barista_began_is_refused() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order = people::paid(&shop, "kim").await?;
    let ticket = people::ticket(&shop, &order.order_id).await?;
    people::start(&shop, &ticket.ticket_id).await?;
    let making = people::becomes(&shop, &order.order_id, OrderState::Making).await?;
    let refused = people::cancel(&shop, &order.order_id).await.expect_err("it is being made");
    let refused = (refused.code(), people::reason(&refused));
    assert_eq!(refused, (Code::FailedPrecondition, "ORDER_NOT_CANCELLABLE".to_owned()));
    assert_eq!(people::order(&shop, &order.order_id).await?, making, "nothing happened");

    people::complete(&shop, &ticket.ticket_id).await?;
    people::becomes(&shop, &order.order_id, OrderState::Ready).await?;
    let charges = people::charges(&shop, &order.order_id).await?;
    assert_eq!(charges[0].refunded.clone().unwrap_or_default().units, 0);
    Ok(())
}

#[tokio::test]
async fn what_the_bar_cannot_make_is_refunded() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order = people::paid(&shop, "kim").await?;
    let ticket = people::ticket(&shop, &order.order_id).await?;
    people::start(&shop, &ticket.ticket_id).await?;
    people::reject(&shop, &ticket.ticket_id, "we are out of milk").await?;
    let cancelled = people::becomes(&shop, &order.order_id, OrderState::Cancelled).await?;
    assert_eq!(cancelled.state_reason, "BAR_REJECTED");
    assert_eq!(cancelled.state_note, "we are out of milk");
    let charges = people::charges(&shop, &order.order_id).await?;
    assert_eq!(charges[0].refunded, order.total);
    let mine = people::shown(&shop, "kim", OrderState::Cancelled).await?;
    assert_eq!(
        (mine.state_reason.as_str(), mine.state_note.as_str()),
        ("BAR_REJECTED", "we are out of milk")
    );
    Ok(())
}

#[tokio::test]
async fn a_cancel_of_another_revision_is_aborted() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order = people::paid(&shop, "kim").await?;
    let cancel = CancelOrderRequest {
        order_id: order.order_id.clone(),
        reason: "I only saw it unpaid".to_owned(),
        revision: order.revision + 7,
    };
    let refused = shop.order().cancel_order(cancel).await.expect_err("another revision");
    assert_eq!(
        (refused.code(), people::reason(&refused).as_str()),
        (Code::Aborted, "REVISION_MISMATCH")
    );
    assert_eq!(people::order(&shop, &order.order_id).await?.state(), OrderState::Paid);
    Ok(())
}
