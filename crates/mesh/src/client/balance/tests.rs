//! The balancer against servers of these tests: whom it asks, and what it knows of what was done.

use super::*;
use chassis::Host;
use futures::future::{BoxFuture, join_all};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    collections::HashMap,
    io,
    pin::pin,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};
use tonic::Code;

/// Long enough for a busy machine.
const LONG: Duration = Duration::from_secs(20);
const PATH: &str = "/test.v1.Probe/Ask";

/// What it answers with.
#[derive(Clone, Copy, Debug)]
enum Says {
    Status(&'static str),
    Http(u16),
    Reset,
}

/// A server that answers, and counts.
struct Peer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Peer {
    /// It says GOAWAY to a client after so many answers.
    async fn open(goaway_after: usize) -> Self {
        Self::answering(Says::Status("0"), goaway_after).await
    }

    async fn answering(says: Says, goaway_after: usize) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let (host, asked) = (Host::new(), Arc::<AtomicUsize>::default());
        host.clone().track({
            let asked = asked.clone();
            async move {
                while let Ok((stream, _peer)) = socket.accept().await {
                    host.track(serve(stream, says, goaway_after, asked.clone()));
                }
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    fn place(&self) -> Place {
        target(&self.url()).place().expect("it has an address")
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(
    stream: tokio::net::TcpStream,
    says: Says,
    goaway_after: usize,
    asked: Arc<AtomicUsize>,
) {
    let answered = watch::Sender::new(0);
    let mut enough = answered.subscribe();
    let service = service_fn(move |request: Request<Incoming>| {
        if request.uri().path() == PATH {
            asked.fetch_add(1, Relaxed);
        }
        answered.send_modify(|answered| *answered += 1);
        async move {
            // the answer is not there yet when the next question comes
            tokio::task::yield_now().await;
            let answer = Response::builder().header("content-type", "application/grpc");
            let answer = match says {
                Says::Status(status) => answer.header("grpc-status", status),
                Says::Http(status) => answer.status(status),
                // hyper resets the stream
                Says::Reset => return Err(io::Error::other("it breaks")),
            };
            Ok(answer.body(String::new()).expect("it is an answer"))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new());
    let mut connection = pin!(connection.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ended = connection.as_mut() => return,
        _enough = enough.wait_for(|answered| *answered >= goaway_after) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = connection.await;
}

fn target(url: &str) -> Target {
    Target::read(url, "--url", None).expect("it is a URL")
}

fn question() -> Request<Body> {
    let mut request = Request::post(PATH).body(Body::empty()).expect("it is a request");
    request.headers_mut().insert("te", "trailers".parse().expect("a value"));
    request
}

async fn ask(balance: &Balance) -> Result<Response<Body>, Status> {
    balance.send(question(), (LONG, true), &mut Tried::default()).await
}

fn set(balance: &Balance) -> &Set {
    let Way::Endpoints(endpoints) = &balance.0 else { panic!("it has endpoints") };
    &endpoints.set
}

fn open(urls: &[String]) -> Balance {
    Balance::open(&Host::new(), &urls.join(","), "--url", None).expect("they are URLs")
}

/// Until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "in vain: {what}");
        let _later = timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
    }
}

fn all_are_up(balance: &Balance) -> bool {
    let endpoints = set(balance).endpoints.borrow();
    endpoints.iter().all(|endpoint| endpoint.reluctance(false) == 0)
}

#[tokio::test]
async fn calls_are_spread_over_all_addresses() {
    let peers = [Peer::open(usize::MAX).await, Peer::open(usize::MAX).await];
    let balance = open(&[peers[0].url(), peers[1].url()]);
    until("both are connected", || all_are_up(&balance)).await;
    for _batch in 0..20 {
        for answer in join_all((0..20).map(|_call| ask(&balance))).await {
            assert!(answer.is_ok(), "{answer:?}");
        }
    }
    for peer in &peers {
        // half of them, but for the order in which answers come
        assert!((130..=270).contains(&peer.asked()), "{} of 400", peer.asked());
    }
}

#[tokio::test]
async fn of_two_the_one_with_less_to_do_is_taken() {
    let peers = [Peer::open(usize::MAX).await, Peer::open(usize::MAX).await];
    let balance = open(&[peers[0].url(), peers[1].url()]);
    until("both are connected", || all_are_up(&balance)).await;
    let endpoints = set(&balance).endpoints.borrow().clone();
    let _busy = UnderWay::new(endpoints[0].clone());
    for _again in 0..20 {
        let chosen = choose(&endpoints, &Tried::default()).expect("there are some");
        assert_eq!(chosen.address, endpoints[1].address);
    }
}

#[tokio::test]
async fn the_next_attempt_goes_elsewhere() {
    let peers = [Peer::open(usize::MAX).await, Peer::open(usize::MAX).await];
    let balance = open(&[peers[0].url(), peers[1].url()]);
    until("both are connected", || all_are_up(&balance)).await;
    for calls in 1..=20 {
        let mut tried = Tried::default();
        for _attempt in 0..2 {
            balance.send(question(), (LONG, true), &mut tried).await.expect("it is answered");
        }
        assert_eq!(peers.each_ref().map(Peer::asked), [calls, calls]);
    }
    // and a third one somewhere
    let mut tried = Tried::default();
    set(&balance).endpoints.borrow().iter().for_each(|endpoint| tried.add(endpoint));
    balance.send(question(), (LONG, true), &mut tried).await.expect("it is answered");
}

// two threads, for the connection to end between a call's look at it and its way into it
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sends_its_clients_away_fails_few_calls_and_says_truly_which_were_not_sent() {
    let peer = Peer::open(7).await;
    let balance = open(&[peer.url()]);
    let in_doubt = AtomicUsize::new(0);
    let caller = async || {
        for _call in 0..100 {
            while let Err(status) = ask(&balance).await {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                in_doubt.fetch_add(usize::from(!crate::client::not_sent(&status)), Relaxed);
            }
        }
    };
    join_all((0..16).map(|_caller| caller())).await;
    let (asked, in_doubt) = (peer.asked(), in_doubt.into_inner());
    assert!(asked >= 1600, "{asked}");
    assert!(asked - 1600 <= in_doubt, "{asked} with {in_doubt} in doubt");
    // one hundred times the server went away; a call of each connection's sixteen would be sixteen times as many
    assert!(in_doubt < 160, "{in_doubt}");
}

#[tokio::test]
async fn a_new_address_gets_calls_and_one_that_left_gets_none() {
    let peers = [Peer::open(usize::MAX).await, Peer::open(usize::MAX).await];
    let balance = open(&[peers[0].url()]);
    ask(&balance).await.expect("it is answered");
    set(&balance).become_these(vec![peers[0].place(), peers[1].place()]);
    until("it is connected", || all_are_up(&balance)).await;
    for _call in 0..50 {
        ask(&balance).await.expect("it is answered");
    }
    assert!(peers[1].asked() > 0, "it gets calls");
    set(&balance).become_these(vec![peers[1].place()]);
    let before = peers[0].asked();
    for _call in 0..20 {
        ask(&balance).await.expect("it is answered");
    }
    assert_eq!(peers[0].asked(), before, "it gets none");
}

#[tokio::test]
async fn who_refuses_at_once_does_not_draw_all_calls() {
    for says in [Says::Status("14"), Says::Status("8"), Says::Http(503), Says::Reset] {
        let (well, ill) = (Peer::open(usize::MAX).await, Peer::answering(says, usize::MAX).await);
        let balance = open(&[well.url(), ill.url()]);
        until("both are connected", || all_are_up(&balance)).await;
        for _call in 0..200 {
            let _answer = ask(&balance).await;
        }
        // one in each second, after which it is asked again
        assert!(ill.asked() < 50, "{says:?}: {}", ill.asked());
        assert_eq!(ill.asked() + well.asked(), 200, "{says:?}");
    }
}

#[tokio::test]
async fn one_address_by_two_names_is_two_endpoints() {
    let balance = open(&["http://127.0.0.1:1".to_owned()]);
    let named = |name: &str| {
        let place = target("http://127.0.0.1:1").place().expect("it has an address");
        (place.0, target(name).origin)
    };
    let (one, other) = (named("http://one.example:1"), named("http://other.example:1"));
    let are = || {
        let endpoints = set(&balance).endpoints.borrow();
        endpoints.iter().map(|endpoint| endpoint.origin.authority.to_string()).collect::<Vec<_>>()
    };
    set(&balance).become_these(vec![one.clone(), other.clone(), one]);
    assert_eq!(are(), ["one.example:1", "other.example:1"]);
    set(&balance).become_these(vec![other]);
    assert_eq!(are(), ["other.example:1"]);
}

#[tokio::test]
async fn who_only_answers_its_keeper_is_on_probation() {
    let balance = open(&["http://127.0.0.1:1".to_owned()]);
    let endpoint = set(&balance).endpoints.borrow()[0].clone();
    assert_eq!([(); 3].map(|()| endpoint.is_late()), [false, false, true]);
    endpoint.take_out("it is late");
    endpoint.proved();
    assert!(endpoint.is_in());
    assert!(endpoint.is_late(), "once more is enough");
    endpoint.heard();
    assert!(!endpoint.is_late(), "it answered a call");
}

#[tokio::test]
async fn nothing_is_taken_out_for_being_late_when_it_is_the_last() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("it is bound"));
    let balance = open(&[url]);
    for _call in 0..5 {
        let mut tried = Tried::default();
        let time = (Duration::from_millis(30), true);
        let answer = balance.send(question(), time, &mut tried).await;
        let status = answer.expect_err("nobody answers");
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
    assert!(balance.endpoints()[0].out.is_none());
}

/// A server that answers the first call of each connection with these bytes, and closes it.
async fn saying(frame: &'static [u8]) -> Balance {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    Host::new().track(async move {
        while let Ok((mut stream, _peer)) = socket.accept().await {
            // empty settings; the client's preface, and its frames (4.1) up to the headers of a call
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("it is there");
            stream.read_exact(&mut [0; 24]).await.expect("it speaks HTTP/2");
            let mut kind = u8::MAX;
            while kind != 1 {
                let mut head = [0; 9];
                stream.read_exact(&mut head).await.expect("the call comes before the end");
                let len = usize::from(head[1]) * 256 + usize::from(head[2]);
                stream.read_exact(&mut vec![0; len]).await.expect("it is whole");
                kind = head[3];
            }
            let _gone = stream.write_all(frame).await;
            let _gone = stream.shutdown().await;
        }
    });
    open(&[format!("http://{address}")])
}

#[tokio::test]
async fn what_the_server_says_that_it_did_not_do_was_not_sent() {
    // RFC 9113: RST_STREAM (6.4) of stream 1, GOAWAY (6.8) after stream 0 or 1, with an error code each (7)
    let refused = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
    let internal = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let went_before = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let went_after = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    for (frame, code, not_sent) in [
        (&refused[..], Code::Unavailable, true),
        (&internal[..], Code::Internal, false),
        // hyper does not keep to it
        (&went_before[..], Code::Unavailable, false),
        (&went_after[..], Code::Unavailable, false),
        (&[], Code::Unavailable, false),
    ] {
        let balance = saying(frame.to_vec().leak()).await;
        let status = ask(&balance).await.expect_err("it is no answer");
        assert_eq!(status.code(), code, "{frame:?}: {status:?}");
        assert_eq!(crate::client::not_sent(&status), not_sent, "{frame:?}: {status:?}");
    }
}

/// A name server that says what it is told to.
#[derive(Clone, Default)]
struct NameServer(Arc<Mutex<HashMap<&'static str, Vec<SocketAddr>>>>);

impl NameServer {
    fn tell(&self, name: &'static str, addresses: Vec<SocketAddr>) {
        self.0.lock().expect("no panic while locked").insert(name, addresses);
    }

    fn lookup(&self) -> Lookup {
        let names = self.0.clone();
        Arc::new(move |host: String, _port| -> BoxFuture<'static, _> {
            let names = names.lock().expect("no panic while locked");
            let found = names.get(&*host).cloned();
            let none = || io::Error::other("no such name");
            Box::pin(async move { found.ok_or_else(none) })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_again_and_an_empty_answer_changes_nothing() {
    let names = NameServer::default();
    let host = Host::new();
    let urls = "http://pay.example:80,http://127.0.0.9:81";
    let balance = Balance::open_with(&host, urls, ("--url", None), names.lookup()).expect("URLs");
    let addresses =
        || balance.endpoints().iter().map(|endpoint| endpoint.address.to_string()).collect();
    let soon = async |expected: &[&str]| {
        let begun = Instant::now();
        let is_so = || {
            let mut are: Vec<String> = addresses();
            are.sort_unstable();
            are == expected
        };
        until(&format!("{expected:?}"), is_so).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    };
    let ip = |last: u8| SocketAddr::from(([127, 0, 0, last], 80));
    soon(&["127.0.0.9:81"]).await;
    names.tell("pay.example", vec![ip(1), ip(2), ip(2)]);
    soon(&["127.0.0.1:80", "127.0.0.2:80", "127.0.0.9:81"]).await;
    names.tell("pay.example", vec![]);
    let _long = timeout(Duration::from_secs(60), std::future::pending::<()>()).await;
    soon(&["127.0.0.1:80", "127.0.0.2:80", "127.0.0.9:81"]).await;
    // the first may be just before the next look, the second is just after one
    for last in [3, 4] {
        names.tell("pay.example", vec![ip(2), ip(last)]);
        soon(&["127.0.0.2:80", &ip(last).to_string(), "127.0.0.9:81"]).await;
    }
    drop(balance);
}

#[tokio::test]
async fn a_name_without_addresses_is_waited_for() {
    let (names, peer) = (NameServer::default(), Peer::open(usize::MAX).await);
    let url = format!("http://pay.example:{}", peer.address.port());
    let balance = Balance::open_with(&Host::new(), &url, ("--url", None), names.lookup())
        .expect("it is a URL");
    let status = ask(&balance).await.expect_err("it has no address");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(crate::client::not_sent(&status));
    let (answer, ()) =
        tokio::join!(ask(&balance), async { names.tell("pay.example", vec![peer.address]) });
    assert!(answer.is_ok(), "{answer:?}");
}
