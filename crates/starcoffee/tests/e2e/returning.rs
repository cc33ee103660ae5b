//! Closing in the evening, opening in the morning.

use crate::{open, people, tables};
use contract::order::v1::OrderState;
use testbed::{Doors as _, Shop, until};

/// All that the services say of a customer, as text.
async fn all(shop: &Shop, customer: &str) -> anyhow::Result<String> {
    let mut said = String::new();
    for order in people::orders(shop, customer).await? {
        said += &format!("{order:#?}\n");
        said += &format!("{:#?}\n", people::payment(shop, &order.order_id).await?);
        said += &format!("{:#?}\n", people::tickets(shop, &order.order_id).await?);
        said += &format!("{:#?}\n", people::charges(shop, &order.order_id).await?);
    }
    said += &format!("{:#?}\n", people::my_orders(shop, customer).await?);
    Ok(said)
}

/// A day's work: one order READY, one CANCELLED with the money back, one REJECTED, one PAID; all events heard by all.
async fn a_day(shop: &Shop) -> anyhow::Result<()> {
    let ready = people::paid(shop, "kim").await?;
    people::make(shop, &ready.order_id).await?;
    let cancelled = people::paid(shop, "kim").await?;
    people::cancel(shop, &cancelled.order_id).await?;
    people::becomes(shop, &cancelled.order_id, OrderState::Cancelled).await?;
    let mut declined = people::lattes("kim");
    "tok_decline".clone_into(&mut declined.payment_token);
    people::place(shop, declined).await?;
    let paid = people::paid(shop, "kim").await?;
    people::ticket(shop, &paid.order_id).await?;
    published(shop).await
}

async fn published(shop: &Shop) -> anyhow::Result<()> {
    until("all events to be published", people::SOON, async || {
        tables::events(shop).await.ok().filter(|(_stored, due)| *due == 0)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn all_is_as_it_was_after_a_restart_and_after_a_kill() -> anyhow::Result<()> {
    let mut shop = open(&[]).await?;
    a_day(&shop).await?;
    let before = all(&shop, "kim").await?;
    assert!(shop.process().terminate().await?.success(), "{}", shop.log());
    shop.reopen(&[]).await?;
    assert_eq!(all(&shop, "kim").await?, before, "after a restart");
    shop.process().kill().await?;
    shop.reopen(&[]).await?;
    assert_eq!(all(&shop, "kim").await?, before, "after a kill");

    let left = people::orders(&shop, "kim").await?;
    let left = left.iter().find(|order| order.state() == OrderState::Paid).expect("one is paid");
    people::make(&shop, &left.order_id).await?;
    let last = people::ticket(&shop, &left.order_id).await?.number;
    let next = people::paid(&shop, "kim").await?;
    let next = people::ticket(&shop, &next.order_id).await?.number;
    assert_eq!(next, last + 1, "numbers go on where they stopped");
    Ok(())
}

#[tokio::test]
async fn a_replay_of_all_events_changes_nothing() -> anyhow::Result<()> {
    let mut shop = open(&[]).await?;
    a_day(&shop).await?;
    let before = all(&shop, "kim").await?;
    let (stored, _) = tables::events(&shop).await?;
    assert!(stored >= 15, "only {stored} events");
    assert!(shop.process().terminate().await?.success());
    for file in tables::PUBLISHERS {
        tables::edit(&shop, file, "UPDATE outbox SET published = 0").await?;
    }
    assert_eq!(tables::events(&shop).await?, (stored, stored), "all are to be published again");

    shop.reopen(&[]).await?;
    published(&shop).await?;
    let (now, _) = tables::events(&shop).await?;
    assert_eq!(all(&shop, "kim").await?, before);
    // what repeats a request is told again that it is refused; nothing else is news
    assert!(now - stored <= 1, "{} new events", now - stored);
    Ok(())
}

#[tokio::test]
async fn the_automatic_barista_finishes_what_it_had_started() -> anyhow::Result<()> {
    let mut shop = open(&["--auto-barista", "1h"]).await?;
    let order = people::paid(&shop, "kim").await?;
    people::becomes(&shop, &order.order_id, OrderState::Making).await?;
    shop.process().kill().await?;
    shop.reopen(&["--auto-barista", "10ms"]).await?;
    people::becomes(&shop, &order.order_id, OrderState::Ready).await?;
    Ok(())
}
