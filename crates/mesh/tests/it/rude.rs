//! Peers who do not speak as they should, or ask for more than there is: each is refused, and others are served.

use crate::{
    house::{DEFAULT, House, ask, reason, spawn},
    probe::{ASK, FOLLOW, TELL, framed, question},
    wire::{DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, Wire, frame},
};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, poll, stream::FuturesUnordered};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use mesh::Limits;
use prost::Message as _;
use std::{ops::Range, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::{Code, body::Body, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// Of HTTP/2.
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
/// A process begins with room for so many calls at once.
const CALLS: usize = 512;
/// On a connection.
const STREAMS: usize = 128;

fn good() -> Bytes {
    framed(&question("good").encode_to_vec())
}

/// Others are served as if nothing were.
async fn serves(house: &House) {
    let served = ask(&house.channel(), question("others")).await;
    assert!(served.is_ok(), "{served:?}");
    let asked = house.probe.asked();
    assert!(asked.iter().all(|asked| asked.text == "others"), "nothing happened: {asked:?}");
}

async fn plain(answer: Response<Incoming>) -> (StatusCode, usize) {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("it ends").to_bytes();
    assert!(!head.headers.contains_key("grpc-status"), "it is for who speaks no gRPC");
    (head.status, body.len())
}

#[tokio::test]
async fn what_is_no_call_is_refused_in_the_words_of_http() {
    let house = House::open().await;
    let request = |method: &Method, path, content_type: Option<&str>| {
        let request = Request::builder().method(method).uri(format!("http://localhost{path}"));
        let request =
            content_type.iter().fold(request, |it, value| it.header("content-type", *value));
        request.body(Body::new(Full::new(good()))).expect("it is a request")
    };
    for address in [house.serving.address, house.serving.admin_address] {
        let wire = Wire::connect(address).await;
        for path in [ASK, FOLLOW, HEALTH, REFLECTION, "/"] {
            for method in [
                Method::GET,
                Method::PUT,
                Method::DELETE,
                Method::PATCH,
                Method::OPTIONS,
                Method::TRACE,
            ] {
                for content_type in [None, Some("application/grpc")] {
                    let answer = wire.request(request(&method, path, content_type)).await;
                    let answer = answer.expect("it is answered");
                    assert_eq!(answer.headers()["allow"], "POST");
                    let refused = plain(answer).await;
                    assert_eq!(refused, (StatusCode::METHOD_NOT_ALLOWED, 0), "{method} {path}");
                }
            }
            for content_type in [
                None,
                Some(""),
                Some("application/json"),
                Some("text/html"),
                Some("application/grpc-web"),
            ] {
                let answer = wire.request(request(&Method::POST, path, content_type)).await;
                let refused = plain(answer.expect("it is answered")).await;
                let expected = (StatusCode::UNSUPPORTED_MEDIA_TYPE, 0);
                assert_eq!(refused, expected, "{content_type:?} {path}");
            }
        }
    }
    let wire = Wire::connect(house.serving.address).await;
    let answer = wire.request(request(&Method::HEAD, ASK, Some("application/grpc"))).await;
    let refused = plain(answer.expect("it is answered")).await;
    assert_eq!(refused, (StatusCode::METHOD_NOT_ALLOWED, 0));
    serves(&house).await;
    house.close().await;
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused() {
    let house = House::open().await;
    for (size, status) in [
        (12_000, Some(StatusCode::OK)),
        (20_000, Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)),
        (70_000, None),
    ] {
        let wire = Wire::connect(house.serving.address).await;
        let request = Request::post(format!("http://localhost{HEALTH}"))
            .header("content-type", "application/grpc")
            .header("x-large", "a".repeat(size))
            .body(Body::new(Full::new(framed(&[]))))
            .expect("it is a request");
        let answer = wire.request(request).await;
        assert_eq!(answer.ok().map(|answer| answer.status()), status, "{size}");
    }
    // a header that is never ended, in one CONTINUATION after the other
    let large = [&[0x00, 1, b'x', 0x7f][..], &[0xff, 0xff, 0x7f], &[b'a'; 1_000]].concat();
    let first = [Frames::call(ASK), large].concat();
    let sent = [frame(HEADERS, 0, 1, &first)].into_iter();
    let sent: Vec<_> = sent.chain((0..100).map(|_| frame(9, 0, 1, &[b'a'; 1_000]))).collect();
    let wire = Frames::connect(house.serving.address).await;
    let goodbye = wire.until(sent.concat(), |frame| frame.kind == GOAWAY).await;
    assert_eq!(goodbye.error(), ENHANCE_YOUR_CALM);
    serves(&house).await;
    house.close().await;
}

#[tokio::test]
async fn one_call_more_than_a_connection_may_have_is_refused() {
    let house = House::open().await;
    let calls = (0..=128).map(|call| frame(HEADERS, END_HEADERS, 2 * call + 1, &Frames::call(ASK)));
    let sent = calls.collect::<Vec<_>>().concat();
    let wire = Frames::connect(house.serving.address).await;
    let refused = wire.until(sent, |frame| frame.kind == RST_STREAM).await;
    assert_eq!((refused.stream, refused.error()), (257, REFUSED_STREAM));
    serves(&house).await;
    house.close().await;
}

#[tokio::test]
async fn calls_that_are_given_up_as_they_are_made_end_their_connection() {
    let house = House::open().await;
    let call = Frames::call(ASK);
    let calls = (0..10_000).map(|call_number| {
        let stream = 2 * call_number + 1;
        [frame(HEADERS, END_HEADERS, stream, &call), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            .concat()
    });
    let sent = calls.collect::<Vec<_>>().concat();
    let wire = Frames::connect(house.serving.address).await;
    let goodbye = wire.until(sent, |frame| frame.kind == GOAWAY).await;
    assert_eq!(goodbye.error(), ENHANCE_YOUR_CALM);
    serves(&house).await;
    house.close().await;
}

#[tokio::test]
async fn who_does_not_speak_http2_is_hung_up_on_at_once() {
    let house = House::open().await;
    for address in [house.serving.address, house.serving.admin_address] {
        for sent in [
            &b"GET /test.v1.Probe/Ask HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
            b"POST /test.v1.Probe/Ask HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x00\xff\xfe\x80 random \x00\x01",
        ] {
            let mut wire = TcpStream::connect(address).await.expect("it listens");
            wire.write_all(sent).await.expect("it is taken");
            let begun = Instant::now();
            let mut told = Vec::new();
            // cut off or ended, as the system likes
            let _end = wire.read_to_end(&mut told).await;
            assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits: {sent:x?}");
            assert!(!told.starts_with(b"HTTP/1.1 2"), "{told:x?}");
        }
    }
    serves(&house).await;
    house.close().await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let house = House::open_to(Limits { for_each_address: 3, ..Limits::default() }).await;
    let address = house.serving.address;
    let mut connected = Vec::new();
    for _connection in 0..3 {
        let wire = Wire::connect(address).await;
        let served = wire.send(ASK, &[], &[&framed(&question("others").encode_to_vec())]).await;
        assert_eq!(served.status().code(), Code::Ok);
        connected.push(wire);
    }
    let mut one_more = TcpStream::connect(address).await.expect("the system takes it");
    let read = one_more.read(&mut [0; 9]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "it is hung up on: {read:?}");
    let admin = TcpStream::connect(house.serving.admin_address).await;
    assert!(admin.is_ok(), "who runs it is counted apart");
    connected.clear();
    // once the server has seen that they are gone
    let again = timeout(Duration::from_secs(10), async {
        while ask(&house.channel(), question("others")).await.is_err() {}
    });
    again.await.expect("there is room again");
    house.close().await;
}

#[tokio::test]
async fn a_million_empty_entries_take_no_memory() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    for (entries, code) in [
        (21, Code::InvalidArgument),
        (32_000, Code::InvalidArgument),
        (1_000_000, Code::ResourceExhausted),
    ] {
        let answer = wire.send(ASK, &[], &[&framed(&[0x1a, 0x00].repeat(entries))]).await;
        assert_eq!(reason(&answer.refusal()), (code, "VALIDATION".to_owned()), "{entries}");
    }
    serves(&house).await;
    house.close().await;
}

/// Calls that wait for their release, until so many do.
async fn work(house: &House, calls: Range<usize>) -> Vec<JoinHandle<Code>> {
    let wait = framed(&question("wait").encode_to_vec());
    let mut working = Vec::new();
    for first in calls.clone().step_by(STREAMS) {
        let wire = Wire::connect(house.serving.address).await;
        for _call in first..calls.end.min(first + STREAMS) {
            let (wire, wait) = (wire.clone(), wait.clone());
            working.push(spawn(async move { wire.send(ASK, &[], &[&wait]).await.status().code() }));
        }
    }
    house.probe.waits(calls.end).await;
    working
}

#[tokio::test]
async fn what_is_too_much_is_refused_unread_and_told_when_to_come_again() {
    let house = House::open().await;
    let address = house.serving.address;
    let working = work(&house, 0..CALLS).await;
    let wire = Wire::connect(address).await;
    // nothing of it is sent, and nothing needs to be
    let answer = wire.hang(ASK, &[], &[]).await;
    let refused = answer.refusal();
    assert_eq!(reason(&refused), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert!(refused.get_details_retry_info().is_some(), "it says when to people");
    assert_eq!(answer.headers["grpc-retry-pushback-ms"], "1000", "and to machines");
    let first = wire.send(FOLLOW, &[], &[&good()]).await;
    assert_eq!(first.status().code(), Code::Ok, "it goes first");
    let beside = wire.send(TELL, &[], &[&good()]).await;
    assert_eq!(beside.status().code(), Code::Ok, "as do those who look what is the matter");
    let endpoint = Endpoint::from_shared(house.url()).expect("a URL");
    let mut health = HealthClient::new(endpoint.connect().await.expect("it listens"));
    assert!(health.check(HealthCheckRequest::default()).await.is_ok(), "health is apart");
    house.probe.release();
    for work in working {
        assert_eq!(work.await.expect("it does not panic"), Code::Ok);
    }
    assert_eq!(wire.send(ASK, &[], &[&good()]).await.status().code(), Code::Ok, "it is over");
    house.close().await;
}

#[tokio::test]
async fn many_refusals_cost_no_call_on_the_same_connection() {
    let house = House::open().await;
    let mut wire = Frames::connect(house.serving.address).await;
    let ask = Frames::call(ASK);
    let wait = framed(&question("wait").encode_to_vec());
    wire.send(&frame(HEADERS, END_HEADERS, 1, &ask)).await;
    wire.send(&frame(DATA, END_STREAM, 1, &wait)).await;
    house.probe.waits(1).await;
    let working = work(&house, 1..CALLS).await;
    let mut streams = (3..).step_by(2);
    for _burst in 0..40 {
        let streams: Vec<_> = streams.by_ref().take(100).collect();
        for stream in &streams {
            wire.send(&frame(HEADERS, END_HEADERS, *stream, &ask)).await;
        }
        let mut refused = 0;
        while refused < streams.len() {
            let frame = wire.receive().await;
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
            refused += usize::from(frame.kind == HEADERS);
        }
        // on its way when it was refused
        for stream in streams {
            wire.send(&frame(DATA, END_STREAM, stream, &good())).await;
        }
    }
    house.probe.release();
    loop {
        let frame = wire.receive().await;
        assert_ne!(frame.kind, GOAWAY, "{frame:?}");
        if (frame.kind, frame.stream) == (DATA, 1) {
            break;
        }
    }
    for work in working {
        assert_eq!(work.await.expect("it does not panic"), Code::Ok);
    }
    drop(wire);
    house.close().await;
}

#[tokio::test]
async fn who_sends_half_a_request_takes_nobodys_place() {
    let house = House::open_with(DEFAULT, DEFAULT, Duration::ZERO).await;
    let others = framed(&question("others").encode_to_vec());
    let mut hanging = Vec::new();
    for _connection in 0..=CALLS / (STREAMS - 1) {
        let wire = Wire::connect(house.serving.address).await;
        let half = |_| {
            let wire = wire.clone();
            async move { wire.hang(ASK, &[], &[&good()[..4]]).await }.boxed()
        };
        let mut halves: FuturesUnordered<_> = (1..STREAMS).map(half).collect();
        assert!(poll!(halves.next()).is_pending(), "they are on their way");
        // behind them, so they have arrived
        let served = wire.send(ASK, &[], &[&others]).await;
        assert_eq!(served.status().code(), Code::Ok);
        hanging.push(halves);
    }
    assert!(hanging.iter().map(FuturesUnordered::len).sum::<usize>() > CALLS);
    serves(&house).await;
    drop(hanging);
    house.close().await;
}
