//! The bus between processes, on a real nats-server that is killed, frozen, emptied and set back.

use crate::{
    said,
    tally::{Keeper, SOON, add, added, connect, connect_with, small, stream},
};
use async_nats::jetstream::{self, Context, stream::Stream};
use chassis::Host;
use journal::{
    Bus, Envelope,
    bus::{self, AtomicPublish, Config, Delivery},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use testbed::{Nats, until};
use tokio::time::Instant;

/// As an administrator sees the server.
pub(crate) async fn look(nats: &Nats) -> Context {
    jetstream::new(async_nats::connect(nats.url()).await.expect("it runs"))
}

pub(crate) async fn tallies(nats: &Nats) -> Stream {
    let there = async || look(nats).await.get_stream(stream().name).await.ok();
    until("the stream", SOON, there).await.expect("it is made")
}

/// The ids of all events that the stream has.
pub(crate) async fn event_ids(nats: &Nats) -> BTreeSet<String> {
    let stream = tallies(nats).await;
    let state = &stream.cached_info().state;
    let mut ids = BTreeSet::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("it is there");
        ids.insert(message.headers.get("ce-id").expect("it has one").to_string());
    }
    ids
}

pub(crate) async fn open() -> Keeper {
    Keeper::open_nats(Nats::start().await.expect("a server")).await
}

pub(crate) fn server(keeper: &mut Keeper) -> &mut Nats {
    keeper.nats.as_mut().expect("it has one")
}

pub(crate) async fn open_with(nats: Nats, config: Config) -> Keeper {
    let host = Host::new();
    let bus = connect_with(&host, &Config { url: (&*nats.url()).into(), ..config }).await;
    let data = testbed::database().await;
    Keeper { nats: Some(nats), ..Keeper::open_on(host, data, bus).await }
}

pub(crate) const UNPUBLISHED: &str = "FROM outbox WHERE published = 0";
pub(crate) const PUBLISHED: &str = "FROM outbox WHERE published = 1 AND stream_sequence > 0";

#[tokio::test]
async fn events_stored_while_nats_is_away_are_published_when_it_comes() {
    let mut nats = Nats::start().await.expect("a server");
    nats.kill().await.expect("it runs");
    let mut keeper = Keeper::open_nats(nats).await;
    for id in 1..=5 {
        keeper.act(add(id, 1)).await.expect("NATS is not needed to decide");
    }
    assert_eq!(keeper.count(UNPUBLISHED).await, 5);
    server(&mut keeper).restart().await.expect("it starts again");
    keeper.counts(5, PUBLISHED).await;
    keeper.bus.publish(vec![added(1, 5)]).await.expect("it is published");
    keeper.becomes(1, 6).await;
    keeper.close().await;
}

#[tokio::test]
async fn a_server_that_is_killed_again_and_again_loses_nothing_and_pulls_go_on() {
    let mut keeper = open().await;
    for round in 0..3 {
        for id in 1..=100 {
            keeper.act(add(id, 1)).await.expect("NATS is not needed to decide");
        }
        server(&mut keeper).kill().await.expect("it runs");
        keeper.act(add(1, 1)).await.expect("NATS is not needed to decide");
        server(&mut keeper).restart().await.expect("it starts again");
        let back = Instant::now();
        keeper.bus.publish(vec![added(1_000 + round, 5)]).await.expect("it is published");
        keeper.becomes(1_000 + u128::try_from(round).expect("a small number"), 5).await;
        // the goal is 5 s, on a machine that does nothing else
        assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    }
    keeper.counts(0, UNPUBLISHED).await;
    let stored = keeper.count("FROM outbox").await;
    let ids = event_ids(server(&mut keeper)).await;
    // and the three that were added
    assert_eq!(i64::try_from(ids.len()).expect("a small number"), stored + 3);
    keeper.close().await;
}

#[tokio::test]
async fn a_frozen_server_holds_up_nobody_and_nothing_is_lost() {
    let mut keeper = open().await;
    keeper.act(add(1, 1)).await.expect("it grows");
    keeper.counts(1, PUBLISHED).await;
    server(&mut keeper).freeze().expect("it runs");
    let frozen = Instant::now();
    for _ in 0..20 {
        keeper.act(add(1, 1)).await.expect("NATS is not needed to decide");
    }
    assert!(frozen.elapsed() < Duration::from_secs(5), "{:?}", frozen.elapsed());
    // long enough for publications to time out
    let timed_out = async || (frozen.elapsed() > Duration::from_secs(7)).then_some(());
    until("publications to time out", SOON, timed_out).await.expect("time passes");
    server(&mut keeper).thaw().expect("it runs");
    keeper.bus.publish(vec![added(2, 5)]).await.ok(); // it may have been sent to nobody
    keeper.counts(0, UNPUBLISHED).await;
    let stored = keeper.count("FROM outbox").await;
    let ids = event_ids(server(&mut keeper)).await;
    assert!(i64::try_from(ids.len()).expect("a small number") >= stored);
    keeper.close().await;
}

