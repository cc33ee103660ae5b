//! Watching through the audience: what this process changes, and what another does.

use crate::tally::{Add, Column, Entity, Keeper, Model, SOON, add, cause};
use chassis::Host;
use futures::FutureExt as _;
use journal::{Audience, Database, Watched, Watcher, Writer, audience, writer};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, ExprTrait as _, QueryFilter as _, QueryOrder as _,
    QueryTrait as _, Select,
};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// Another process's change is told within a second; the rest is this machine being busy.
const WITHIN: Duration = Duration::from_secs(2);

/// Tallies are watched by their names; at a hundred they have ended.
impl Watched for Model {
    type Interest = String;

    fn interest(&self) -> Option<String> {
        Some(self.name.clone())
    }

    fn revision(&self) -> i64 {
        self.changes
    }

    fn has_ended(&self) -> bool {
        self.count >= 100
    }

    fn open(names: Vec<String>, after: Option<&Self>) -> Select<Entity> {
        Entity::find()
            .filter(Column::Name.is_in(names))
            // those of lee are found to their end and after it
            .filter(Column::Count.lt(100).or(Column::Name.eq("lee")))
            .apply_if(after, |tallies, last| tallies.filter(Column::Id.gt(last.id)))
            .order_by_asc(Column::Id)
    }
}

/// Another process on the same database, which publishes nothing; and its audience.
async fn replica(keeper: &Keeper) -> (Host, Writer<Model>, Audience<Model>) {
    let host = Host::new();
    let database = Database::open(&keeper.data.source()).await.expect("it is ours");
    let writer = Writer::open(&host, &database, None, writer::Config::default());
    let audience = Audience::open(&host, &database, &writer, config());
    (host, writer, audience)
}

/// Files are looked into as well: here they are two processes'.
fn config() -> audience::Config {
    audience::Config { in_files: true, ..audience::Config::default() }
}

async fn named(writer: &Writer<Model>, id: u128, name: &'static str, count: i64) {
    let add = Add { id: Uuid::from_u128(id), name, count };
    writer.act(add, cause()).await.expect("it grows");
}

/// What is told next, as id and count. What another process changed comes within a second, and a busy machine's second.
async fn next(watcher: &mut Watcher<Model>) -> (u128, i64) {
    let tally = timeout(SOON, watcher.next()).await.expect("it is told").expect("it goes on");
    (tally.id.as_u128(), tally.count)
}

#[tokio::test]
async fn a_watcher_hears_what_another_process_changes_and_each_state_once() {
    let keeper = Keeper::open().await;
    let (_host, other, audience) = replica(&keeper).await;
    named(&keeper.writer, 1, "lee", 1).await;
    let [mut kim, mut lee] = ["kim", "lee"].map(|name| audience.watch(name.to_owned()));
    assert_eq!(next(&mut lee).await, (1, 1), "what is there is found, too");

    named(&keeper.writer, 2, "kim", 1).await;
    let begun = Instant::now();
    assert_eq!(next(&mut kim).await, (2, 1));
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    named(&other, 2, "kim", 1).await;
    assert_eq!(next(&mut kim).now_or_never(), Some((2, 2)), "its own changes are told at once");
    named(&keeper.writer, 2, "kim", 1).await;
    named(&other, 2, "kim", 1).await;
    assert_eq!(next(&mut kim).await, (2, 4), "the newest, whoever changed it");

    // it ends elsewhere, and is no more among those that are open
    named(&keeper.writer, 2, "kim", 96).await;
    named(&keeper.writer, 1, "lee", 99).await;
    assert_eq!((next(&mut kim).await, next(&mut lee).await), ((2, 100), (1, 100)));
    for count in [1, 2] {
        named(&keeper.writer, 3, "kim", 1).await;
        assert_eq!(next(&mut kim).await, (3, count), "and nothing is told twice");
    }
    assert!(lee.next().now_or_never().is_none(), "that is not lee's");
    keeper.close().await;
}

#[tokio::test]
async fn more_than_one_look_holds_are_walked_through() {
    let keeper = Keeper::open().await;
    let (_host, _other, audience) = replica(&keeper).await;
    keeper.hear((0..2_500).map(|id| add(id, 1)).collect()).await;
    let mut watcher = audience.watch("plain".to_owned());
    let mut told = Vec::new();
    while told.len() < 2_500 {
        let batch = timeout(SOON, watcher.batch()).await.expect("they are told");
        told.extend(batch.expect("it goes on"));
    }
    told.sort_by_key(|tally| tally.id);
    told.dedup_by_key(|tally| tally.id);
    assert_eq!(told.len(), 2_500, "each once");
    keeper.hear(vec![add(7, 100), add(2_499, 5)]).await;
    let mut told = [next(&mut watcher).await, next(&mut watcher).await];
    told.sort_unstable();
    assert_eq!(told, [(7, 101), (2_499, 6)]);
    keeper.close().await;
}
