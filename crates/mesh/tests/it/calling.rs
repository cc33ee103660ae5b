//! The client's channel.

use crate::{
    house::{House, ask, reason},
    probe::question,
};
use mesh::client::{connect, not_sent};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::{Code, Request};

fn within<T>(time: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}

#[tokio::test]
async fn an_answer_is_an_answer() {
    let house = House::open().await;
    let channel = house.channel();
    let request = within(Duration::from_secs(10), question("hello"));
    let answer = ask(&channel, request).await.expect("it is answered");
    assert_eq!(answer.text, "hello");
    assert!((1..=10_000).contains(&answer.left_ms), "the server heard of the deadline");
    let refused = question(&"a".repeat(201));
    let status = ask(&channel, refused).await.expect_err("it is too long");
    assert_eq!(reason(&status), (Code::InvalidArgument, "VALIDATION".to_owned()));
    assert!(!not_sent(&status));
    house.close().await;
}

#[tokio::test]
async fn nothing_is_sent_where_nobody_listens() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    drop(socket);
    let channel = connect(&format!("http://{address}"), "--url").expect("it is a URL");
    for _again in 0..3 {
        let status = ask(&channel, question("hello")).await.expect_err("nobody is there");
        assert_eq!(status.code(), Code::Unavailable);
        assert!(not_sent(&status), "{status:?}");
        assert!(not_sent(&status.clone()), "a copy knows it, too");
    }
}

#[tokio::test]
async fn a_replica_that_cannot_be_connected_to_is_passed_over() {
    let (first, second) = (House::open().await, House::open().await);
    let channel = connect(&format!("{},{}", first.url(), second.url()), "--url").expect("URLs");
    assert!(ask(&channel, question("hello")).await.is_ok());
    first.close().await;
    let in_vain = ask(&channel, within(Duration::from_secs(10), question("hello"))).await;
    // the connection may break under this call; those after it find nobody there, and go on to the second
    assert!(in_vain.is_ok() || in_vain.is_err_and(|status| status.code() == Code::Unavailable));
    for _again in 0..3 {
        let answer = ask(&channel, within(Duration::from_secs(10), question("hello"))).await;
        assert_eq!(answer.expect("the second is there").text, "hello");
    }
    second.close().await;
    let status = (ask(&channel, question("hello")).await).expect_err("nobody is there");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_server_that_ends_is_unavailable() {
    let house = House::open().await;
    let channel = house.channel();
    assert!(ask(&channel, question("hello")).await.is_ok());
    house.close().await;
    let status = ask(&channel, question("hello")).await.expect_err("nobody is there");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_deadline_is_kept_against_a_silent_server() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let channel = connect(&format!("http://{address}"), "--url").expect("it is a URL");
    let request = within(Duration::from_millis(50), question("hello"));
    let status = ask(&channel, request).await.expect_err("nobody answers");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(!not_sent(&status), "it may have been");
}

#[tokio::test]
async fn a_call_without_time_is_not_sent() {
    let house = House::open().await;
    for time in [Duration::ZERO, Duration::from_nanos(1)] {
        let status = ask(&house.channel(), within(time, question("hello"))).await;
        let status = status.expect_err("there is no time");
        assert_eq!((status.code(), not_sent(&status)), (Code::DeadlineExceeded, true));
    }
    assert_eq!(house.probe.asked(), []);
    house.close().await;
}

#[tokio::test]
async fn what_is_no_url_is_told_with_its_flag() {
    for url in [
        "",
        "localhost:8081",
        "https://localhost:8081",
        "http://",
        "http://a b",
        "/",
        "ftp://a",
        "http://localhost:8081/path",
        "http://localhost:99999",
    ] {
        let error = format!("{:#}", connect(url, "--payment-url").expect_err("it is no URL"));
        assert!(error.contains("--payment-url") && !error.contains('\n'), "{url}: {error}");
    }
    for url in ["http://localhost:8081", "http://[::1]:8081/", "http://make.example.org"] {
        assert!(connect(url, "--make-url").is_ok(), "{url}");
    }
}
