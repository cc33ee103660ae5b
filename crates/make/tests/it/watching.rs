//! `WatchTickets`: the open tickets, oldest first, then each change.

use crate::bar::{Bar, order, reason};
use contract::make::v1::TicketState;

#[tokio::test]
async fn a_watch_begins_with_the_open_tickets_oldest_first() {
    let bar = Bar::open().await;
    bar.tell(order(9, "kim").cancel_requested()).await; // a tombstone is not shown
    for n in 1..=4 {
        bar.queue(order(n, "kim")).await;
    }
    let [making, made] = [bar.ticket_of(order(2, "")).await, bar.ticket_of(order(3, "")).await];
    bar.start(&making.ticket_id, "ann").await.expect("it is queued");
    bar.start(&made.ticket_id, "ann").await.expect("it is queued");
    bar.complete(&made.ticket_id).await.expect("it was started");

    let mut watch = bar.watch().await;
    let snapshot: Vec<_> = watch
        .snapshot()
        .await
        .into_iter()
        .map(|ticket| (ticket.order_id.clone(), ticket.state()))
        .collect();
    let expected = [(1, TicketState::Queued), (2, TicketState::Making), (4, TicketState::Queued)];
    assert_eq!(snapshot, expected.map(|(n, state)| (order(n, "").id(), state)));

    bar.complete(&making.ticket_id).await.expect("it was started");
    assert_eq!(watch.next().await.state(), TicketState::Made);
    let fifth = bar.queue(order(5, "kim")).await;
    assert_eq!(watch.next().await, fifth);
    bar.tell(order(5, "kim").cancel_requested()).await;
    assert_eq!(watch.next().await.state(), TicketState::Cancelled);
    bar.close().await;
}

#[tokio::test]
async fn an_empty_queue_has_an_empty_snapshot() {
    let bar = Bar::open().await;
    let mut watch = bar.watch().await;
    assert_eq!(watch.snapshot().await, []);
    bar.close().await;
}

#[tokio::test]
async fn a_watch_ends_when_the_service_drains() {
    let bar = Bar::open().await;
    let mut watch = bar.watch().await;
    watch.snapshot().await;
    bar.close().await;
    assert_eq!(reason(watch.end().await), "DRAINING");
}
