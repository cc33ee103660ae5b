//! Peers who read slowly or not at all, on a clock that jumps ahead whenever all wait for it.

use super::*;
use crate::{around::AroundLayer, calls::Calls, stream::STILL};
use bytes::Bytes;
use chassis::DrainConfig;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    future::{Ready, pending},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
    time::Instant,
};
use tonic::{body::Body, server::NamedService, service::LayerExt as _};
use tower::Service;

const SECOND: Duration = Duration::from_secs(1);
const SMALL: usize = 100;
const LARGE: usize = 1024 * 1024;
/// Of HTTP/2, unless a peer says otherwise.
const WINDOW: u32 = 65_535;

/// Answers so many bytes, as a message and an end, or as a message after which more may come.
#[derive(Clone)]
struct Teller(usize);

impl NamedService for Teller {
    const NAME: &'static str = "test.v1.Teller";
}

impl Service<Request<Body>> for Teller {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let message = Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; self.0])));
        let message = stream::iter([message]);
        let end = stream::iter([Ok(Frame::trailers(HeaderMap::new()))]);
        let body = match request.uri().path() {
            "/test.v1.Teller/Tell" => Body::new(StreamBody::new(message.chain(end))),
            _ => Body::new(StreamBody::new(message.chain(stream::pending()))),
        };
        std::future::ready(Ok(Response::new(body)))
    }
}

/// A connection, without a network.
struct Peer {
    host: Host,
    under_way: TaskTracker,
    client: http2::SendRequest<Body>,
    served: JoinHandle<()>,
}

fn open(size: usize) -> (Host, TaskTracker, DuplexStream, JoinHandle<()>) {
    open_late(size, Instant::now())
}

/// One that was accepted a while ago.
fn open_late(size: usize, born: Instant) -> (Host, TaskTracker, DuplexStream, JoinHandle<()>) {
    let (host, under_way) = (Host::new(), TaskTracker::new());
    let calls =
        Calls { domain: "example.org", draining: host.draining(), under_way: under_way.clone() };
    let routes = Routes::new(AroundLayer(calls).named_layer(Teller(size)));
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let routes = Protocol::new("example.org", routes);
    let door = Door { host: host.clone(), routes, under_way: under_way.clone() };
    let served = host.track(serve(door, theirs, None, (born, Limits::default())));
    (host, under_way, ours, served)
}

/// How long a connection stays once the process drains.
async fn drain(host: Host, served: JoinHandle<()>) -> Duration {
    let begun = Instant::now();
    host.stop("the test is over");
    let drain = DrainConfig { delay: Duration::ZERO, timeout: SECOND * 9 };
    host.run(&drain).await.expect("it was asked to");
    served.await.expect("it does not panic");
    begun.elapsed()
}

