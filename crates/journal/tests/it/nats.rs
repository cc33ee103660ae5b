//! The bus between processes, on a real nats-server that is killed, frozen, emptied and set back.

use crate::tally::{Keeper, add, added};
use testbed::Nats;

#[tokio::test]
async fn events_stored_while_nats_is_away_are_published_when_it_comes() {
    let mut nats = Nats::start().await.expect("a server");
    nats.kill().await.expect("it runs");
    let mut keeper = Keeper::open_nats(nats).await;
    for id in 1..=5 {
        keeper.act(add(id, 1)).await.expect("NATS is not needed to decide");
    }
    assert_eq!(keeper.count("FROM outbox WHERE published = 0").await, 5);
    keeper.nats.as_mut().expect("it has one").restart().await.expect("it starts again");
    keeper.counts(5, "FROM outbox WHERE published = 1 AND stream_sequence > 0").await;
    keeper.bus.publish(vec![added(1, 5)]).await.expect("it is published");
    keeper.becomes(1, 6).await;
    keeper.close().await;
}
