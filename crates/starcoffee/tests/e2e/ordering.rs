//! From the menu to the counter.

use crate::{open, people};
use contract::{
    mypage::v1::MyOrderHistory,
    order::v1::{ListMenuRequest, OrderState, WatchOrderRequest},
};
use futures::future::join_all;
use std::collections::BTreeSet;
use testbed::Doors as _;
use tonic::Code;

#[tokio::test]
async fn a_customer_orders_watches_and_gets_a_coffee() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let menu = shop.order().list_menu(ListMenuRequest {}).await?.into_inner().menu_items;
    assert!(
        ["latte", "americano", "espresso", "cappuccino"].iter().all(|id| {
            menu.iter().any(|item| item.menu_item_id == *id && item.prices.len() == 3)
        })
    );

    let placed = people::place(&shop, people::lattes("kim")).await?;
    assert_eq!(placed.state(), OrderState::Paid);
    let watch = WatchOrderRequest { order_id: placed.order_id.clone(), after_revision: 0 };
    let mut watch = shop.order().watch_order(watch).await?.into_inner();
    let order = people::make(&shop, &placed.order_id).await?;
    assert_eq!((&order.lines, &order.total), (&placed.lines, &placed.total));
    let mut seen = Vec::new();
    while let Some(update) = watch.message().await? {
        seen.push(update.order.unwrap_or_default().state());
    }
    assert_eq!(seen.last(), Some(&OrderState::Ready), "it ends after a final state: {seen:?}");

    let mine = people::shown(&shop, "kim", OrderState::Ready).await?;
    let history: Vec<_> = mine.history.iter().map(MyOrderHistory::state).collect();
    let (placed_state, paid) = (OrderState::Placed, OrderState::Paid);
    assert_eq!(history, [placed_state, paid, OrderState::Making, OrderState::Ready]);
    let ticket = people::ticket(&shop, &order.order_id).await?;
    assert_eq!((mine.number, mine.charged), (ticket.number, placed.total.clone()));
    let charges = people::charges(&shop, &order.order_id).await?;
    assert_eq!(charges.len(), 1);
    assert_eq!(charges[0].amount, placed.total);
    let page = people::my_page(&shop, "kim").await?;
    assert_eq!((page.order_count, page.open_orders.len(), page.spent), (1, 0, placed.total));
    Ok(())
}

#[tokio::test]
async fn a_declined_card_is_an_answer_and_nothing_is_made() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let mut request = people::lattes("kim");
    "tok_decline".clone_into(&mut request.payment_token);
    let order = people::place(&shop, request.clone()).await?;
    assert_eq!(
        (order.state(), order.state_reason.as_str()),
        (OrderState::Rejected, "PAYMENT_DECLINED")
    );
    let mine = people::shown(&shop, "kim", OrderState::Rejected).await?;
    assert_eq!(mine.charged.unwrap_or_default().units, 0);
    assert!(people::charges(&shop, &order.order_id).await?.is_empty());
    assert!(people::tickets(&shop, &order.order_id).await?.is_empty());
    let again = people::place(&shop, request).await?;
    assert_eq!(again.order_id, order.order_id, "the same request is the same order");
    Ok(())
}

#[tokio::test]
async fn a_hundred_repeats_at_once_are_one_order_and_one_charge() -> anyhow::Result<()> {
    let shop = open(&["--provider-latency", "100ms"]).await?;
    let request = people::lattes("kim");
    let answers = join_all((0..100).map(|_| people::place(&shop, request.clone()))).await;
    let orders = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let ids: BTreeSet<_> = orders.iter().map(|order| order.order_id.as_str()).collect();
    assert_eq!(ids.len(), 1);
    assert!(orders.iter().all(|order| order.state() == OrderState::Paid));
    assert_eq!(people::charges(&shop, &orders[0].order_id).await?.len(), 1);
    people::ticket(&shop, &orders[0].order_id).await?;
    assert_eq!(people::orders(&shop, "kim").await?.len(), 1);

    let mut other = request.clone();
    other.lines[0].quantity += 1;
    let refused = people::place(&shop, other).await.expect_err("another body");
    assert_eq!(
        (refused.code(), people::reason(&refused).as_str()),
        (Code::FailedPrecondition, "REQUEST_ID_REUSED")
    );
    let mut another = request;
    "lee".clone_into(&mut another.customer_id);
    let independent = people::place(&shop, another).await?;
    assert_ne!(independent.order_id, orders[0].order_id);
    Ok(())
}

#[tokio::test]
async fn a_refused_order_leaves_nothing_and_does_not_use_its_request_up() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let good = people::lattes("kim");
    let mut unknown = good.clone();
    "unicorn-milk".clone_into(&mut unknown.lines[0].menu_item_id);
    let mut none = good.clone();
    none.lines[0].quantity = 0;
    for (request, why) in [(unknown, "MENU_ITEM_UNKNOWN"), (none, "VALIDATION")] {
        let refused = people::place(&shop, request).await.expect_err(why);
        assert_eq!(
            (refused.code(), people::reason(&refused).as_str()),
            (Code::InvalidArgument, why)
        );
    }
    assert!(people::orders(&shop, "kim").await?.is_empty());
    assert_eq!(people::place(&shop, good).await?.state(), OrderState::Paid);
    Ok(())
}
