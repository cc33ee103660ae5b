//! Requests that are not as gRPC or protobuf has them: each is refused with its reason, and no handler sees it.

use crate::{
    house::{House, ask, reason, violations},
    probe::{ASK, FOLLOW, Part, Question, framed, question},
    wire::{Answered, Wire},
};
use prost::Message as _;
use tonic::Code;

const KIB_64: usize = 64 * 1024;

fn encoded(text: &str) -> Vec<u8> {
    question(text).encode_to_vec()
}

/// A question so large, by a field that nobody knows.
fn large(size: usize) -> Vec<u8> {
    let head = [0xfa, 0x06, 0, 0, 0];
    let mut message = vec![0; size];
    message[..5].copy_from_slice(&head);
    let rest = u32::try_from(size - 5).expect("it is short");
    for (index, byte) in (0..3).zip(&mut message[2..5]) {
        let more = if index < 2 { 0x80 } else { 0 };
        *byte = u8::try_from(rest >> (7 * index) & 0x7f).expect("7 bits") | more;
    }
    message
}

fn refused(answer: &Answered, code: Code) {
    assert_eq!(reason(&answer.refusal()), (code, "VALIDATION".to_owned()));
}

#[tokio::test]
async fn what_is_not_one_message_is_refused() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    let (good, huge) = (framed(&encoded("good")), [0, 0xff, 0xff, 0xff, 0xff, 1]);
    let (over, mut flagged) = (framed(&large(KIB_64 + 1)), good.to_vec());
    flagged[0] = 1;
    let twice = [&*good, &good].concat();
    for path in [ASK, FOLLOW] {
        for (frames, code) in [
            (&[][..], Code::InvalidArgument),
            (&[&[][..]], Code::InvalidArgument),
            (&[&good[..4]], Code::InvalidArgument),
            (&[&good[..good.len() - 1]], Code::InvalidArgument),
            (&[&twice], Code::InvalidArgument),
            (&[&good, &good], Code::InvalidArgument),
            (&[&good, &[0]], Code::InvalidArgument),
            (&[&huge], Code::ResourceExhausted),
            (&[&over], Code::ResourceExhausted),
            (&[&flagged], Code::Internal),
        ] {
            refused(&wire.send(path, &[], frames).await, code);
        }
        // before it was all sent, if ever
        refused(&wire.hang(path, &[], &[&huge]).await, Code::ResourceExhausted);
        refused(&wire.hang(path, &[], &[&twice]).await, Code::InvalidArgument);
    }
    assert_eq!(house.probe.asked(), []);
    assert_eq!(wire.send(ASK, &[], &[&good]).await.status().code(), Code::Ok, "others are served");
    house.close().await;
}

#[tokio::test]
async fn a_message_may_come_in_pieces_and_be_as_large_as_the_limit() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    let good = framed(&encoded("good"));
    let bytes: Vec<_> = good.chunks(1).collect();
    assert_eq!(wire.send(ASK, &[], &bytes).await.status().code(), Code::Ok);
    let limit = framed(&large(KIB_64));
    assert_eq!(wire.send(ASK, &[], &[&limit]).await.status().code(), Code::Ok);
    assert_eq!(house.probe.asked(), [question("good"), Question::default()]);
    house.close().await;
}

#[tokio::test]
async fn an_empty_message_is_a_message() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    assert_eq!(wire.send(ASK, &[], &[&framed(&[])]).await.status().code(), Code::Ok);
    assert_eq!(house.probe.asked(), [Question::default()]);
    house.close().await;
}

#[tokio::test]
async fn compressed_requests_are_not_taken() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    let good = framed(&encoded("good"));
    for encoding in ["bogus", "gzip", ""] {
        let answer = wire.send(ASK, &[("grpc-encoding", encoding)], &[&good]).await;
        refused(&answer, Code::Unimplemented);
        assert_eq!(answer.headers["grpc-accept-encoding"], "identity");
    }
    assert_eq!(house.probe.asked(), []);
    let answer = wire.send(ASK, &[("grpc-encoding", "identity")], &[&good]).await;
    assert_eq!(answer.status().code(), Code::Ok);
    house.close().await;
}

#[tokio::test]
async fn what_is_no_such_message_is_refused_with_its_field() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    let deep = (0..101).fold(None, |under, _| Some(Box::new(Part { under, ..Default::default() })));
    let deep = Question { parts: deep.into_iter().map(|part| *part).collect(), ..question("") };
    let deep = deep.encode_to_vec();
    for path in [ASK, FOLLOW] {
        for (message, field) in [
            (&b"garbage"[..], None),
            (&[0x0a, 0x80], Some("text")),
            (&[0x08, 0x01], Some("text")),
            (&[0x0a, 0x02, 0xff, 0xfe], Some("text")),
            (&[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], Some("count")),
            (&[0x12, 0x00], Some("count")),
            (&[0x1a, 0x02, 0x08, 0x01], Some("parts[0].id")),
        ] {
            let answer = wire.send(path, &[], &[&framed(message)]).await;
            refused(&answer, Code::InvalidArgument);
            let fields = violations(&answer.refusal());
            assert_eq!(fields.first().map(String::as_str), field, "{message:x?}");
        }
        let answer = wire.send(path, &[], &[&framed(&deep)]).await;
        refused(&answer, Code::InvalidArgument);
        assert!(answer.refusal().message().contains("too deep"), "{:?}", answer.refusal());
    }
    assert_eq!(house.probe.asked(), []);
    house.close().await;
}

#[tokio::test]
async fn all_violations_are_told_at_once() {
    let house = House::open().await;
    let part = |id: &str| Part { id: id.to_owned(), under: None };
    let request = Question {
        text: "ü".repeat(201),
        count: i32::MIN,
        parts: vec![part("01890000-0000-7000-8000-000000000000"), part("latte"), part("")],
    };
    let status = ask(&house.channel(), request).await.expect_err("four are wrong");
    assert_eq!(reason(&status), (Code::InvalidArgument, "VALIDATION".to_owned()));
    assert_eq!(violations(&status), ["text", "count", "parts[1].id", "parts[2].id"]);
    assert_eq!(status.message(), "text must have at most 200 characters; and 3 more");
    assert_eq!(house.probe.asked(), []);
    house.close().await;
}

#[tokio::test]
async fn unknown_fields_are_fine_and_unknown_methods_are_not() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    let newer = [encoded("good"), vec![0xfa, 0x06, 0x02, 1, 2]].concat();
    assert_eq!(wire.send(ASK, &[], &[&framed(&newer)]).await.status().code(), Code::Ok);
    assert_eq!(house.probe.asked(), [question("good")]);
    for path in ["/test.v1.Probe/Tell", "/test.v1.Other/Ask", "/test.v1.Probe", "/", "/Ask", "/%00"]
    {
        let answer = wire.send(path, &[], &[&framed(&encoded("lost"))]).await;
        assert_eq!(answer.refusal().code(), Code::Unimplemented, "{path}");
    }
    assert_eq!(house.probe.asked().len(), 1);
    house.close().await;
}
