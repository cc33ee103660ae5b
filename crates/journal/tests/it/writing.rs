//! The writer: batches, refusals, failures, and what waits.

use crate::tally::{Add, BAD_NAME, Keeper, Negative, SOON, add, cause};
use futures::{FutureExt as _, future::join_all};
use journal::{watch, writer::Error};
use testbed::until;
use uuid::Uuid;

#[tokio::test]
async fn commands_of_one_noun_fold_into_one_row_and_each_is_answered() {
    let keeper = Keeper::open().await;
    let facts = (0..100).map(|_| add(1, 1)).collect();
    let (heard, answers) = tokio::join!(
        keeper.hear(facts),
        join_all([add(1, 1), add(1, 1)].map(|add| keeper.act(add)))
    );
    assert!(heard.iter().all(Result::is_ok));
    let mut counts: Vec<_> =
        answers.into_iter().map(|answer| answer.expect("it grows").count).collect();
    counts.sort_unstable();
    assert_eq!(counts, [101, 102], "facts come first");
    let tally = keeper.get(1).await.expect("it is stored");
    assert_eq!((tally.count, tally.changes), (102, 102));
    assert_eq!(keeper.count("FROM outbox").await, 102);
    keeper.close().await;
}

#[tokio::test]
async fn a_refusal_is_one_caller_s_and_changes_nothing() {
    let keeper = Keeper::open().await;
    let outcomes = keeper.hear(vec![add(1, 5), add(1, -1), add(2, -1), add(1, 6)]).await;
    assert!(matches!(
        outcomes[..],
        [Ok(()), Err(Error::Refused(Negative)), Err(Error::Refused(Negative)), Ok(())]
    ));
    assert_eq!(keeper.get(1).await.map(|tally| tally.count), Some(11));
    assert_eq!(keeper.get(2).await, None);
    keeper.close().await;
}

#[tokio::test]
async fn a_noun_that_panics_harms_nobody_else() {
    let keeper = Keeper::open().await;
    let outcomes = keeper.hear(vec![add(1, 5), add(1, 13), add(2, 6)]).await;
    assert!(
        matches!(&outcomes[..], [Ok(()), Err(Error::Panicked(why)), Ok(())] if why.contains("unlucky"))
    );
    assert_eq!(keeper.act(add(1, 1)).await.expect("the writer lives").count, 6);
    keeper.close().await;
}

#[tokio::test]
async fn what_cannot_be_stored_fails_alone() {
    let keeper = Keeper::open().await;
    let bad = Add { id: Uuid::from_u128(2), name: BAD_NAME, count: 1 };
    let outcomes = keeper.hear(vec![add(1, 5), bad, add(3, 6)]).await;
    assert!(matches!(outcomes[..], [Ok(()), Err(Error::Store(_)), Ok(())]));
    assert_eq!(keeper.count("FROM tallies").await, 2);
    assert_eq!(
        keeper.count("FROM outbox").await,
        2,
        "a fact is stored with its change, or not at all"
    );
    keeper.close().await;
}

/// Regression: a batch of a whole backlog met the database's limit of parameters, and could never be stored.
#[tokio::test]
async fn a_backlog_of_any_size_is_stored() {
    let keeper = Keeper::open().await;
    let outcomes = keeper.hear((0..20_000).map(|id| add(id, 1)).collect()).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(keeper.count("FROM tallies").await, 20_000);
    keeper.close().await;
}

#[tokio::test]
async fn a_full_queue_refuses_commands_and_takes_facts() {
    let keeper = Keeper::open().await;
    // handed over by the first poll; the writer runs when this task waits
    let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(keeper.act(add(1, 1)))).collect();
    assert!(waiting.iter_mut().all(|act| act.now_or_never().is_none()));
    let refused = keeper.act(add(1, 1)).now_or_never();
    assert!(matches!(refused, Some(Err(Error::Overloaded))), "the queue holds four");
    assert!(keeper.hear(vec![add(1, 10)]).await[0].is_ok());
    for answer in join_all(waiting).await {
        answer.expect("it waited its turn");
    }
    assert_eq!(keeper.get(1).await.map(|tally| tally.count), Some(14));
    keeper.close().await;
}

#[tokio::test]
async fn a_caller_who_goes_away_changes_nothing() {
    let keeper = Keeper::open().await;
    assert!(keeper.act(add(1, 5)).now_or_never().is_none(), "it hung up");
    let stored = async || keeper.get(1).await;
    let tally = until("the command to be stored", SOON, stored).await.expect("it was handed over");
    assert_eq!(tally.count, 5);
    keeper.close().await;
}

#[tokio::test]
async fn what_was_handed_over_is_stored_before_the_process_ends() {
    let keeper = Keeper::open().await;
    let writer = keeper.writer.clone();
    let mut answered = Box::pin(writer.act(add(1, 5), cause()));
    assert!(answered.as_mut().now_or_never().is_none());
    keeper.host.stop("closing time");
    assert_eq!(answered.await.expect("it came in time").count, 5);
    keeper.close().await;
    let late = writer.act(add(1, 1), cause()).await;
    assert!(matches!(late, Err(Error::Gone)));
}

#[tokio::test]
async fn who_watches_hears_of_what_is_stored_and_of_the_end() {
    let keeper = Keeper::open().await;
    let mut watcher = keeper.writer.watch(|tally| tally.count > 3);
    keeper.hear(vec![add(1, 1), add(2, 4), add(2, 4)]).await;
    let tally = watcher.next().await.expect("it goes on");
    assert_eq!(
        (tally.id, tally.count),
        (Uuid::from_u128(2), 8),
        "the newest, without those in between"
    );
    keeper.close().await;
    assert_eq!(watcher.next().await, Err(watch::Error::Gone));
}

#[tokio::test]
async fn a_watcher_who_falls_behind_is_told_so() {
    let keeper = Keeper::open().await;
    let mut watcher = keeper.writer.watch(|_tally| true);
    keeper.hear((0..10_500).map(|id| add(id, 1)).collect()).await;
    assert_eq!(watcher.batch().await.map(|batch| batch.len()), Err(watch::Error::Behind));
    let mut watcher = keeper.writer.watch(|_tally| true);
    keeper.act(add(1, 1)).await.expect("it grows");
    assert_eq!(watcher.batch().await.map(|batch| batch.len()), Ok(1));
    keeper.close().await;
}
