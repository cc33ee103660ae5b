//! The consumer: what others say is told to the noun, once it is stored it counts as handled, and bad events end as dead
//! letters without holding up good ones.

use crate::tally::{Keeper, SOON, added, counted};
use journal::Envelope;

#[tokio::test]
async fn an_event_is_handled_when_it_is_stored_and_its_facts_name_it() {
    let keeper = Keeper::open().await;
    let mut subscription = keeper.bus.subscribe(None, counted());
    keeper.bus.open();
    let event = added(1, 5);
    keeper.bus.publish(vec![event.clone()]).await.expect("it is published");
    keeper.becomes(1, 5).await;
    let told = tokio::time::timeout(SOON, subscription.next(1)).await.expect("it is told in time");
    let told = told.expect("the bus lives").remove(0);
    assert_eq!(told.event.causation_id, event.id);
    told.done();
    keeper.close().await;
}

#[tokio::test]
async fn a_refused_event_is_tried_again_and_then_laid_aside_and_others_go_on() {
    let keeper = Keeper::open().await;
    keeper.bus.open();
    let (bad, good) = (added(1, -5), added(1, 6));
    keeper.bus.publish(vec![bad.clone(), good]).await.expect("both are published");
    keeper.becomes(1, 6).await;
    let letter = "FROM dead_letters WHERE attempts = 2 AND error = 'a tally only grows' AND kind = 'google.protobuf.Duration'";
    keeper.counts(1, letter).await;
    let again = Envelope { edition: Some("again".into()), ..(*bad).clone() };
    keeper.bus.publish(vec![again.into(), added(2, 5)]).await.expect("both are published");
    keeper.becomes(2, 5).await;
    keeper.counts(1, "FROM dead_letters").await; // one event is one letter
    keeper.close().await;
}

#[tokio::test]
async fn good_events_overtake_one_that_is_tried_again() {
    let keeper = Keeper::open().await;
    keeper.bus.open();
    let bad = keeper.bus.publish(vec![added(1, -5)]);
    let good = async {
        keeper.bus.publish(vec![added(2, 5)]).await.expect("it is published");
        keeper.becomes(2, 5).await;
        keeper.count("FROM dead_letters").await
    };
    let (bad, letters) = tokio::join!(bad, good);
    bad.expect("it is published");
    assert_eq!(letters, 0, "the other was still being tried");
    keeper.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_or_makes_its_noun_panic_is_laid_aside() {
    let keeper = Keeper::open().await;
    keeper.bus.open();
    keeper
        .bus
        .publish(vec![added(0, 5), added(1, 13), added(2, 5)])
        .await
        .expect("all are published");
    keeper.counts(1, "FROM dead_letters WHERE error LIKE '%nanos is missing'").await;
    keeper.counts(1, "FROM dead_letters WHERE error LIKE '%unlucky%'").await;
    keeper.becomes(2, 5).await;
    keeper.close().await;
}
