//! Database servers: several replicas on one database, and servers that go away, come back, or refuse. For both of them,
//! whatever engine the other tests run on.

use crate::tally::{BAD_NAME, Keeper, Migrator, Model, SOON, add, added};
use futures::future::{join, join_all, try_join_all};
use journal::{Bus, Database, Reader, database::Config, writer::Error};
use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};
use tempfile::TempDir;
use testbed::{DatabaseServer, Engine, TestDatabase, database_on, until};
use tokio::time::Instant;
use uuid::Uuid;

/// How soon who waits for a server that stands still is told: the statement's 5 s, 2 s more, and some for a busy machine.
const SILENT: Duration = Duration::from_secs(9);
/// How soon all is well again after a server is back.
const RECOVERED: Duration = Duration::from_secs(5);

/// Two replicas on one database.
async fn two(engine: Engine) -> (TestDatabase, [Keeper; 2]) {
    let data = database_on(engine).await;
    let keeper =
        async || Keeper::open_in(TestDatabase::at(data.url.clone()), Bus::embedded()).await;
    let keepers = [keeper().await, keeper().await];
    (data, keepers)
}

async fn close(keepers: [Keeper; 2]) {
    for keeper in keepers {
        keeper.close().await;
    }
}

async fn two_writers_merge_into_one_noun_and_lose_nothing(engine: Engine) {
    let (_data, keepers) = two(engine).await;
    let merge = async |keeper: &Keeper| {
        for _ in 0..500 {
            for outcome in keeper.hear((0..10).map(|_| add(1, 1)).collect()).await {
                outcome.expect("replicas never fail each other");
            }
        }
    };
    join(merge(&keepers[0]), merge(&keepers[1])).await;
    let tally = keepers[0].get(1).await.expect("it is stored");
    assert_eq!((tally.count, tally.changes), (10_000, 10_000));
    assert_eq!(keepers[0].count("FROM outbox").await, 10_000);
    close(keepers).await;
}

async fn two_writers_insert_the_same_nouns_once(engine: Engine) {
    let (_data, keepers) = two(engine).await;
    for id in 1..=200 {
        let both = keepers.iter().map(|keeper| keeper.act(add(id, 1)));
        let mut counts = try_join_all(both).await.expect("replicas never fail each other");
        counts.sort_by_key(|tally| tally.count);
        assert_eq!([counts[0].count, counts[1].count], [1, 2]);
    }
    assert_eq!(keepers[0].count("FROM tallies").await, 200);
    close(keepers).await;
}

async fn two_writers_who_want_the_same_nouns_in_other_orders_get_on(engine: Engine) {
    let (_data, keepers) = two(engine).await;
    let tell = async |keeper: &Keeper, ids: Vec<u128>| {
        for outcome in keeper.hear(ids.into_iter().map(|id| add(id, 1)).collect()).await {
            outcome.expect("replicas never fail each other");
        }
    };
    let (rounds, nouns) = (60, 30);
    for round in 0..rounds {
        // half of them are new
        let ids: Vec<u128> = (round * nouns / 2 + 1..=round * nouns / 2 + nouns).collect();
        let reversed = ids.iter().rev().copied().collect();
        join(tell(&keepers[0], ids), tell(&keepers[1], reversed)).await;
    }
    let told = i64::try_from(rounds * nouns * 2).expect("a small number");
    assert_eq!(keepers[0].count("FROM outbox").await, told);
    close(keepers).await;
}

/// One bad row among the commands of one replica is that command's own failure.
async fn what_cannot_be_stored_fails_alone_on_a_server(engine: Engine) {
    let keeper = Keeper::open_in(database_on(engine).await, Bus::embedded()).await;
    let bad = crate::tally::Add { name: BAD_NAME, ..add(2, 1) };
    let outcomes = keeper.hear(vec![add(1, 5), bad, add(3, 6)]).await;
    assert!(matches!(outcomes[..], [Ok(()), Err(Error::Store(_)), Ok(())]), "{outcomes:?}");
    keeper.close().await;
}

