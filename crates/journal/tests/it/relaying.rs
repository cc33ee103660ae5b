//! The outbox and its relay: all that is stored is published, whatever happens in between.

use crate::tally::{Keeper, SOON, SOURCE, add, counted};
use journal::{
    Bus, Envelope,
    bus::{Delivery, Subscription},
};
use std::sync::Arc;
use testbed::until;
use uuid::Uuid;

/// Hears so many events, and handles them.
async fn hear(subscription: &mut Subscription, count: usize) -> Vec<Arc<Envelope>> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let next = tokio::time::timeout(SOON, subscription.next(1000)).await;
        for delivery in next.expect("it is published in time").expect("the bus lives") {
            heard.push(delivery.event.clone());
            delivery.done();
        }
    }
    heard
}

async fn all_marked(keeper: &Keeper) {
    let none = async || (keeper.count("FROM outbox WHERE published = 0").await == 0).then_some(());
    until("all events to be marked", SOON, none).await.expect("they are in time");
}

#[tokio::test]
async fn an_event_says_where_it_comes_from_and_what_led_to_it() {
    let keeper = Keeper::open().await;
    let mut subscription = keeper.bus.subscribe(None, counted());
    keeper.bus.open();
    keeper.act(add(1, 5)).await.expect("it grows");
    keeper.act(add(1, 5)).await.expect("it grows");
    let heard = hear(&mut subscription, 2).await;
    let Envelope { id, kind, source, subject, correlation_id, causation_id, traceparent, .. } =
        &*heard[0];
    assert_eq!((&**kind, &**source), ("google.protobuf.Timestamp", SOURCE));
    assert_eq!((subject.as_u128(), correlation_id.as_u128(), causation_id.as_u128()), (1, 7, 9));
    assert_eq!((id.get_version_num(), traceparent.as_deref()), (7, Some("00-trace")));
    assert!(*id < heard[1].id, "in the order in which they happened");
    all_marked(&keeper).await;
    keeper.close().await;
}

#[tokio::test]
async fn what_was_stored_while_nobody_listened_is_published_by_the_next_process() {
    let keeper = Keeper::open_embedded().await; // its bus is never opened
    keeper.hear((1..=1_200).map(|id| add(id, 1)).collect()).await;
    let database = keeper.close().await;
    let bus = Bus::embedded();
    let mut subscription = bus.subscribe(None, counted());
    let keeper = Keeper::open_in(database, bus).await;
    assert_eq!(keeper.count("FROM outbox WHERE published = 0").await, 1_200);
    keeper.bus.open();
    let mut subjects: Vec<_> =
        hear(&mut subscription, 1_200).await.iter().map(|event| event.subject).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, (1..=1_200).map(Uuid::from_u128).collect::<Vec<_>>(), "each once");
    all_marked(&keeper).await;
    keeper.close().await;
}

#[tokio::test]
async fn what_a_subscriber_drops_is_published_again() {
    let keeper = Keeper::open().await;
    let mut subscription = keeper.bus.subscribe(None, counted());
    keeper.bus.open();
    keeper.act(add(1, 5)).await.expect("it grows");
    let dropped = subscription.next(10).await.expect("it is published");
    let id = dropped[0].event.id;
    drop(dropped);
    assert_eq!(hear(&mut subscription, 1).await[0].id, id);
    all_marked(&keeper).await;
    keeper.close().await;
}

#[tokio::test]
async fn events_that_wait_for_their_subscriber_hold_up_no_other() {
    let keeper = Keeper::open_embedded().await;
    let mut subscription = keeper.bus.subscribe(None, counted());
    keeper.bus.open();
    let mut held: Vec<Delivery> = Vec::new();
    for _ in 0..100 {
        keeper.act(add(1, 5)).await.expect("it grows");
        held.extend(subscription.next(10).await.expect("it is published"));
    }
    keeper.act(add(2, 5)).await.expect("it grows");
    assert_eq!(hear(&mut subscription, 1).await[0].subject.as_u128(), 2);
    let due = "FROM outbox WHERE published = 0";
    let held_left = async || (keeper.count(due).await == 100).then_some(());
    until("the last event to be marked", SOON, held_left).await.expect("it is in time");
    held.into_iter().for_each(Delivery::done);
    all_marked(&keeper).await;
    keeper.close().await;
}

/// Longer than the embedded bus lets events wait in line for one subscriber.
#[tokio::test]
async fn a_subscriber_who_does_not_listen_keeps_nothing_from_the_others() {
    let keeper = Keeper::open_embedded().await;
    let deaf = keeper.bus.subscribe(None, counted());
    let mut subscription = keeper.bus.subscribe(None, counted());
    keeper.bus.open();
    for _ in 0..200 {
        keeper.act(add(1, 5)).await.expect("it grows");
        hear(&mut subscription, 1).await;
    }
    drop(deaf);
    keeper.close().await;
}
