//! Dead letters: listed, handed to their handler again, given up.

use crate::tally::{Keeper, Model, SOON, added, routes};
use journal::letters::{Error, Letters};
use sea_orm::ConnectionTrait as _;
use testbed::{Engine, matrix, until};
use uuid::Uuid;

impl Keeper {
    fn letters(&self) -> Letters<Model> {
        Letters::open(&self.database, routes(), &self.writer)
    }

    /// Changes the tables, as an operator would.
    pub(crate) async fn alter(&self, sql: impl Into<String>) {
        let sql = sql.into();
        let altered = self.writer.chore(move |tx| {
            Box::pin(async move { Ok(tx.execute_unprepared(&sql).await?.rows_affected()) })
        });
        altered.await.expect("the statement is well-formed");
    }

    async fn left(&self) -> Vec<Uuid> {
        let letters = self.letters().list(None, 10).await.expect("they can be read");
        letters.into_iter().map(|letter| letter.id).collect()
    }

    async fn lays_aside(&self, ids: &[Uuid]) {
        let laid = async || (self.left().await == ids).then_some(());
        until("events to be laid aside", SOON, laid).await.expect("they are in time");
    }
}

#[tokio::test]
async fn a_letter_is_handled_once_its_cause_is_gone() {
    let keeper = Keeper::open().await;
    keeper.bus.open();
    keeper.alter("CREATE UNIQUE INDEX each_count_once ON tallies (count)").await;
    let (good, bad) = (added(1, 5), added(2, 5));
    keeper.bus.publish(vec![good]).await.expect("the bus has it");
    until("the first", SOON, async || keeper.get(1).await).await.expect("it is handled");
    keeper.bus.publish(vec![bad.clone()]).await.expect("the bus has it");
    keeper.lays_aside(&[bad.id]).await;
    assert_eq!(keeper.get(2).await, None);

    let since = keeper.letters().list(None, 1).await.expect("they can be read")[0].dead_time;
    let still = keeper.letters().redrive(bad.id).await;
    assert!(matches!(&still, Err(Error::Unhandled(why)) if !why.is_empty()), "{still:?}");
    let letter = keeper.letters().list(None, 10).await.expect("they can be read").remove(0);
    assert_eq!((letter.attempts, letter.event()), (3, (*bad).clone()), "two, and one more");
    assert_eq!(letter.dead_time, since, "it is dead since it was laid aside");

    keeper
        .alter(match matrix::engine() {
            Engine::MariaDb => "DROP INDEX each_count_once ON tallies",
            _ => "DROP INDEX each_count_once",
        })
        .await;
    let handled = keeper.letters().redrive(bad.id).await.expect("nothing is in its way");
    assert_eq!(handled, letter, "as it was");
    assert_eq!(keeper.get(2).await.map(|tally| tally.count), Some(5));
    assert!(keeper.left().await.is_empty());
    assert!(matches!(keeper.letters().redrive(bad.id).await, Err(Error::NotFound)));
    keeper.close().await;
}

#[tokio::test]
async fn what_is_given_up_is_gone_and_lists_go_by_key() {
    let keeper = Keeper::open().await;
    keeper.bus.open();
    let bad: Vec<_> = (0..3).map(|_| added(0, 5)).collect(); // cannot be read
    keeper.bus.publish(bad.clone()).await.expect("the bus has them");
    let mut ids: Vec<_> = bad.iter().map(|event| event.id).collect();
    ids.reverse();
    keeper.lays_aside(&ids).await; // the newest first
    let rest = keeper.letters().list(Some(ids[0]), 1).await.expect("they can be read");
    assert_eq!(rest[0].id, ids[1]);
    keeper.letters().discard(ids[1]).await.expect("it is there");
    assert!(matches!(keeper.letters().discard(ids[1]).await, Err(Error::NotFound)));
    assert_eq!(keeper.left().await, [ids[0], ids[2]]);
    keeper.close().await;
}
