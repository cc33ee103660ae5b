//! The purge: old events leave the outbox, and none that somebody may need.

use crate::tally::{Keeper, SOON, add};
use futures::FutureExt as _;
use journal::purge::{self, Config};
use std::time::Duration;
use testbed::{Engine, matrix, until};
use uuid::Uuid;

const EVERY: Duration = Duration::from_millis(10);

/// All but the second.
fn purge(keeper: &Keeper, keep: Duration) {
    purge::open(
        &keeper.host,
        &keeper.database,
        &keeper.writer,
        Config { keep, every: EVERY },
        |_pool, ids| {
            let settled = ids.into_iter().filter(|id| *id != Uuid::from_u128(2)).collect();
            async { Ok(settled) }.boxed()
        },
    );
}

#[tokio::test]
async fn what_is_old_published_and_settled_leaves_the_outbox() {
    let keeper = Keeper::open().await;
    keeper.bus.open();
    keeper.hear((0..2_500).map(|id| add(id, 1)).collect()).await;
    purge(&keeper, Duration::ZERO);
    let left = async || (keeper.count("FROM outbox").await == 1).then_some(());
    until("one event to be left", SOON, left).await.expect("in time");
    assert_eq!(keeper.count("FROM tallies").await, 2_500, "only events go");
    keeper.close().await;
}

#[tokio::test]
async fn counts_of_failures_leave_with_events_as_old() {
    let keeper = Keeper::open().await;
    let young = Uuid::now_v7();
    for id in [Uuid::from_u128(7), young] {
        let id = match matrix::engine() {
            Engine::Postgres => format!("'{id}'"),
            _ => format!("x'{}'", id.simple()),
        };
        keeper.alter(format!("INSERT INTO event_failures (id, attempts) VALUES ({id}, 1)")).await;
    }
    assert_eq!(keeper.count("FROM event_failures").await, 2);
    purge(&keeper, Duration::from_secs(3600));
    keeper.counts(1, "FROM event_failures").await;
    // some looks later
    let other = Keeper::open().await;
    other.bus.open();
    other.hear(vec![add(1, 1)]).await;
    purge(&other, Duration::ZERO);
    other.counts(0, "FROM outbox").await;
    keeper.counts(1, "FROM event_failures").await;
    keeper.close().await;
    other.close().await;
}

#[tokio::test]
async fn what_is_young_or_unpublished_stays() {
    let old = Keeper::open_embedded().await; // its bus is never opened
    let young = Keeper::open().await;
    young.bus.open();
    for (keeper, keep) in [(&old, Duration::ZERO), (&young, Duration::from_secs(3600))] {
        keeper.hear((0..10).map(|id| add(id, 1)).collect()).await;
        purge(keeper, keep);
    }
    let published =
        async || (young.count("FROM outbox WHERE published = 1").await == 10).then_some(());
    until("the young ones to be published", SOON, published).await.expect("in time");
    // a third has what it takes: by the time that it has purged, the others have looked as well
    let third = Keeper::open().await;
    third.bus.open();
    third.hear((0..10).map(|id| add(id, 1)).collect()).await;
    purge(&third, Duration::ZERO);
    let left = async || (third.count("FROM outbox").await == 1).then_some(());
    until("one event to be left", SOON, left).await.expect("in time");
    for keeper in [old, young] {
        assert_eq!(keeper.count("FROM outbox").await, 10);
        keeper.close().await;
    }
    third.close().await;
}
