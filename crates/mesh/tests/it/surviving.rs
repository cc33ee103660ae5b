//! The client's stack against a real server: what is tried again, what is left alone, and what its caller is told.

use crate::{
    house::{House, follow},
    play::{Act, ONCE, Stage, TWICE, call, channel},
    probe::{self, question},
};
use chassis::Host;
use futures::future::join_all;
use mesh::{
    Channel, Policies, Problem, Upstream,
    client::{self, not_sent},
};
use std::{fs, time::Duration};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    time::{Instant, timeout},
};
use tonic::{Code, Status};

/// Long enough for a busy machine.
const LONG: Duration = Duration::from_secs(20);

fn ours(code: Code, reason: &'static str) -> Problem {
    Problem::new(probe::DOMAIN, code, reason, "for some reason")
}

fn pushback(status: impl Into<Status>, value: &str) -> Status {
    let mut status = status.into();
    let value = value.parse().expect("it is ASCII");
    status.metadata_mut().insert("grpc-retry-pushback-ms", value);
    status
}

fn soon() -> Problem {
    let overloaded = ours(Code::ResourceExhausted, "OVERLOADED");
    overloaded.with_retry_after(Duration::from_millis(10))
}

#[tokio::test]
async fn what_may_be_tried_again_is_and_nothing_else() {
    let away = || Status::unavailable("a proxy finds nobody");
    // what comes back, how often a method that may not be called twice is asked then, and one that may
    for (what, comes, once, twice) in [
        ("a proxy's error", away(), 1, 2),
        ("an overload", soon().into(), 2, 2),
        (
            "a wait, and no word of what was done",
            ours(Code::Unavailable, "AWAY").with_retry_after(Duration::from_millis(5)).into(),
            1,
            2,
        ),
        ("an overload, to people only", pushback(soon(), "-1"), 1, 1),
        ("a pushback", pushback(ours(Code::Unavailable, "AWAY"), "5"), 2, 2),
        ("too late a pushback", pushback(ours(Code::Unavailable, "AWAY"), "60000"), 1, 1),
        ("a service's error", ours(Code::Unavailable, "OUTCOME_UNKNOWN").into(), 1, 1),
        ("a bug", ours(Code::Internal, "INTERNAL").into(), 1, 1),
        ("a refusal", ours(Code::Aborted, "REVISION_MISMATCH").into(), 1, 1),
    ] {
        for (path, times) in [(ONCE, once), (TWICE, twice)] {
            let stage = Stage::open([Act::Fail(comes.clone())]).await;
            let ended = call(&stage.channel(""), path, LONG).await.map_err(|status| status.code());
            let should = if times > 1 { Ok(()) } else { Err(comes.code()) };
            assert_eq!(ended, should, "{what}, {path}");
            let before: Vec<_> =
                stage.play.asked().into_iter().map(|asked| asked.attempts_before).collect();
            let told = [None, Some("1".to_owned())];
            assert_eq!(before, told[..times], "{what}, {path}");
            stage.close().await;
        }
    }
}

#[tokio::test]
async fn three_attempts_are_enough() {
    let stage = Stage::open([]).await;
    stage.play.then(Some(Status::unavailable("a proxy finds nobody")));
    let channel = stage.channel("");
    let status = call(&channel, TWICE, LONG).await.expect_err("it fails each time");
    assert_eq!((status.code(), not_sent(&status)), (Code::Unavailable, false));
    assert_eq!(stage.play.asked().len(), 3);
    let counts = channel.snapshot().counts;
    assert_eq!((counts.calls, counts.attempts, counts.retries), (1, 3, 2));
    stage.close().await;
}

#[tokio::test]
async fn a_service_that_fails_is_asked_little_more_than_one_that_is_well() {
    let stage = Stage::open([]).await;
    stage.play.then(Some(Status::unavailable("a proxy finds nobody")));
    // all are let through, so that only the budget holds them back; and no time pays
    let channel = stage.channel("play.breaker.enabled = false\nplay.budget.per_second = 0");
    for _call in 0..300 {
        assert!(call(&channel, TWICE, LONG).await.is_err());
    }
    // ten were saved when it began
    assert_eq!(stage.play.asked().len(), 300 + 10 + 30);
    assert_eq!(channel.snapshot().budget, 0);
    stage.close().await;
}

#[tokio::test]
async fn each_attempt_has_a_time_of_its_own() {
    let stage = Stage::open([Act::Hang]).await;
    let channel = stage.channel("play.attempt_timeout = '1s'");
    call(&channel, TWICE, LONG).await.expect("another attempt is answered");
    let asked = stage.play.asked();
    assert!(asked.len() > 1, "{asked:?}");
    assert!(asked.iter().all(|asked| asked.left < Duration::from_secs(1)), "{asked:?}");
    stage.close().await;
}

