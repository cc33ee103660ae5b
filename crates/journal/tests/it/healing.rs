//! What a relay knows of its stream, and what it does when the stream, or the database, is not as it was: on a real nats-server,
//! and where it matters on a server of `PostgreSQL`, whatever engine the other tests run on.

use crate::{
    engines::forget_the_dead,
    nats::{
        PUBLISHED, UNPUBLISHED, event_ids, look, open, open_with, server, server_restarts, tallies,
    },
    tally::{Keeper, SOON, add, added, connect, connect_with, counted, small, stream},
};
use chassis::Host;
use journal::bus::{AtomicPublish, Config, Delivery, Subscription};
use std::{cell::Cell, time::Duration};
use testbed::{DatabaseServer, Engine, Nats, TestDatabase, until};
use tokio::time::{Instant, timeout};

/// Handles so many events.
async fn handle(subscription: &mut Subscription, mut count: usize) {
    while count > 0 {
        let next = timeout(SOON, subscription.next(count)).await;
        let next = next.expect("they come in time").expect("the bus lives");
        count -= next.len();
        next.into_iter().for_each(Delivery::done);
    }
}

/// Waits until a consumer has told the server that it has handled all there is.
async fn all_handled(nats: &Nats, consumer: &str) {
    let handled = async || {
        let info = tallies(nats).await.consumer_info(consumer).await.ok()?;
        (info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
    };
    until("all to be handled", SOON, handled).await.expect("they are");
}

#[tokio::test]
async fn no_event_has_a_place_after_the_last_that_is_known_and_what_is_lost_after_it_is_found() {
    let nats = Nats::start().await.expect("a server");
    let config = Config { atomic_publish: AtomicPublish::Always, ..small() };
    let mut keeper = open_with(nats, config).await;
    let beyond = "FROM outbox WHERE stream_sequence > (SELECT MAX(sequence) FROM streams)";
    let publish = async || {
        keeper.hear((1..=3_000).map(|id| add(id, 1)).collect()).await;
        let all = async || {
            assert_eq!(keeper.count(beyond).await, 0);
            (keeper.count(UNPUBLISHED).await == 0).then_some(())
        };
        until("all to be published", SOON, all).await.expect("they are");
    };
    publish().await;
    server(&mut keeper).stop().await.expect("it runs");
    server(&mut keeper).save().expect("it is stopped");
    server(&mut keeper).restart().await.expect("it starts again");
    keeper.hear((1..=300).map(|id| add(id, 1)).collect()).await;
    keeper.counts(3_300, PUBLISHED).await;
    assert_eq!(keeper.count("FROM outbox WHERE edition > 0").await, 0, "none is lost");
    server(&mut keeper).kill().await.expect("it runs");
    server(&mut keeper).restore().expect("it was saved");
    server(&mut keeper).restart().await.expect("it starts again");
    keeper.counts(300, "FROM outbox WHERE edition = 1 AND published = 1").await;
    keeper.counts(3_000, "FROM outbox WHERE edition = 0 AND published = 1").await;
    assert_eq!(event_ids(server(&mut keeper)).await.len(), 3_300);
    keeper.close().await;
}

/// The server may lose messages, and keep what a consumer had read of them.
#[tokio::test]
async fn a_consumer_that_had_read_what_is_lost_hears_what_is_published_again() {
    let mut keeper = open().await;
    let mut listener = keeper.bus.subscribe(Some("listener"), counted());
    for id in 1..=7 {
        keeper.act(add(id, 1)).await.expect("it grows");
    }
    handle(&mut listener, 7).await;
    server(&mut keeper).stop().await.expect("it runs");
    server(&mut keeper).save().expect("it is stopped");
    server(&mut keeper).restart().await.expect("it starts again");
    for id in 1..=30 {
        keeper.act(add(id, 1)).await.expect("it grows");
    }
    handle(&mut listener, 30).await;
    keeper.counts(37, PUBLISHED).await;
    all_handled(server(&mut keeper), "listener").await;
    server(&mut keeper).stop().await.expect("it runs");
    server(&mut keeper).restore_only_messages(&stream().name).expect("it was saved");
    server(&mut keeper).restart().await.expect("it starts again");
    keeper.counts(30, "FROM outbox WHERE edition = 1 AND published = 1").await;
    handle(&mut listener, 30).await;
    keeper.close().await;
}

/// F8: a server takes an old delivery's ack for that of whatever has its number now.
#[tokio::test]
async fn an_old_delivery_says_nothing_of_a_new_one_with_its_number() {
    let mut nats = Nats::start().await.expect("a server");
    let host = Host::new();
    let bus = connect(&host, &nats).await;
    let mut listener = bus.subscribe(Some("listener"), vec!["google.protobuf.Duration".into()]);
    let mut next = async || {
        let next = timeout(SOON, listener.next(1)).await;
        next.expect("it comes in time").expect("the bus lives").remove(0)
    };
    bus.publish(vec![added(1, 1)]).await.expect("it is published");
    next().await.done();
    all_handled(&nats, "listener").await;
    nats.stop().await.expect("it runs");
    nats.save().expect("it is stopped");
    nats.restart().await.expect("it starts again");
    bus.publish(vec![added(2, 1)]).await.expect("it is published");
    let old = next().await;
    nats.kill().await.expect("it runs");
    nats.restore().expect("it was saved");
    nats.restart().await.expect("it starts again");
    let event = added(3, 1);
    bus.publish(vec![event.clone()]).await.expect("it is published");
    let new = next().await;
    assert_eq!(new.event.id, event.id);
    old.done();
    drop(new); // not handled: it has to come again
    assert_eq!(next().await.event.id, event.id);
}

/// A keeper on a server of its own, with limits of its own, and the server.
async fn on_postgres(config: &Config) -> (DatabaseServer, Keeper) {
    let database = DatabaseServer::start(Engine::Postgres, &[]).await.expect("a server");
    let data = TestDatabase::at(database.create("tally").expect("a database"));
    let nats = Nats::start().await.expect("a server");
    let host = Host::new();
    let bus = connect_with(&host, &Config { url: (&*nats.url()).into(), ..config.clone() }).await;
    let keeper = Keeper::open_within(STATEMENT, host, data, bus).await;
    (database, Keeper { nats: Some(nats), ..keeper })
}

const STATEMENT: Duration = Duration::from_secs(5);

/// Events cannot be marked as published then; for the server each publication after its window against repeats is a new one.
#[tokio::test]
async fn a_database_that_may_only_be_read_does_not_have_its_events_published_for_ever() {
    let config = Config { duplicate_window: Duration::from_millis(100), ..small() };
    let (database, mut keeper) = on_postgres(&config).await;
    for id in 1..=5 {
        keeper.act(add(id, 1)).await.expect("it grows");
    }
    keeper.counts(5, PUBLISHED).await;
    let read_only = |on: bool| {
        let sql = format!("ALTER DATABASE tally SET default_transaction_read_only = {on}");
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tally'";
        database.sql(&sql).and_then(|_done| database.sql(end)).expect("the server obeys");
    };
    read_only(true);
    let refused = async || keeper.act(add(1, 1)).await.is_err().then_some(());
    until("a refusal", SOON, refused).await.expect("nothing can be written");
    let again = "BEGIN READ WRITE; UPDATE outbox SET published = 0, edition = 1; COMMIT";
    database.sql_in("tally", again).expect("an administrator may");
    // some looks into the outbox
    let since = Instant::now();
    let looked = async || (since.elapsed() > Duration::from_secs(6)).then_some(());
    until("some looks", SOON, looked).await.expect("time passes");
    let nats = keeper.nats.as_ref().expect("it has one");
    assert_eq!(tallies(nats).await.cached_info().state.messages, 10, "each once more");
    read_only(false);
    forget_the_dead(&keeper).await;
    keeper.counts(0, UNPUBLISHED).await;
    assert_eq!(tallies(server(&mut keeper)).await.cached_info().state.messages, 10);
    keeper.close().await;
}

/// Replicas lock rows for moments; who locks them for longer has crashed, or stands still.
#[tokio::test]
async fn marks_that_cannot_be_written_fail_no_command() {
    let (database, mut keeper) = on_postgres(&small()).await;
    server(&mut keeper).kill().await.expect("it runs");
    keeper.act(add(1, 1)).await.expect("NATS is not needed to decide");
    let url = database.url("tally");
    let other = sea_orm::Database::connect(&url).await.expect("it is there");
    let locked = {
        use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
        let tx = other.begin().await.expect("it begins");
        tx.execute_unprepared("SELECT * FROM outbox FOR UPDATE").await.expect("nobody has them");
        tx
    };
    server(&mut keeper).restart().await.expect("it starts again");
    let published = async || {
        keeper.act(add(2, 1)).await.expect("a mark is not its business");
        let stream = look(keeper.nats.as_ref()?).await.get_stream(stream().name).await.ok()?;
        (stream.cached_info().state.messages > 20).then_some(())
    };
    until("events to be published", SOON, published).await.expect("they are");
    for _ in 0..20 {
        keeper.act(add(2, 1)).await.expect("a mark is not its business");
    }
    locked.rollback().await.expect("it ends");
    keeper.counts(0, UNPUBLISHED).await;
    keeper.close().await;
}

/// Regression: all lost events were put right with one statement, in the transaction of the next commands. Where it took longer
/// than a statement may, nothing was stored any more.
#[tokio::test]
async fn a_stream_lost_with_a_large_outbox_fails_no_command_and_all_is_published_again() {
    let events = 60_000;
    let (database, mut keeper) = on_postgres(&small()).await;
    keeper.act(add(1, 1)).await.expect("it grows");
    keeper.counts(1, PUBLISHED).await;
    let more = format!(
        "INSERT INTO outbox (id, published, edition, stream_sequence, kind, subject, time, correlation_id, causation_id, payload)
         SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
                1, 0, 1 + n, 'google.protobuf.Timestamp', gen_random_uuid(), (extract(epoch FROM now()) * 1000000)::bigint,
                gen_random_uuid(), gen_random_uuid(), ''
         FROM generate_series(1, {events}) AS n"
    );
    database.sql_in("tally", &more).expect("they are stored");
    let admin = look(server(&mut keeper)).await;
    admin.delete_stream(stream().name).await.expect("it is there");
    let in_part = Cell::new(false);
    let told = async || {
        keeper.act(add(2, 1)).await.expect("no command fails");
        let begun = keeper.count("FROM outbox WHERE edition = 1").await;
        in_part.set(in_part.get() || (1..=events).contains(&begun));
        let all = "FROM outbox WHERE published = 1 AND edition = 1";
        (keeper.count(all).await == events + 1).then_some(())
    };
    until("all to be published again", SOON * 6, told).await.expect("they are");
    assert!(in_part.get(), "it was one statement");
    server_restarts(&mut keeper.nats).await;
    keeper.close().await;
}

#[tokio::test]
async fn what_waited_as_long_as_the_stream_keeps_it_is_published_again_and_what_is_older_is_not() {
    let hour = Duration::from_secs(3_600);
    let (database, mut keeper) = on_postgres(&Config { max_age: hour, ..small() }).await;
    for id in 1..=3 {
        keeper.act(add(id, 1)).await.expect("it grows");
    }
    keeper.counts(3, PUBLISHED).await;
    // as if it had been stored so long ago
    let age = |subject: u32, seconds: u32, place: u32| {
        let sql = format!(
            "UPDATE outbox SET stream_sequence = {place}, time = time - {seconds}000000,
             id = (lpad(to_hex(((extract(epoch FROM now()) - {seconds}) * 1000)::bigint), 12, '0') || right(replace(id::text, '-', ''), 20))::uuid
             WHERE subject = '00000000-0000-0000-0000-00000000000{subject}'"
        );
        database.sql_in("tally", &sql).expect("it is older");
    };
    age(2, 5_400, 2);
    age(3, 10_800, 1_000);
    let again = "FROM outbox WHERE edition = 1 AND published = 1";
    let admin = look(server(&mut keeper)).await;
    admin.delete_stream(stream().name).await.expect("it is there");
    keeper.counts(2, again).await;
    server(&mut keeper).stop().await.expect("it runs");
    server(&mut keeper).save().expect("it is stopped");
    server(&mut keeper).restart().await.expect("it starts again");
    keeper.act(add(4, 1)).await.expect("it grows");
    keeper.act(add(5, 1)).await.expect("it grows");
    keeper.counts(5, PUBLISHED).await;
    server(&mut keeper).kill().await.expect("it runs");
    server(&mut keeper).restore().expect("it was saved");
    server(&mut keeper).restart().await.expect("it starts again");
    // the oldest has a place of the stream that was deleted, after all that the new one had
    keeper.counts(4, again).await;
    assert_eq!(keeper.count("FROM outbox WHERE edition = 0 AND published = 1").await, 1);
    keeper.close().await;
}
