//! Deadlines, as the server keeps them.

use crate::{
    house::{DEFAULT, House, MOST, ask, follow, reason},
    probe::{ASK, Answer, FOLLOW, framed, question},
    wire::Wire,
};
use prost::Message as _;
use std::time::Duration;
use tonic::Code;

const SHORT: Duration = Duration::from_millis(100);

fn good() -> Vec<u8> {
    framed(&question("good").encode_to_vec()).to_vec()
}

#[tokio::test]
async fn a_malformed_timeout_is_refused() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    for path in [ASK, FOLLOW] {
        for timeout in ["banana", "-1S", "", "1", "S", "123456789n", "1s", "1.5S"] {
            let answer = wire.send(path, &[("grpc-timeout", timeout)], &[&good()]).await;
            let refused = reason(&answer.refusal());
            assert_eq!(refused, (Code::InvalidArgument, "VALIDATION".to_owned()), "{timeout}");
        }
    }
    assert_eq!(house.probe.asked(), []);
    house.close().await;
}

#[tokio::test]
async fn a_call_without_time_has_no_effect() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    for path in [ASK, FOLLOW] {
        for timeout in ["0n", "1n", "0S", "0H", "999u"] {
            let answer = wire.send(path, &[("grpc-timeout", timeout)], &[&good()]).await;
            let refused = reason(&answer.refusal());
            assert_eq!(refused, (Code::DeadlineExceeded, "DEADLINE".to_owned()), "{timeout}");
        }
    }
    assert_eq!(house.probe.asked(), []);
    house.close().await;
}

#[tokio::test]
async fn a_call_has_the_time_its_caller_gives_up_to_the_cap() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    let left = async |headers: &[(&str, &str)]| {
        let answer = wire.send(ASK, headers, &[&good()]).await;
        assert_eq!(answer.status().code(), Code::Ok);
        let answer = Answer::decode(&answer.body[5..]).expect("it is an answer");
        Duration::from_millis(answer.left_ms.try_into().expect("it is not negative"))
    };
    let second = Duration::from_secs(1);
    for (headers, time) in [
        (&[][..], DEFAULT),
        (&[("grpc-timeout", "10S")], second * 10),
        (&[("grpc-timeout", "30000m")], second * 30),
        (&[("grpc-timeout", "99999999H")], MOST),
    ] {
        let left = left(headers).await;
        assert!(left <= time && left > time - second * 5, "{headers:?}: {left:?}");
    }
    house.close().await;
}

#[tokio::test]
async fn work_is_dropped_when_its_time_is_over() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    let wait = framed(&question("wait").encode_to_vec());
    let answer = wire.send(ASK, &[("grpc-timeout", "50m")], &[&wait]).await;
    assert_eq!(reason(&answer.refusal()), (Code::DeadlineExceeded, "DEADLINE".to_owned()));
    house.probe.dropped(1).await;
    house.close().await;
}

#[tokio::test]
async fn half_a_request_ends_at_the_cap() {
    let house = House::open_with(SHORT, SHORT, Duration::ZERO).await;
    let wire = Wire::connect(house.serving.address).await;
    let good = good();
    for (headers, frames) in [
        (&[][..], &[][..]),
        (&[], &[&good[..3]]),
        (&[], &[&good[..8]]),
        (&[], &[&good]), // all of it, but nobody says so
        (&[("grpc-timeout", "1H")], &[&good[..8]]),
    ] {
        let answer = wire.hang(ASK, headers, frames).await;
        assert_eq!(reason(&answer.refusal()), (Code::DeadlineExceeded, "DEADLINE".to_owned()));
    }
    assert_eq!(house.probe.asked(), []);
    house.close().await;
}

#[tokio::test]
async fn a_deadline_ends_a_stream_only_before_it_begins() {
    let house = House::open_with(SHORT, SHORT, Duration::ZERO).await;
    let channel = house.channel();
    let mut stream = follow(&channel, question("outlive")).await.expect("it begins in time");
    for text in ["first", "last"] {
        let answer = stream.message().await.expect("it goes on").expect("it is not over");
        assert_eq!(answer.text, text);
    }
    assert_eq!(stream.message().await.expect("it ends well"), None);
    let late = follow(&channel, question("never begin")).await.expect_err("it does not begin");
    assert_eq!(reason(&late), (Code::DeadlineExceeded, "DEADLINE".to_owned()));
    assert!(ask(&channel, question("good")).await.is_ok());
    house.close().await;
}