#[tokio::test]
async fn all_attempts_together_have_the_time_of_the_call() {
    let stage = Stage::open([Act::Hang, Act::Hang, Act::Hang]).await;
    let begun = Instant::now();
    let channel = stage.channel("play.timeout = '500ms'\nplay.methods.Once.timeout = '10ms'");
    for (path, time) in [(ONCE, LONG), (TWICE, LONG), (TWICE, Duration::from_millis(100))] {
        let status = call(&channel, path, time).await.expect_err("nobody answers");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    assert!(begun.elapsed() < LONG);
    stage.close().await;
}

#[tokio::test]
async fn where_nobody_is_nothing_was_sent_however_often() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", socket.local_addr().expect("it is bound"));
    drop(socket);
    let channel = channel_to(&url);
    let status = call(&channel, ONCE, LONG).await.expect_err("nobody is there");
    assert_eq!((status.code(), not_sent(&status)), (Code::Unavailable, true), "{status:?}");
    assert_eq!(channel.snapshot().counts.attempts, 3, "what was not sent may be tried again");
}

#[tokio::test]
async fn once_something_was_sent_the_caller_is_told_so() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", socket.local_addr().expect("it is bound"));
    let channel = channel_to(&url);
    let takes_one = async {
        let (mut stream, _peer) = socket.accept().await.expect("somebody comes");
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.expect("it is HTTP/2");
        // the frames before the call's headers
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let length = usize::try_from(length).expect("it is short");
            stream.read_exact(&mut vec![0; length]).await.expect("all of it");
            if head[3] == 1 {
                break;
            }
        }
        // and nobody comes after it: the next attempt is certainly not sent
        drop((stream, socket));
    };
    let (ended, ()) = tokio::join!(call(&channel, TWICE, LONG), takes_one);
    let status = ended.expect_err("nobody answers");
    assert_eq!((status.code(), not_sent(&status)), (Code::Unavailable, false), "{status:?}");
    assert_eq!(channel.snapshot().counts.attempts, 3);
}

fn channel_to(url: &str) -> Channel {
    let file = tempfile::NamedTempFile::new().expect("a file");
    channel(&Host::new(), url, file.path()).expect("it can be opened")
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_and_callers_know_that_nothing_was_sent() {
    let stage = Stage::open([]).await;
    stage.play.then(Some(ours(Code::Internal, "INTERNAL").into()));
    let channel = stage.channel("play.breaker.open_for = '10m'\nplay.breaker.open_at_most = '10m'");
    for _call in 0..20 {
        assert!(!channel.refuses());
        let status = call(&channel, TWICE, LONG).await.expect_err("it fails");
        assert_eq!(status.code(), Code::Internal);
    }
    assert!(channel.refuses());
    for _call in 0..3 {
        let status = call(&channel, TWICE, LONG).await.expect_err("it is left alone");
        assert_eq!((status.code(), not_sent(&status)), (Code::Unavailable, true), "{status:?}");
    }
    assert_eq!(stage.play.asked().len(), 20);
    let snapshot = channel.snapshot();
    assert_eq!(snapshot.breaker.stage, client::Stage::Open);
    assert_eq!((snapshot.counts.refused, snapshot.counts.opened), (3, 1));
    stage.close().await;
}

#[tokio::test]
async fn refusals_are_no_failures() {
    let stage = Stage::open([]).await;
    let channel = stage.channel("");
    for code in [Code::NotFound, Code::FailedPrecondition, Code::InvalidArgument, Code::Aborted] {
        stage.play.then(Some(ours(code, "NO").into()));
        for _call in 0..20 {
            let status = call(&channel, TWICE, LONG).await.expect_err("it is refused");
            assert_eq!(status.code(), code);
        }
    }
    let breaker = channel.snapshot().breaker;
    assert_eq!((breaker.stage, breaker.calls, breaker.failed), (client::Stage::Closed, 80, 0));
    stage.close().await;
}

#[tokio::test]
async fn a_service_that_stands_still_is_left_alone_however_little_time_its_callers_give() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("it is bound"));
    for (policies, time) in [("play.timeout = '500ms'", LONG), ("", Duration::from_millis(500))] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), policies).expect("it can be written");
        let channel = channel(&Host::new(), &url, file.path()).expect("it can be opened");
        for status in join_all((0..20).map(|_call| call(&channel, ONCE, time))).await {
            let status = status.expect_err("nobody answers");
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        }
        assert!(channel.refuses(), "{policies}: {:?}", channel.snapshot());
    }
}

#[tokio::test]
async fn who_is_in_a_hurry_harms_nobody() {
    let stage = Stage::open((0..80).map(|_call| Act::Hang)).await;
    let channel = stage.channel("");
    let patient = call(&channel, ONCE, LONG);
    let hurried = (0..40).map(|_call| call(&channel, ONCE, Duration::from_millis(50)));
    let (_patient, hurried) = tokio::join!(patient, join_all(hurried));
    assert!(hurried.iter().all(Result::is_err), "there is no answer in that time");
    let snapshot = channel.snapshot();
    assert!(!channel.refuses() && snapshot.breaker.failed <= 1, "{snapshot:?}");
    stage.close().await;
}

