//! Watching one order.

use crate::counter::{Counter, lattes, reason};
use contract::{make::v1::TicketState, order::v1::OrderState};
use tonic::Code;

#[tokio::test]
async fn a_watch_tells_the_present_then_each_change_and_ends_with_the_order() {
    let counter = Counter::open().await;
    let order = counter.place(lattes("kim")).await.expect("it is paid");
    let mut watch = counter.watch(&order.order_id, 0).await.expect("it is there");
    assert_eq!(watch.next().await, Ok(Some(order.clone())));
    let other = counter.place(lattes("lee")).await.expect("it is paid");
    counter.ticket(&other.order_id, 2, TicketState::Making).await;
    for (revision, ticket, state) in
        [(2, TicketState::Making, OrderState::Making), (3, TicketState::Made, OrderState::Ready)]
    {
        counter.ticket(&order.order_id, revision, ticket).await;
        let told = watch.next().await.expect("it goes on").expect("it goes on");
        assert_eq!((told.order_id, told.state), (order.order_id.clone(), state.into()));
    }
    assert_eq!(watch.next().await, Ok(None), "it is never left");
    let mut late = counter.watch(&order.order_id, 0).await.expect("it is there");
    assert_eq!(late.next().await.expect("the present").map(|o| o.state()), Some(OrderState::Ready));
    assert_eq!(late.next().await, Ok(None));
    counter.close().await;
}

#[tokio::test]
async fn nothing_is_told_that_the_watcher_has_seen() {
    let counter = Counter::open().await;
    let order = counter.place(lattes("kim")).await.expect("it is paid");
    let mut watch = counter.watch(&order.order_id, order.revision).await.expect("it is there");
    counter.ticket(&order.order_id, 3, TicketState::Made).await;
    let told = watch.next().await.expect("it goes on").expect("it goes on");
    assert_eq!((told.state(), told.revision), (OrderState::Ready, order.revision + 1));
    assert_eq!(watch.next().await, Ok(None));
    let mut ended = counter.watch(&order.order_id, told.revision).await.expect("it is there");
    assert_eq!(ended.next().await, Ok(None), "nothing more will come");
    counter.close().await;
}

#[tokio::test]
async fn a_watch_ends_when_the_process_drains() {
    let counter = Counter::open().await;
    let order = counter.place(lattes("kim")).await.expect("it is paid");
    let mut watch = counter.watch(&order.order_id, order.revision).await.expect("it is there");
    counter.close().await;
    let status = watch.next().await.expect_err("come back later");
    assert_eq!(reason(&status), (Code::Unavailable, "DRAINING".to_owned()));
}

#[tokio::test]
async fn an_unknown_order_is_not_watched() {
    let counter = Counter::open().await;
    let status = counter.watch("01890000-0000-7000-8000-000000000000", 0).await;
    let status = status.expect_err("nobody knows it");
    assert_eq!(reason(&status), (Code::NotFound, "ORDER_NOT_FOUND".to_owned()));
    counter.close().await;
}