async fn replicas_that_start_together_make_the_tables_once(engine: Engine) {
    let data = database_on(engine).await;
    let start = async || {
        let database = Database::open(&data.source()).await?;
        database.migrate::<Migrator>().await?;
        anyhow::Ok(database)
    };
    let databases = try_join_all((0..6).map(|_| start())).await.expect("they wait for each other");
    databases[5].migrate::<Migrator>().await.expect("nothing is left to do");
}

/// A writer that adds one after the other, as long as it is told to: what it was told is stored, and what it asked for.
async fn keep_adding(keeper: &Keeper, stored: &AtomicI64, ended: &AtomicBool) -> i64 {
    let mut asked = 0;
    while !ended.load(Ordering::Relaxed) {
        asked += 1;
        match keeper.act(add(1, 1)).await {
            Ok(_tally) => {
                stored.fetch_add(1, Ordering::Relaxed);
            }
            Err(Error::Store(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    asked
}

/// Adds while something happens to the server; nothing that was told as stored is lost, and all is well soon after.
async fn survives(engine: Engine, harm: impl AsyncFnOnce(&mut DatabaseServer)) {
    let mut server = DatabaseServer::start(engine, &[]).await.expect("a server");
    let url = server.create("tally").expect("a database");
    let keeper = Keeper::open_in(TestDatabase::at(url), Bus::embedded()).await;
    keeper.act(add(2, 1)).await.expect("it is well");
    let (stored, ended) = (AtomicI64::new(0), AtomicBool::new(false));
    let more = async |than: i64| {
        let more = async || (stored.load(Ordering::Relaxed) > than + 20).then_some(());
        until("more to be stored", SOON, more).await.expect("it goes on");
    };
    let harm = async {
        more(0).await;
        harm(&mut server).await;
        let (back, before) = (Instant::now(), stored.load(Ordering::Relaxed));
        more(before).await;
        forget_the_dead(&keeper).await;
        for now in join_all((0..8).map(|_| keeper.database.now())).await {
            now.expect("the pool is well");
        }
        assert!(back.elapsed() < RECOVERED, "{:?}", back.elapsed());
        ended.store(true, Ordering::Relaxed);
    };
    let (asked, ()) = join(keep_adding(&keeper, &stored, &ended), harm).await;
    let (told, is) = (stored.into_inner(), keeper.get(1).await.expect("it is stored").count);
    // of a commit that was not answered nobody knows
    assert!((told..=asked).contains(&is), "{told} told, {is} stored, {asked} asked for");
    assert_eq!(keeper.count("FROM outbox").await, is + 1, "each with its fact");
    keeper.close().await;
}

/// Each reader's connection is tried: none is handed out dead for the second time.
async fn forget_the_dead(keeper: &Keeper) {
    join_all((0..8).map(|_| keeper.database.now())).await;
}

async fn a_server_that_is_killed_loses_nothing_and_is_used_again_at_once(engine: Engine) {
    survives(engine, async |server| {
        server.kill().await.expect("it runs");
        server.restart().await.expect("it recovers");
    })
    .await;
}

async fn sessions_that_are_ended_midway_are_replaced(engine: Engine) {
    survives(engine, async |server| {
        for _ in 0..5 {
            match engine {
                Engine::Postgres => {
                    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tally'";
                    server.sql(end).expect("they are ended");
                }
                _ => {
                    let ids = "SELECT id FROM information_schema.processlist WHERE db = 'tally'";
                    for id in server.sql(ids).expect("they are listed").lines() {
                        let _ended_or_gone = server.sql(&format!("KILL {id}"));
                    }
                }
            }
        }
    })
    .await;
}

/// Nobody is to blame for it, least of all an event: it waits, and is no dead letter.
async fn a_server_that_may_only_be_read_is_away(engine: Engine) {
    let server = DatabaseServer::start(engine, &[]).await.expect("a server");
    let mut url = server.create("tally").expect("a database");
    if engine == Engine::MariaDb {
        let user = "CREATE USER kim IDENTIFIED BY 'p@ss'; GRANT ALL ON tally.* TO kim";
        server.sql(user).expect("a user whom the server can keep from writing");
        url = url.replace("root@", "kim:p%40ss@");
    }
    let read_only = |on: bool| {
        let (sql, again) = match engine {
            Engine::Postgres => (
                format!("ALTER DATABASE tally SET default_transaction_read_only = {on}"),
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tally'",
            ),
            _ => (format!("SET GLOBAL read_only = {on}"), "SELECT 1"),
        };
        server.sql(&sql).and_then(|_done| server.sql(again)).expect("the server obeys");
    };
    let keeper = Keeper::open_in(TestDatabase::at(url), Bus::embedded()).await;
    keeper.bus.open();
    keeper.act(add(1, 1)).await.expect("it can be written");
    read_only(true);
    let refused =
        async || matches!(keeper.act(add(1, 1)).await, Err(Error::Store(_))).then_some(());
    until("a refusal", SOON, refused).await.expect("nothing can be written");
    forget_the_dead(&keeper).await;
    let tell = keeper.bus.publish(vec![added(2, 7)]);
    let open = async {
        // more failures than an event may have
        for _ in 0..6 {
            keeper.act(add(1, 1)).await.expect_err("nothing can be written");
        }
        assert_eq!(keeper.get(1).await.map(|tally| tally.count), Some(1), "it can be read");
        read_only(false);
    };
    let (told, ()) = join(tell, open).await;
    told.expect("it is handled when it can be");
    forget_the_dead(&keeper).await;
    keeper.becomes(2, 7).await;
    assert_eq!(keeper.count("FROM dead_letters").await, 0);
    keeper.close().await;
}

/// What a start says that cannot go on.
async fn says(url: &str) -> String {
    let mut source = TestDatabase::at(url.to_owned()).source();
    source.config = Config { wait: Duration::from_millis(300), ..Config::default() };
    format!("{:#}", Database::open(&source).await.expect_err("it cannot be used"))
}

async fn what_cannot_be_used_is_said_with_its_cure(engine: Engine) {
    let server = DatabaseServer::start(engine, &[]).await.expect("a server");
    let url = server.create("tally").expect("a database");
    let user = match engine {
        Engine::Postgres => "CREATE USER kim PASSWORD 'right'",
        _ => "CREATE USER kim IDENTIFIED BY 'right'; GRANT ALL ON *.* TO kim",
    };
    server.sql(user).expect("a user");
    let missing = says(&url.replace("/tally", "/none")).await;
    assert!(missing.contains("/none (--database-url): there is no such database"), "{missing}");
    assert!(!missing.contains("at line"), "{missing}");
    let unnamed = says(url.trim_end_matches("/tally")).await;
    assert!(unnamed.contains("(--database-url): the URL names no database"), "{unnamed}");
    if engine == Engine::MariaDb {
        let other = says(&url.replace("mysql:", "postgres:")).await;
        assert!(other.ends_with("it is no PostgreSQL server"), "{other}");
    }
    let viewed = server.create("viewed").expect("a database");
    server.sql_in("viewed", "CREATE VIEW statistics AS SELECT 1 AS one").expect("a view");
    let source = TestDatabase::at(viewed).source();
    Database::open(&source).await.expect("a view is nobody's data, and monitoring makes some");
    let theirs = server.create("theirs").expect("a database");
    server.sql_in("theirs", "CREATE TABLE notes (id integer)").expect("a table");
    let foreign = says(&theirs).await;
    assert!(foreign.ends_with("(--database-url): it belongs to another program"), "{foreign}");
    if engine == Engine::MariaDb {
        // the other server of these tests lets everybody in
        let stranger = says(&url.replace("root@", "kim:wrong@")).await;
        assert!(stranger.contains("kim@127.0.0.1"), "{stranger}");
        assert!(stranger.contains("it refuses the user or the password"), "{stranger}");
        assert!(!stranger.contains("wrong"), "{stranger}");
    }
    let mut server = server;
    server.stop().await.expect("it stops");
    let gone = says(&url).await;
    assert!(gone.contains("(--database-url): it cannot be reached"), "{gone}");
    let waited = ["waited 3", "waited 4", "waited 5"].iter().any(|waited| gone.contains(waited));
    assert!(waited && gone.contains("ms for it (--database-wait)"), "{gone}");
}

async fn a_server_that_comes_up_later_is_waited_for(engine: Engine) {
    let mut server = DatabaseServer::start(engine, &[]).await.expect("a server");
    let url = server.create("tally").expect("a database");
    server.stop().await.expect("it stops");
    let mut source = TestDatabase::at(url).source();
    source.config.wait = SOON;
    let (opened, ()) = join(Database::open(&source), async {
        server.restart().await.expect("it comes up");
    })
    .await;
    opened.expect("it was waited for");
}

/// Nobody waits for it for ever, neither who changes something nor who looks, and it is used again as soon as it goes on.
async fn a_server_that_stands_still_is_away_until_it_goes_on(engine: Engine) {
    let server = DatabaseServer::start(engine, &[]).await.expect("a server");
    let url = server.create("tally").expect("a database");
    let keeper = Keeper::open_in(TestDatabase::at(url), Bus::embedded()).await;
    let reader: Reader<Model> = Reader::open(&keeper.host, &keeper.database);
    let id = Uuid::from_u128(1);
    keeper.act(add(1, 1)).await.expect("it is stored");
    reader.get(id).await.expect("it can be read");
    server.freeze().expect("it runs");
    for _ in 0..2 {
        let (began, still) = (Instant::now(), [1, 2]);
        let acts = still.map(|id| keeper.act(add(id, 1)));
        let (acts, looked) = join(join_all(acts), reader.get(id)).await;
        let told = began.elapsed();
        assert!(acts.iter().all(|act| matches!(act, Err(Error::Store(_)))), "{acts:?}");
        looked.expect_err("nobody answers");
        assert!(told < SILENT, "they are told after {told:?}");
    }
    server.thaw().expect("it runs");
    let began = Instant::now();
    until("a change", SOON, async || keeper.act(add(3, 1)).await.ok()).await.expect("it goes on");
    until("a look", SOON, async || reader.get(id).await.ok()).await.expect("it goes on");
    assert!(began.elapsed() < RECOVERED, "after {:?}", began.elapsed());
    keeper.close().await;
}

/// Of a restart nobody is told; of a longer absence once, and of its end.
#[tokio::test]
async fn a_database_that_is_away_for_long_is_told_of() {
    let mut server = DatabaseServer::start(Engine::Postgres, &[]).await.expect("a server");
    let url = server.create("tally").expect("a database");
    let keeper = Keeper::open_in(TestDatabase::at(url), Bus::embedded()).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    keeper.database.watch(&keeper.host, move |usable| tell.send(usable).expect("who waits"));
    let began = Instant::now();
    server.stop().await.expect("it runs");
    let away = tokio::time::timeout(SOON, told.recv()).await.expect("it is told in time");
    assert_eq!(away, Some(false));
    assert!(began.elapsed() >= Duration::from_secs(9), "only after {:?}", began.elapsed());
    server.restart().await.expect("it comes up");
    let back = tokio::time::timeout(RECOVERED, told.recv()).await.expect("it is told in time");
    assert_eq!(back, Some(true));
    server.stop().await.expect("it runs");
    server.restart().await.expect("it comes up");
    until("a change", SOON, async || keeper.act(add(1, 1)).await.ok()).await.expect("it is back");
    told.try_recv().expect_err("a restart is nobody's concern");
    keeper.close().await;
}

/// As when a failover leaves them on a host that nobody reaches any more.
#[tokio::test]
async fn sessions_that_stand_still_are_replaced() {
    let server = DatabaseServer::start(Engine::Postgres, &[]).await.expect("a server");
    let url = server.create("tally").expect("a database");
    let keeper = Keeper::open_in(TestDatabase::at(url), Bus::embedded()).await;
    let reader: Reader<Model> = Reader::open(&keeper.host, &keeper.database);
    let id = Uuid::from_u128(1);
    keeper.act(add(1, 1)).await.expect("it is stored");
    join_all((0..20).map(|_| keeper.get(1))).await; // all connections that read
    server.freeze_sessions("tally").expect("it runs");
    let began = Instant::now();
    let change = until("a change", SOON, async || keeper.act(add(2, 1)).await.ok());
    let look = until("a look", SOON, async || reader.get(id).await.ok());
    let (changed, looked) = join(change, look).await;
    changed.expect("on a session of its own");
    looked.expect("on a session of its own");
    assert!(began.elapsed() < SILENT + RECOVERED, "after {:?}", began.elapsed());
    server.thaw().expect("it runs");
    assert_eq!(keeper.get(1).await.map(|tally| tally.count), Some(1));
    keeper.close().await;
}

/// An event that cannot be stored in time with others is stored with fewer of them.
async fn a_batch_that_takes_too_long_is_stored_in_parts(engine: Engine) {
    let server = DatabaseServer::start(engine, &[]).await.expect("a server");
    let url = server.create("tally").expect("a database");
    let keeper = Keeper::open_in(TestDatabase::at(url), Bus::embedded()).await;
    // a row takes its time: 15 are done within the 5 s that a statement has, and 30 are not
    let slow = match engine {
        Engine::Postgres => {
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END'; \
             CREATE TRIGGER slow BEFORE INSERT ON tallies FOR EACH ROW EXECUTE FUNCTION slow()"
        }
        _ => {
            "CREATE TRIGGER slow BEFORE INSERT ON tallies FOR EACH ROW SET NEW.count = NEW.count + SLEEP(0.2)"
        }
    };
    server.sql_in("tally", slow).expect("a trigger");
    for outcome in keeper.hear((1..=30).map(|id| add(id, 1)).collect()).await {
        outcome.expect("it is stored in time");
    }
    assert_eq!(keeper.count("FROM tallies").await, 30);
    keeper.close().await;
}

/// Each of them on each server, as a test of its own.
macro_rules! on_servers {
    ($($test:ident),+ $(,)?) => {
        mod postgres {
            $(#[tokio::test] async fn $test() { super::$test(testbed::Engine::Postgres).await; })+
        }
        mod mariadb {
            $(#[tokio::test] async fn $test() { super::$test(testbed::Engine::MariaDb).await; })+
        }
    };
}

on_servers!(
    two_writers_merge_into_one_noun_and_lose_nothing,
    two_writers_insert_the_same_nouns_once,
    two_writers_who_want_the_same_nouns_in_other_orders_get_on,
    what_cannot_be_stored_fails_alone_on_a_server,
    replicas_that_start_together_make_the_tables_once,
    a_server_that_is_killed_loses_nothing_and_is_used_again_at_once,
    sessions_that_are_ended_midway_are_replaced,
    a_server_that_may_only_be_read_is_away,
    a_server_that_stands_still_is_away_until_it_goes_on,
    a_batch_that_takes_too_long_is_stored_in_parts,
    what_cannot_be_used_is_said_with_its_cure,
    a_server_that_comes_up_later_is_waited_for,
);

#[tokio::test]
async fn a_url_of_no_known_kind_is_said_to_be_none() {
    let none = says("oracle://kim:secret@db/tally").await;
    assert!(
        none.contains("oracle://kim@db/tally (--database-url): it is none of sqlite:"),
        "{none}"
    );
}

/// A certificate for `localhost` by an authority of its own, as files that the server may read.
fn certified() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let make = "chmod 755 . && \
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem && \
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr && \
        echo subjectAltName=DNS:localhost >names && \
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem && \
        chmod 600 server.key && if [ \"$(id -u)\" = 0 ]; then chown nobody server.key; fi";
    let made = Command::new("sh").args(["-c", make]).current_dir(&directory).output();
    let made = made.expect("sh is there");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "openssl has to be installed: {said}");
    directory
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let (directory, other) = (certified(), certified());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let settings =
        ["ssl=on", &format!("ssl_cert_file={certificate}"), &format!("ssl_key_file={key}")];
    let server = DatabaseServer::start(Engine::Postgres, &settings).await.expect("a server");
    let url = server.create("tally").expect("a database");
    let with = |host: &str, authority: &TempDir| {
        let authority = authority.path().join("ca.pem");
        let url = url.replace("127.0.0.1", host);
        format!("{url}?sslmode=verify-full&sslrootcert={}", authority.display())
    };
    let source = TestDatabase::at(with("localhost", &directory)).source();
    let database = Database::open(&source).await.expect("it is who it should be");
    let sessions = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = 'tally'";
    database.now().await.expect("it can be read");
    assert_eq!(server.sql(sessions).expect("it tells").trim(), "t", "all of ours are encrypted");
    let stranger = says(&with("localhost", &other)).await;
    assert!(stranger.contains("ertificate"), "another authority: {stranger}");
    let stranger = says(&with("127.0.0.1", &directory)).await;
    assert!(stranger.contains("ertificate"), "another name: {stranger}");
}