/// F6: a server acknowledges before it syncs, and backups are older than what was acknowledged.
#[tokio::test]
async fn a_server_set_back_to_an_older_copy_is_told_again_what_it_lost() {
    let mut keeper = open().await;
    for id in 1..=7 {
        keeper.act(add(id, 1)).await.expect("it grows");
    }
    keeper.counts(7, PUBLISHED).await;
    server(&mut keeper).stop().await.expect("it runs");
    server(&mut keeper).save().expect("it is stopped");
    server(&mut keeper).restart().await.expect("it starts again");
    for id in 1..=30 {
        keeper.act(add(id, 1)).await.expect("it grows");
    }
    keeper.counts(37, PUBLISHED).await;
    server(&mut keeper).kill().await.expect("it runs");
    server(&mut keeper).restore().expect("it was saved");
    server(&mut keeper).restart().await.expect("it starts again");
    keeper.counts(30, "FROM outbox WHERE edition = 1 AND published = 1").await;
    keeper.counts(7, "FROM outbox WHERE edition = 0 AND published = 1").await;
    assert_eq!(event_ids(server(&mut keeper)).await.len(), 37);
    // and once more, so that what was published again is lost again
    server(&mut keeper).kill().await.expect("it runs");
    server(&mut keeper).restore().expect("it was saved");
    server(&mut keeper).restart().await.expect("it starts again");
    keeper.counts(30, "FROM outbox WHERE edition = 2 AND published = 1").await;
    assert_eq!(event_ids(server(&mut keeper)).await.len(), 37);
    keeper.close().await;
}

#[tokio::test]
async fn what_a_server_lost_while_we_were_away_is_told_again_too() {
    let mut keeper = open().await;
    keeper.act(add(1, 1)).await.expect("it grows");
    keeper.counts(1, PUBLISHED).await;
    server(&mut keeper).stop().await.expect("it runs");
    server(&mut keeper).save().expect("it is stopped");
    server(&mut keeper).restart().await.expect("it starts again");
    keeper.act(add(1, 1)).await.expect("it grows");
    keeper.counts(2, PUBLISHED).await;
    let mut nats = keeper.nats.take().expect("it has one");
    let data = keeper.close().await;
    nats.stop().await.expect("it runs");
    nats.restore().expect("it was saved");
    nats.restart().await.expect("it starts again");
    let mut keeper = Keeper::open_nats_in(data, nats).await;
    keeper.counts(1, "FROM outbox WHERE edition = 1 AND published = 1").await;
    assert_eq!(event_ids(server(&mut keeper)).await.len(), 2);
    keeper.close().await;
}

#[tokio::test]
async fn a_stream_that_is_deleted_is_made_again_and_told_all_it_had() {
    let mut keeper = open().await;
    for id in 1..=7 {
        keeper.act(add(id, 1)).await.expect("it grows");
    }
    keeper.counts(7, PUBLISHED).await;
    let admin = look(server(&mut keeper)).await;
    admin.delete_stream(stream().name).await.expect("it is there");
    keeper.act(add(8, 1)).await.expect("it grows");
    keeper.counts(8, PUBLISHED).await;
    keeper.counts(7, "FROM outbox WHERE edition = 1").await;
    assert_eq!(event_ids(server(&mut keeper)).await.len(), 8);
    keeper.bus.publish(vec![added(9, 5)]).await.expect("it is published");
    keeper.becomes(9, 5).await;
    keeper.close().await;
}

#[tokio::test]
async fn a_consumer_that_is_deleted_is_made_again() {
    let mut keeper = open().await;
    keeper.bus.publish(vec![added(1, 5)]).await.expect("it is published");
    keeper.becomes(1, 5).await;
    let stream = tallies(server(&mut keeper)).await;
    stream.delete_consumer("tally").await.expect("it is there");
    keeper.bus.publish(vec![added(2, 5)]).await.expect("it is published");
    keeper.becomes(2, 5).await;
    keeper.close().await;
}