#[tokio::test]
async fn a_service_that_sheds_load_is_not_cut_off() {
    let stage = Stage::open([]).await;
    let channel =
        stage.channel("play.breaker.open_for = '10ms'\nplay.breaker.open_at_most = '10ms'");
    for overloaded in [pushback(soon(), "-1"), Status::resource_exhausted("a proxy's quota")] {
        stage.play.then(Some(overloaded));
        for _call in 0..50 {
            let status = call(&channel, TWICE, LONG).await.expect_err("it is shed");
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        }
    }
    let breaker = channel.snapshot().breaker;
    assert_eq!((breaker.stage, breaker.failed), (client::Stage::Closed, 0));
    // nor is it by a probe that is shed: the next one tells
    stage.play.then(Some(ours(Code::Internal, "INTERNAL").into()));
    while channel.snapshot().breaker.stage != client::Stage::Open {
        let _fails = call(&channel, TWICE, LONG).await;
    }
    stage.play.then(Some(pushback(soon(), "-1")));
    let begun = Instant::now();
    for _probe in 0..20 {
        while call(&channel, TWICE, LONG).await.is_err_and(|status| not_sent(&status)) {
            assert!(begun.elapsed() < LONG, "{:?}", channel.snapshot());
            tokio::task::yield_now().await;
        }
        assert_eq!(channel.snapshot().breaker.stage, client::Stage::HalfOpen);
    }
    stage.close().await;
}

#[tokio::test]
async fn a_service_that_is_well_again_is_asked_again() {
    let stage = Stage::open([]).await;
    stage.play.then(Some(ours(Code::Internal, "INTERNAL").into()));
    let channel =
        stage.channel("play.breaker.open_for = '10ms'\nplay.breaker.open_at_most = '20ms'");
    while channel.snapshot().breaker.opened == 0 {
        let _fails = call(&channel, TWICE, LONG).await;
    }
    stage.play.then(None);
    let begun = Instant::now();
    while channel.snapshot().breaker.stage != client::Stage::Closed {
        assert!(begun.elapsed() < LONG, "{:?}", channel.snapshot());
        let _probe = call(&channel, TWICE, LONG).await;
        tokio::task::yield_now().await;
    }
    assert!(call(&channel, TWICE, LONG).await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn a_stream_has_an_attempts_time_to_begin_and_then_its_own() {
    let house = House::open().await;
    let second = Duration::from_secs(1);
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "probe.timeout = '1s'\nprobe.attempt_timeout = '1s'").expect("written");
    let policies = Policies::open(&house.host, Some(file.path()), "--policies").expect("valid");
    let upstream = Upstream {
        name: "probe",
        urls: house.url(),
        flag: "--url",
        service: probe::NAME,
        descriptors: probe::descriptors(),
        policies,
        tls: None,
    };
    let channel = Channel::open(&house.host, upstream).expect("it can be opened");
    let late = follow(&channel, question("never begin")).await.expect_err("it does not begin");
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    let mut stream = follow(&channel, question("wait")).await.expect("it begins in time");
    let first = stream.message().await.expect("all is well").expect("it begins");
    assert_eq!(first.text, "first");
    assert!(timeout(second * 3 / 2, stream.message()).await.is_err(), "it waits, and is not over");
    house.probe.release();
    assert_eq!(stream.message().await.expect("all is well").expect("more").text, "last");
    assert_eq!(stream.message().await.expect("it ends well"), None);
    house.close().await;
}

#[tokio::test]
async fn policies_are_in_force_as_soon_as_their_file_changes() {
    let stage = Stage::open([]).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |text: &str| fs::write(file.path(), text).expect("it can be written");
    write("play.timeout = '1s'");
    let channel = channel(&stage.host, &stage.url, file.path()).expect("it can be opened");
    let timeouts = || channel.snapshot().methods.into_iter().map(|method| method.timeout);
    let become_these = async |seconds| {
        let these = [Some(Duration::from_secs(seconds)); 2];
        let begun = Instant::now();
        while !timeouts().eq(these) {
            assert!(begun.elapsed() < LONG, "{:?}", channel.snapshot());
            call(&channel, TWICE, LONG).await.expect("calls go on");
        }
    };
    become_these(1).await;
    write("play.timeout = '2s'");
    become_these(2).await;
    write("play.timeout = 'soon'");
    for _call in 0..100 {
        call(&channel, TWICE, LONG).await.expect("calls go on");
        assert!(timeouts().eq([Some(Duration::from_secs(2)); 2]), "nothing changes");
    }
    write("play.timeout = '3s'");
    become_these(3).await;
    stage.close().await;
}

#[tokio::test]
async fn a_process_does_not_start_with_policies_that_nobody_meant() {
    let (host, file) = (Host::new(), tempfile::NamedTempFile::new().expect("a file"));
    for (text, says) in [
        ("play.timeout = 'soon'", "play: "),
        ("play.methods.Thrice.attempts = 2", "play.methods.Thrice: test.v1.Play"),
    ] {
        fs::write(file.path(), text).expect("it can be written");
        let error = channel(&host, "http://localhost:1", file.path()).expect_err(text);
        assert!(format!("{error:#}").contains(says), "{error:#}");
    }
    let missing = file.path().with_extension("missing");
    let error = channel(&host, "http://localhost:1", &missing).expect_err("there is no file");
    let error = format!("{error:#}");
    assert!(error.contains("--policies") && error.contains("missing"), "{error}");
}
