//! The record: what was told is read, followed, and told again.

use crate::tally::{Keeper, SOON, add, added, counted};
use journal::{
    Record, Time,
    record::{Entry, Follower, Wanted},
};
use sea_orm::{
    ConnectionTrait as _,
    sea_query::{Alias, Expr, ExprTrait as _, Query},
};
use std::collections::HashSet;
use testbed::until;
use uuid::Uuid;

const COLUMNS: [&str; 10] = [
    "published",
    "kind",
    "subject",
    "time",
    "correlation_id",
    "causation_id",
    "traceparent",
    "tracestate",
    "payload",
    "edition",
];

impl Keeper {
    fn record(&self) -> Record {
        Record::open(&self.database, "/tally")
    }

    /// Another process stores an event under this id: one like that.
    async fn store_another(&self, id: Uuid, like: Uuid) {
        let stored = self.writer.chore(move |tx| {
            Box::pin(async move {
                let that = Query::select()
                    .expr(Expr::val(id))
                    .columns(COLUMNS)
                    .from(Alias::new("outbox"))
                    .and_where(Expr::col("id").eq(like))
                    .take();
                let mut insert = Query::insert();
                insert.into_table("outbox").columns(["id"].into_iter().chain(COLUMNS));
                insert.select_from(that).expect("as many columns");
                Ok(tx.execute(&insert).await?.rows_affected())
            })
        });
        assert_eq!(stored.await.expect("it can be stored"), 1);
    }
}

async fn next(follower: &mut Follower) -> Vec<Entry> {
    let next = tokio::time::timeout(SOON, follower.next()).await;
    next.expect("it is told in time").expect("the record can be read")
}

fn ids(entries: &[Entry]) -> Vec<Uuid> {
    entries.iter().map(|entry| entry.event.id).collect()
}

#[tokio::test]
async fn all_that_was_told_can_be_read_and_what_was_told_of_one_thing() {
    let keeper = Keeper::open().await;
    keeper.hear((0..1_200).map(|n| add(1 + n % 2, 1)).collect()).await;
    let (record, mut read, mut wanted) = (keeper.record(), Vec::new(), Wanted::default());
    loop {
        let page = record.page(wanted).await.expect("the record can be read");
        let Some(last) = page.last() else { break };
        wanted.after = Some(last.event.id);
        read.extend(page);
    }
    assert_eq!(read.len(), 1_200);
    assert!(read.is_sorted_by_key(|entry| entry.event.id));
    assert!(read.iter().all(|entry| !entry.published), "the bus is not open");
    let of_one = Wanted { subject: Some(Uuid::from_u128(2)), ..Wanted::default() };
    let of_one = record.page(of_one).await.expect("the record can be read");
    assert!(of_one.iter().all(|entry| entry.event.subject == Uuid::from_u128(2)));
    let later = Wanted { since: Some(Time::now().plus(SOON)), ..Wanted::default() };
    assert!(record.page(later).await.expect("the record can be read").is_empty());
    keeper.close().await;
}

#[tokio::test]
async fn who_follows_hears_each_event_once_also_one_that_is_stored_late() {
    let keeper = Keeper::open().await;
    keeper.act(add(1, 1)).await.expect("it grows");
    let mut follower = keeper.record().follow(Wanted::default());
    let first = ids(&next(&mut follower).await)[0];
    keeper.act(add(1, 1)).await.expect("it grows");
    let second = ids(&next(&mut follower).await);
    assert_eq!(second.len(), 1, "and not the first again");
    // its id was made before that of the second, and its transaction ended after it
    let late = Uuid::from_u128(second[0].as_u128() - 1);
    keeper.store_another(late, first).await;
    assert_eq!(ids(&next(&mut follower).await), [late]);
    keeper.act(add(1, 1)).await.expect("it grows");
    assert_eq!(next(&mut follower).await.len(), 1, "each once");
    keeper.close().await;
}

/// More than one call's worth, so that the caller goes on.
#[tokio::test]
async fn a_replay_tells_all_again_under_new_message_ids_and_says_how_far_it_got() {
    let keeper = Keeper::open().await;
    let mut subscription = keeper.bus.subscribe(None, counted());
    keeper.hear((0..12_000).map(|id| add(id, 1)).collect()).await;
    keeper.bus.open();
    let all = async {
        let mut told = HashSet::new();
        while told.len() < 12_000 {
            let next = tokio::time::timeout(SOON, subscription.next(1_000)).await;
            for delivery in next.expect("in time").expect("the bus lives") {
                if delivery.event.audience.as_deref() == Some("others") {
                    let message_id = delivery.event.message_id();
                    let id = delivery.event.id.to_string();
                    assert!(message_id.starts_with(&id) && message_id.len() > id.len());
                    told.insert(delivery.event.id);
                }
                delivery.done();
            }
        }
    };
    let replay = async {
        let (record, mut wanted, mut count, mut calls) = (keeper.record(), Wanted::default(), 0, 0);
        loop {
            let replayed = record.replay(&keeper.bus, wanted, Some("others")).await;
            let replayed = replayed.expect("the bus takes them");
            (wanted.after, count, calls) = (replayed.last, count + replayed.count, calls + 1);
            if replayed.done {
                return (count, calls);
            }
        }
    };
    let ((count, calls), ()) = tokio::join!(replay, all);
    assert!(count == 12_000 && calls >= 2, "{count} events in {calls} calls");
    keeper.close().await;
}

#[tokio::test]
async fn what_is_told_again_for_somebody_else_is_left_unread() {
    let keeper = Keeper::open().await;
    keeper.bus.open();
    for (audience, count) in [("others", 7), ("tally", 5)] {
        let mut event = (*added(1, count)).clone();
        event.audience = Some(audience.into());
        keeper.bus.publish(vec![event.into()]).await.expect("the bus has it");
    }
    let tally = until("the second", SOON, async || keeper.get(1).await).await;
    assert_eq!(tally.expect("it is handled").count, 5);
    keeper.close().await;
}

#[tokio::test]
async fn a_bus_that_does_not_answer_is_away() {
    let keeper = Keeper::open_embedded().await; // its bus is never opened
    keeper.act(add(1, 1)).await.expect("it grows");
    let record = keeper.record();
    let away = record.replay(&keeper.bus, Wanted::default(), None);
    let away = tokio::time::timeout(SOON, away).await.expect("it gives up");
    assert!(matches!(away, Err(journal::record::Error::BusAway)), "{away:?}");
    keeper.close().await;
}