/// F7: a bare NAK comes back at once; then `max_deliver` is used up in milliseconds, or the event goes round for ever.
#[tokio::test]
async fn a_poison_event_does_not_go_round_and_others_flow() {
    let mut keeper = open().await;
    let mut events: Vec<_> = (1..=50).map(|id| added(id, 5)).collect();
    events.insert(25, added(1, -5));
    keeper.bus.publish(events).await.expect("they are published");
    keeper.becomes(50, 5).await;
    keeper.counts(1, "FROM dead_letters WHERE attempts = 2").await;
    let stream = tallies(server(&mut keeper)).await;
    let settled = async || {
        let info = stream.consumer_info("tally").await.expect("it is there");
        (info.num_ack_pending == 0).then_some(info)
    };
    let info = until("all to be settled", SOON, settled).await.expect("they are");
    assert_eq!(info.delivered.consumer_sequence, 51, "each was delivered once");
    keeper.close().await;
}

#[tokio::test]
async fn the_next_process_goes_on_counting_how_often_an_event_failed() {
    let nats = Nats::start().await.expect("a server");
    let host = Host::new();
    let bus = connect(&host, &nats).await;
    let patient = Keeper::open_trying(1_000, host, testbed::database().await, bus).await;
    patient.bus.publish(vec![added(1, -5)]).await.expect("it is published");
    patient.counts(1, "FROM event_failures WHERE attempts >= 3").await;
    let data = patient.close().await;
    let keeper = Keeper::open_nats_in(data, nats).await;
    // here it would be laid aside after two
    keeper.counts(1, "FROM dead_letters WHERE attempts >= 4").await;
    keeper.counts(0, "FROM event_failures").await;
    keeper.close().await;
}

#[tokio::test]
async fn what_is_no_event_of_ours_is_laid_aside_at_once() {
    let mut keeper = open().await;
    let stream = tallies(server(&mut keeper)).await;
    let admin = look(server(&mut keeper)).await;
    let subject = "google.protobuf.Duration";
    admin.publish(subject, "no headers".into()).await.expect("sent").await.expect("stored");
    let stranger = Envelope { source: "/somebody/else".into(), ..(*added(1, 5)).clone() };
    keeper.bus.publish(vec![stranger.into(), added(2, 5)]).await.expect("they are published");
    keeper.becomes(2, 5).await;
    keeper.counts(1, "FROM dead_letters WHERE error LIKE '%ce-specversion is missing'").await;
    keeper.counts(1, "FROM dead_letters WHERE error LIKE '%does not publish such events'").await;
    assert!(keeper.get(1).await.is_none());
    let info = stream.consumer_info("tally").await.expect("it is there");
    assert_eq!(info.num_redelivered, 0);
    keeper.close().await;
}

