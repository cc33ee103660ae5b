//! What the original system did wrong as a whole: docs/fault-ledger.md says which test stands for each of its defects.

use crate::{open, people, tables};
use contract::{
    order::v1::OrderState,
    payment::v1::PaymentState,
    types::v1::{LineItem, Size},
};
use std::collections::BTreeSet;
use tonic::Code;
use tonic_types::StatusExt as _;

/// There the payment went on after its caller had given up and rolled back, and the coffee was made for an order that did not
/// exist.
#[tokio::test]
async fn a_payment_that_ends_after_its_caller_gave_up_is_of_an_order_that_is_there()
-> anyhow::Result<()> {
    let shop = open(&["--pay-within", "300ms", "--settle-after", "1m"]).await?;
    let mut request = people::lattes("kim");
    "tok_slow".clone_into(&mut request.payment_token);
    let unknown = people::place(&shop, request.clone()).await.expect_err("it takes two seconds");
    let why = (unknown.code(), people::reason(&unknown));
    assert_eq!(why, (Code::Unavailable, "PAYMENT_OUTCOME_UNKNOWN".to_owned()));
    let order_id =
        unknown.get_details_error_info().expect("it says why").metadata["order_id"].clone();
    let placed = people::order(&shop, &order_id).await?;
    assert_eq!(placed.state(), OrderState::Placed, "it is there before it is paid");

    let paid = people::becomes(&shop, &order_id, OrderState::Paid).await?;
    assert_eq!((&paid.lines, &paid.total), (&placed.lines, &placed.total));
    people::make(&shop, &order_id).await?;
    let again = people::place(&shop, request).await?;
    assert_eq!((again.state(), again.order_id), (OrderState::Ready, order_id.clone()));
    assert_eq!(people::charges(&shop, &order_id).await?.len(), 1);
    Ok(())
}

/// There a cancel named its order by what the client had sent.
#[tokio::test]
async fn a_cancel_is_of_one_order_also_where_two_customers_sent_the_same_request_id()
-> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let kims = people::lattes("kim");
    let mut lees = kims.clone();
    "lee".clone_into(&mut lees.customer_id);
    let kims = people::place(&shop, kims).await?;
    let lees = people::place(&shop, lees).await?;
    for order in [&kims, &lees] {
        people::ticket(&shop, &order.order_id).await?;
    }
    people::cancel(&shop, &kims.order_id).await?;
    people::becomes(&shop, &kims.order_id, OrderState::Cancelled).await?;
    people::shown(&shop, "kim", OrderState::Cancelled).await?;

    let charges = people::charges(&shop, &lees.order_id).await?;
    assert_eq!((charges.len(), charges[0].refunded.clone().unwrap_or_default().units), (1, 0));
    assert_eq!(people::payment(&shop, &lees.order_id).await?.state(), PaymentState::Approved);
    people::make(&shop, &lees.order_id).await?;
    people::shown(&shop, "lee", OrderState::Ready).await?;
    Ok(())
}

/// There every change of a row was told as its cancel.
#[tokio::test]
async fn a_coffee_that_is_made_was_never_said_to_be_cancelled() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order = people::paid(&shop, "kim").await?;
    people::make(&shop, &order.order_id).await?;
    people::shown(&shop, "kim", OrderState::Ready).await?;
    let said = tables::kinds(&shop).await?;
    let usual = ["OrderPlaced", "PaymentApproved", "CoffeeQueued", "CoffeeStarted", "CoffeeMade"];
    assert_eq!(said, usual);
    Ok(())
}

/// There the menu id was null in all that was stored and told.
#[tokio::test]
async fn what_was_ordered_is_what_is_paid_made_and_shown() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let mut request = people::lattes("kim");
    let (menu_item_id, note) = ("espresso".to_owned(), String::new());
    request.lines.push(LineItem { menu_item_id, quantity: 1, size: Size::Small.into(), note });
    let order = people::place(&shop, request.clone()).await?;
    let ticket = people::ticket(&shop, &order.order_id).await?;
    let shown = people::shown(&shop, "kim", OrderState::Paid).await?;
    let payment = people::payment(&shop, &order.order_id).await?;
    for lines in [&order.lines, &payment.lines, &ticket.lines, &shown.lines] {
        assert_eq!(*lines, request.lines);
    }
    let ids: BTreeSet<_> = shown.lines.iter().map(|line| line.menu_item_id.as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["espresso", "latte"]));
    Ok(())
}
