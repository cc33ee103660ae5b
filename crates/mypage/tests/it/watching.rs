//! `WatchMyOrders`: the open orders, oldest first, then each change of any order of theirs.

use crate::{
    page::{Page, reason},
    story::Story,
};
use contract::{make::v1::TicketState, order::v1::OrderState, payment::v1::PaymentState};

#[tokio::test]
async fn a_watch_begins_with_the_open_orders_oldest_first() {
    let page = Page::open().await;
    let [first, ready, third, foreign] = [(1, "kim"), (2, "kim"), (3, "kim"), (4, "Kim")]
        .map(|(n, customer)| Story::of(n, customer));
    page.tell(&[first.placed(), third.placed(), foreign.placed()]).await;
    page.tell(&ready.usual()).await;

    let mut watch = page.watch("kim").await;
    let snapshot: Vec<_> = watch.snapshot().await.into_iter().map(|order| order.order_id).collect();
    assert_eq!(snapshot, [first.id(), third.id()]);

    page.tell(&[foreign.paid(1, PaymentState::Approved, 2)]).await;
    page.tell(&[third.paid(1, PaymentState::Approved, 2)]).await;
    let change = watch.next().await;
    assert_eq!((change.state(), change.order_id), (OrderState::Paid, third.id()));
    page.tell(&third.usual()).await;
    watch.until(|order| order.order_id == third.id() && order.state() == OrderState::Ready).await;

    let fifth = Story::of(5, "kim");
    page.tell(&[fifth.ticket(1, TicketState::Queued, 3)]).await; // nobody's yet
    page.tell(&[fifth.placed()]).await;
    let change = watch.next().await;
    assert_eq!((change.order_id, change.revision), (fifth.id(), 2));
    page.close().await;
}

#[tokio::test]
async fn an_unknown_customer_may_be_watched() {
    let page = Page::open().await;
    let mut watch = page.watch("kim").await;
    assert_eq!(watch.snapshot().await, []);
    let story = Story::of(1, "kim");
    page.tell(&[story.placed()]).await;
    assert_eq!(watch.next().await.order_id, story.id());
    page.close().await;
}

#[tokio::test]
async fn a_watch_ends_when_the_service_drains() {
    let page = Page::open().await;
    let mut watch = page.watch("kim").await;
    watch.snapshot().await;
    page.close().await;
    assert_eq!(reason(&watch.end().await), "DRAINING");
}