#[tokio::test]
async fn an_event_published_ten_times_is_one_message() {
    let mut keeper = open().await;
    let event = added(1, 5);
    for _ in 0..10 {
        keeper.bus.publish(vec![event.clone()]).await.expect("that it is known is as good");
    }
    keeper.becomes(1, 5).await;
    assert_eq!(event_ids(server(&mut keeper)).await.len(), 1);
    assert_eq!(keeper.get(1).await.map(|tally| tally.changes), Some(1));
    keeper.close().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_its_size_and_the_rest_is_published() {
    let nats = Nats::configured("max_payload: 3000").await.expect("a server");
    let keeper = Keeper::open_nats(nats).await;
    let large = Envelope { payload: vec![0; 4_000].into(), ..(*added(1, 5)).clone() };
    let published = keeper.bus.publish(vec![large.into(), added(2, 5)]).await;
    assert!(matches!(published, Err(bus::Error::TooLarge)), "{published:?}");
    keeper.becomes(2, 5).await;
    keeper.close().await;
}

/// F13: a batch with one known id is refused whole.
#[tokio::test]
async fn a_batch_with_an_event_that_is_known_is_published_singly() {
    let nats = Nats::start().await.expect("a server");
    let config = Config { atomic_publish: AtomicPublish::Always, ..small() };
    let mut keeper = open_with(nats, config).await;
    let events: Vec<_> = (1..=20).map(|id| added(id, 1)).collect();
    keeper.bus.publish(events[5..7].to_vec()).await.expect("they are published");
    keeper.bus.publish(events.clone()).await.expect("they are published");
    // a batch as a whole, and more than the server takes in one
    let many: Vec<_> = (100..=1_300).map(|id| added(id, 1)).collect();
    keeper.bus.publish(many).await.expect("they are published");
    keeper.becomes(1_300, 1).await;
    let stream = tallies(server(&mut keeper)).await;
    let info = stream.consumer_info("tally").await.expect("it is there");
    assert_eq!(info.delivered.consumer_sequence, 20 + 1_201, "each once");
    keeper.close().await;
}

pub(crate) async fn server_restarts(nats: &mut Option<Nats>) {
    let nats = nats.as_mut().expect("it has one");
    nats.stop().await.expect("it runs");
    nats.restart().await.expect("it starts again");
}

#[tokio::test]
async fn a_full_stream_refuses_no_command_and_says_so_once() {
    said::listen();
    let nats = Nats::start().await.expect("a server");
    let mut keeper = open_with(nats, Config { max_bytes: Some(4_000), ..small() }).await;
    for id in 1..=30 {
        keeper.act(add(id, 1)).await.expect("the stream is not needed to decide");
    }
    said::hears(&["ERROR", "NATS takes no more events", "--stream-max-bytes"]).await;
    said::hears(&["WARN", "% full", "--stream-max-bytes"]).await;
    assert!(keeper.count(UNPUBLISHED).await > 0);
    let stream = tallies(server(&mut keeper)).await;
    let mut config = stream.cached_info().config.clone();
    config.max_bytes = 1_000_000;
    look(server(&mut keeper)).await.update_stream(config).await.expect("it is given room");
    keeper.counts(30, PUBLISHED).await;
    assert_eq!(said::count(&["NATS takes no more events"]), 1);
    keeper.close().await;
}

#[tokio::test]
async fn a_wrong_password_is_told_once_and_never_shown() {
    said::listen();
    let users = "authorization { user: me, password: right }";
    let nats = Nats::configured(users).await.expect("a server");
    let url = nats.url().replace("nats://", "nats://me:wrongest@");
    let host = Host::new();
    let config = Config { url: (&*url).into(), ..small() };
    let bus = connect_with(&host, &config).await;
    let keeper = Keeper::open_on(host, testbed::database().await, bus).await;
    keeper.act(add(1, 1)).await.expect("NATS is not needed to decide");
    let refuses = ["WARN", &*nats.url(), "refuses our credentials", "--bus-url"];
    said::hears(&refuses).await;
    assert_eq!(said::count(&["wrongest"]), 0);
    keeper.close().await;
    let host = Host::new();
    let url = nats.url().replace("nats://", "nats://me:right@");
    let bus = connect_with(&host, &Config { url: (&*url).into(), ..small() }).await;
    bus.publish(vec![added(1, 1)]).await.expect("the password is right");
    assert_eq!(said::count(&refuses), 1);
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_named_with_its_cause_and_the_cure() {
    said::listen();
    let plain = Nats::without_jetstream().await.expect("a server");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nowhere = format!("nats://{}", free.local_addr().expect("it has one"));
    drop(free);
    let tls = plain.url().replace("nats://", "tls://");
    for (url, parts) in [
        (&*plain.url(), vec!["(--bus-url) has no JetStream for us: start it with -js"]),
        (&*nowhere, vec!["cannot be reached (--bus-url): IO error: Connection refused"]),
        (&*tls, vec!["cannot be reached (--bus-url): ", " error: ", "(does it speak TLS?)"]),
    ] {
        let _bus = connect_with(&Host::new(), &Config { url: url.into(), ..small() }).await;
        said::hears(&[&["WARN", url], &*parts].concat()).await;
    }
    for url in [&*nowhere, &*tls] {
        assert_eq!(said::count(&[url, "cannot be reached"]), 1);
    }
    assert_eq!(said::count(&[&*nowhere, "TLS"]), 0);
}

#[tokio::test]
async fn a_stream_that_somebody_changed_is_reported_and_left() {
    said::listen();
    let mut keeper = open().await;
    keeper.bus.publish(vec![added(1, 5)]).await.expect("it is published");
    let stream = tallies(server(&mut keeper)).await;
    let mut config = stream.cached_info().config.clone();
    config.max_age = Duration::from_secs(3_600);
    config.discard = jetstream::stream::DiscardPolicy::Old;
    look(server(&mut keeper)).await.update_stream(config.clone()).await.expect("it is changed");
    server_restarts(&mut keeper.nats).await;
    keeper.bus.publish(vec![added(2, 5)]).await.expect("it is published");
    keeper.becomes(2, 5).await;
    said::hears(&["WARN", "TALLIES", "max_age (--stream-max-age) is 3600s, not 86400s"]).await;
    said::hears(&["ERROR", "TALLIES", "discard is Old, not New"]).await;
    let found = tallies(server(&mut keeper)).await.cached_info().config.clone();
    assert_eq!(found.max_age, config.max_age);
    keeper.close().await;
}

#[tokio::test]
async fn two_processes_of_one_name_share_the_work_and_one_takes_over_for_the_other() {
    let keeper = open().await;
    let nats = keeper.nats.as_ref().expect("it has one");
    let host = Host::new();
    let bus = connect(&host, nats).await;
    let other = Keeper::open_on(host, testbed::database().await, bus).await;
    let added_up = async |keeper: &Keeper| keeper.get(1).await.map_or(0, |tally| tally.count);
    let mut told = 0;
    // until both have had some
    let both = async || {
        let events = (0..20).map(|_| added(1, 1)).collect();
        keeper.bus.publish(events).await.expect("they are published");
        let both = added_up(&keeper).await > 0 && added_up(&other).await > 0;
        both.then_some(())
    };
    until("both to have had some", SOON, || {
        told += 20;
        both()
    })
    .await
    .expect("they share");
    let many: Vec<Arc<Envelope>> = (0..3_000).map(|_| added(1, 1)).collect();
    keeper.bus.publish(many).await.expect("they are published");
    told += 3_000;
    let (data, database) = (other.database.clone(), other.close());
    let _kept = database.await; // in the middle of it
    let left = {
        use sea_orm::{ConnectionTrait as _, Statement};
        let backend = data.pool.get_database_backend();
        let sql = Statement::from_string(backend, "SELECT count FROM tallies");
        let row = data.pool.query_one_raw(sql).await.expect("it can be read").expect("a tally");
        row.try_get::<i64>("", "count").expect("a number")
    };
    let all = async || (added_up(&keeper).await + left == told).then_some(());
    until("all to be handled, each once", SOON, all).await.expect("they are");
    keeper.close().await;
}

/// A server that is too old, or away, or nonsense: what is wrong with a setting is told at once, by its name.
#[tokio::test]
async fn a_setting_that_makes_no_sense_is_told_by_its_name() {
    let nowhere = || Some("/nowhere/at/all".into());
    let nats = || Config { url: "nats://127.0.0.1:1".into(), ..Config::default() };
    let wrong = [
        (Config { url: "http://127.0.0.1".into(), ..nats() }, "--bus-url"),
        (Config { url: "nats://127.0.0.1:99999".into(), ..nats() }, "--bus-url"),
        (Config { credentials: nowhere(), ..nats() }, "--bus-credentials"),
        (Config { nkey: nowhere(), ..nats() }, "--bus-nkey"),
        (Config { tls_ca: nowhere(), ..nats() }, "--bus-tls-ca"),
        (
            Config { max_age: Duration::from_secs(1), ..nats() },
            "--stream-duplicate-window must not be longer than --stream-max-age",
        ),
    ];
    for (config, flag) in wrong {
        let error = Bus::connect(&Host::new(), &config, stream(), "tally").await.err();
        let error = format!("{:#}", error.expect("it makes no sense"));
        assert!(error.contains(flag), "{error}");
    }
}

#[tokio::test]
async fn what_was_not_begun_when_a_process_ends_comes_to_the_next_at_once() {
    let nats = Nats::start().await.expect("a server");
    let host = Host::new();
    let bus = connect(&host, &nats).await;
    let kinds = || vec![Arc::from("google.protobuf.Duration")];
    let mut subscription = bus.subscribe(Some("slow"), kinds());
    bus.publish((1..=100).map(|id| added(id, 1)).collect()).await.expect("they are published");
    let mut heard = Vec::new();
    while heard.len() < 100 {
        heard.extend(subscription.next(100).await.expect("the bus lives"));
    }
    heard.pop().expect("a hundred").done();
    drop((heard, subscription));
    let again = Instant::now();
    let mut subscription = bus.subscribe(Some("slow"), kinds());
    let (mut left, mut at_once) = (99, 0);
    while left > 0 {
        let next = tokio::time::timeout(SOON, subscription.next(100)).await;
        let next = next.expect("they come again").expect("the bus lives");
        left -= next.len();
        // by itself the server gives to another after 10 s
        if again.elapsed() < Duration::from_secs(9) {
            at_once += next.len();
        }
        next.into_iter().for_each(Delivery::done);
    }
    // the server has been seen to forget one that was given back, until it would have come to another by itself
    assert!(at_once >= 95, "{at_once}");
}