impl Peer {
    /// One who is told so many bytes when it asks, and has room for so many before it reads.
    async fn connect(size: usize, window: u32) -> Self {
        let (host, under_way, line, served) = open(size);
        let (client, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size(1 << 24)
            .handshake(TokioIo::new(line))
            .await
            .expect("they speak HTTP/2");
        Host::new().track(connection);
        Self { host, under_way, client, served }
    }

    async fn call(&mut self, method: &str) -> Incoming {
        self.try_call(method).await.expect("it is answered")
    }

    async fn try_call(&mut self, method: &str) -> hyper::Result<Incoming> {
        let request = Request::post(format!("http://localhost/test.v1.Teller/{method}"));
        let request = request.header("content-type", "application/grpc").body(Body::empty());
        let request = request.expect("it is a request");
        self.client.send_request(request).await.map(Response::into_body)
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u8, content: &[u8]) -> Vec<u8> {
    let len = u8::try_from(content.len()).expect("it is short");
    [&[0, 0, len, kind, flags, 0, 0, 0, stream], content].concat()
}

/// Has room for everything, asks, and never reads.
async fn ask_and_freeze(mut line: DuplexStream) -> DuplexStream {
    let path = b"/test.v1.Teller/Tell";
    let len = u8::try_from(path.len()).expect("it is short");
    let headers = [
        &[0x83, 0x86, 0x04, len][..], // POST, http, the path
        path,
        &[0x01, 1, b'a', 0x0f, 0x10, 16], // an authority, the content type
        b"application/grpc",
    ];
    let sent = [
        PREFACE.to_vec(),
        frame(4, 0, 0, &[0, 4, 1, 0, 0, 0]), // SETTINGS: the window of a stream
        frame(8, 0, 0, &[1, 0, 0, 0]),       // WINDOW_UPDATE: that of the connection
        frame(1, 5, 1, &headers.concat()),   // HEADERS, and no more
    ];
    line.write_all(&sent.concat()).await.expect("there is room");
    line
}

/// Takes its time before each frame.
async fn read_slowly(mut answer: Incoming, pace: Duration) -> usize {
    let mut read = 0;
    loop {
        wait(pace).await;
        let Some(frame) = answer.frame().await else { break };
        read += frame.expect("it goes on").data_ref().map_or(0, Bytes::len);
    }
    read
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_stands_still_is_hung_up_on() {
    for (method, size, window) in [
        ("Tell", SMALL, 0),
        ("Follow", SMALL, 0),
        // they had room for some of it
        ("Tell", LARGE, 1),
        ("Tell", LARGE, WINDOW),
        ("Follow", LARGE, WINDOW),
    ] {
        let mut peer = Peer::connect(size, window).await;
        let begun = Instant::now();
        let answer = peer.call(method).await;
        peer.under_way.close();
        timeout(STILL * 2, peer.under_way.wait()).await.expect("it is given up");
        assert_eq!(begun.elapsed(), STILL, "{method} {size} {window}");
        // what came is there, and then the end that is none
        let read = answer.collect().await;
        let error = read.expect_err("it was not all sent");
        assert!(error.to_string().contains("error"), "{error}");
        assert!(!peer.served.is_finished(), "its other calls go on");
        assert_eq!(drain(peer.host, peer.served).await, Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_moves_is_waited_for() {
    let mut peer = Peer::connect(LARGE, 1 << 16).await;
    let answer = peer.call("Tell").await;
    assert_eq!(read_slowly(answer, SECOND * 10).await, LARGE);
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_news_is_not_a_reader_who_stands_still() {
    let mut peer = Peer::connect(SMALL, WINDOW).await;
    let mut answer = peer.call("Follow").await;
    let frame = answer.frame().await.expect("it begins").expect("it is well");
    assert!(frame.is_data());
    assert!(timeout(STILL * 10, answer.frame()).await.is_err(), "nothing happens");
}

#[tokio::test(start_paused = true)]
async fn a_peer_who_takes_nothing_from_the_socket_is_cut_off() {
    let (_host, under_way, line, served) = open(LARGE);
    let begun = Instant::now();
    let _line = ask_and_freeze(line).await;
    let ended = timeout(STILL * 2, served).await.expect("it is cut off");
    ended.expect("it does not panic");
    assert_eq!(begun.elapsed(), STILL);
    assert!(under_way.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_a_slow_reader() {
    // what is left waits in the answer, or in HTTP/2
    for (size, window) in [(96 * 1024, 32 * 1024), (48 * 1024, 32 * 1024 + 1)] {
        let mut peer = Peer::connect(size, window).await;
        let answer = peer.call("Tell").await;
        let read = Host::new().track(read_slowly(answer, Duration::from_millis(800)));
        let time = drain(peer.host, peer.served).await;
        assert_eq!(read.await.expect("it does not panic"), size);
        assert!(time < SECOND * 8, "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_long_for_who_does_not_read() {
    let still = |time| time < LAST_CALL * 2 + SECOND;
    for (method, size, window) in [("Tell", SMALL, 0), ("Tell", SMALL, 1), ("Follow", LARGE, 1)] {
        let mut peer = Peer::connect(size, window).await;
        let _answer = peer.call(method).await;
        let time = drain(peer.host, peer.served).await;
        assert!(still(time), "{method} {size} {window}: {time:?}");
    }
    let (host, _under_way, line, served) = open(LARGE);
    let _line = ask_and_freeze(line).await;
    let time = drain(host, served).await;
    assert!(still(time), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_costs_no_time_where_nothing_is_left_to_say() {
    let mut used = Peer::connect(SMALL, WINDOW).await;
    assert_eq!(read_slowly(used.call("Tell").await, Duration::ZERO).await, SMALL);
    assert_eq!(drain(used.host, used.served).await, Duration::ZERO);
    let (host, _under_way, _silent, served) = open(SMALL);
    assert_eq!(drain(host, served).await, GOODBYE, "it never spoke");
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_is_hung_up_on_within_ten_seconds() {
    let first_call = Limits::default().first_call;
    let settings = frame(4, 0, 0, &[]);
    let at_once = Duration::ZERO..SECOND;
    let late = first_call..SECOND * 10;
    for (sent, when) in [
        (vec![], &late),
        (b"PRI * HTTP".to_vec(), &late),
        (PREFACE.to_vec(), &late),
        ([PREFACE, &settings].concat(), &late),
        // half of a request's headers
        ([PREFACE, &settings, &frame(1, 1, 1, &[0x83, 0x86])].concat(), &late),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), &at_once),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &at_once),
        (b"\x00\xff\xfe random".to_vec(), &at_once),
    ] {
        let (_host, under_way, mut line, served) = open(SMALL);
        let begun = Instant::now();
        line.write_all(&sent).await.expect("there is room");
        let mut told = Vec::new();
        let _settings_and_goodbye = timeout(SECOND * 60, line.read_to_end(&mut told)).await;
        let closed = begun.elapsed();
        assert!(when.contains(&closed), "{sent:x?}: {closed:?}");
        served.await.expect("it does not panic");
        assert!(under_way.is_empty());
    }
    let peer = Peer::connect(SMALL, WINDOW).await;
    let begun = Instant::now();
    let served = timeout(SECOND * 60, peer.served).await;
    served.expect("it is hung up on").expect("it does not panic");
    assert!(late.contains(&begun.elapsed()), "it spoke, and asked nothing: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_takes_long_to_shake_hands_has_less_time_to_ask() {
    let born = Instant::now();
    wait(SECOND * 5).await;
    let (_host, _under_way, _silent, served) = open_late(SMALL, born);
    served.await.expect("it does not panic");
    assert!(born.elapsed() < SECOND * 10, "{:?}", born.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_does_not_stand_still_while_a_call_is_under_way() {
    let usage = Arc::new(Usage::default());
    let (call, begun) = (usage.begin(), Instant::now());
    let ends = async {
        wait(SECOND.mul_f64(0.999)).await;
        drop(call);
    };
    tokio::join!(usage.stands_still(SECOND), ends);
    assert_eq!(begun.elapsed(), SECOND * 2, "the last answer may still be on its way");
}

async fn wait(time: Duration) {
    let _passed = timeout(time, pending::<()>()).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_any_more_is_told_to_go() {
    let idle = Limits::default().idle;
    let mut peer = Peer::connect(SMALL, WINDOW).await;
    // a pause does not cost the connection
    for pause in [Duration::ZERO, idle.mul_f64(0.8)] {
        wait(pause).await;
        assert_eq!(read_slowly(peer.call("Tell").await, Duration::ZERO).await, SMALL);
    }
    let asked = Instant::now();
    peer.served.await.expect("it does not panic");
    assert!((idle..=idle * 2).contains(&asked.elapsed()), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_ends_when_its_calls_have() {
    let age = Limits::default().age;
    let mut peer = Peer::connect(SMALL, WINDOW).await;
    let mut watch = peer.call("Follow").await;
    assert!(watch.frame().await.is_some());
    wait(age.mul_f64(0.89)).await;
    assert_eq!(read_slowly(peer.call("Tell").await, Duration::ZERO).await, SMALL);
    wait(age.mul_f64(0.22)).await;
    assert!(peer.try_call("Tell").await.is_err(), "it was told to ask elsewhere");
    assert!(timeout(age * 10, watch.frame()).await.is_err(), "what is under way goes on");
    assert!(!peer.served.is_finished());
    drop(watch);
    timeout(SECOND, peer.served).await.expect("nothing keeps it").expect("it does not panic");
}

#[test]
fn only_a_socket_that_is_none_ends_the_process() {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO, EPERM, ENETDOWN, EHOSTUNREACH, ENOSPC, and one that nobody has heard of
    for passing in [24, 23, 105, 12, 71, 1, 100, 113, 28, 4_000] {
        assert_eq!(Failure::of(&io::Error::from_raw_os_error(passing)), Failure::Passing);
    }
    for broken in [9, 22, 88] {
        assert_eq!(Failure::of(&io::Error::from_raw_os_error(broken)), Failure::Socket);
    }
    assert_eq!(Failure::of(&io::ErrorKind::ConnectionAborted.into()), Failure::Peer);
}
