//! What is too much is refused, and nobody is the worse for it.

use crate::{
    house::{House, ask, reason, spawn},
    probe::{ASK, framed, question},
    wire::{DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, Received, frame},
};
use prost::Message as _;
use tonic::Code;

/// What a process takes at once that has just started, on connections of 128.
const FULL: usize = 512;
/// With a full connection's calls each, more than the errors that a connection is ended for.
const ROUNDS: u32 = 20;

#[tokio::test]
async fn a_connection_survives_the_refusal_of_many_calls() {
    let house = House::open().await;
    let mut waiting = Vec::new();
    for _connection in 0..FULL / 128 {
        let channel = house.channel();
        for _call in 0..128 {
            let channel = channel.clone();
            waiting.push(spawn(async move { ask(&channel, question("wait")).await }));
        }
    }
    house.probe.waits(FULL).await;
    let refused = ask(&house.channel(), question("hello")).await.expect_err("there is no room");
    assert_eq!(reason(&refused), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    let mut wire = Frames::connect(house.serving.address).await;
    let (call, message) = (Frames::call(ASK), framed(&question("hello").encode_to_vec()));
    for round in 0..ROUNDS {
        let streams = (0..128).map(|number| 2 * (128 * round + number) + 1);
        let calls = streams.clone().map(|stream| frame(HEADERS, END_HEADERS, stream, &call));
        let rest = streams.map(|stream| frame(DATA, END_STREAM, stream, &message));
        let (calls, rest) = (calls.collect::<Vec<_>>().concat(), rest.collect::<Vec<_>>().concat());
        let mut answers = 0;
        // the second is answered when all is done that can be done with the calls' headers alone
        for (sent, least) in [(calls, 0), (Vec::new(), 0), (rest, 128)] {
            let sent = [sent, frame(PING, 0, 0, &[0; 8])].concat();
            let mut heard = false;
            let is_last = |frame: &Received| {
                assert!(frame.kind != GOAWAY, "{round}: error {}", frame.error());
                answers += usize::from(frame.kind == HEADERS);
                heard |= frame.kind == PING;
                heard && answers >= least
            };
            wire.exchange(&sent, is_last).await;
        }
    }
    drop(wire);
    house.probe.release();
    for waited in waiting {
        waited.await.expect("it does not panic").expect("it is answered");
    }
    house.close().await;
}
