//! A service of two replicas, one of which is ill; and ways to a service that are.

use crate::{
    house::{House, ask, follow},
    play::{self, Stage, TWICE, call},
    probe::question,
};
use chassis::Host;
use futures::future::join_all;
use mesh::{Channel, client::connect};
use std::{cell::Cell, fs, time::Duration};
use testbed::{Block, Faults, Proxy, until};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

/// Long enough for a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Two replicas, each behind a way that can be broken.
struct Pair {
    houses: [House; 2],
    ways: [Proxy; 2],
    channel: Channel,
}

impl Pair {
    async fn open() -> Self {
        let houses = [House::open().await, House::open().await];
        let way = async |house: &House| Proxy::start(house.serving.address).await;
        let ways = [way(&houses[0]).await, way(&houses[1]).await].map(|way| way.expect("a port"));
        let urls = format!("{},{}", ways[0].url(), ways[1].url());
        let channel = connect(&urls, "--url").expect("they are URLs");
        let pair = Self { houses, ways, channel };
        pair.both_are_asked().await;
        pair
    }

    /// Asks until both replicas answer.
    async fn both_are_asked(&self) {
        let before = self.houses.each_ref().map(|house| house.probe.asked().len());
        let both = async || {
            within(&self.channel, LONG).await.expect("both are well");
            let now = self.houses.each_ref().map(|house| house.probe.asked().len());
            (now[0] > before[0] && now[1] > before[1]).then_some(())
        };
        until("both to be asked", LONG, both).await.expect("they are");
    }

    fn is_out(&self, number: usize) -> bool {
        let address = self.ways[number].address();
        let endpoints = self.channel.snapshot().endpoints;
        endpoints.iter().any(|endpoint| endpoint.address == address && endpoint.out.is_some())
    }

    async fn is_in_again(&self, number: usize) {
        let is_in = async || (!self.is_out(number)).then_some(());
        until("the replica to be in again", LONG, is_in).await.expect("it is");
        self.both_are_asked().await;
    }

    async fn close(self) {
        let [first, second] = self.houses;
        drop((self.channel, self.ways));
        first.close().await;
        second.close().await;
    }
}

async fn within(channel: &Channel, time: Duration) -> Result<(), Status> {
    let mut request = Request::new(question("hello"));
    request.set_timeout(time);
    ask(channel, request).await.map(|_answer| ())
}

#[tokio::test]
async fn one_of_two_that_is_dead_costs_only_the_calls_it_had() {
    let pair = Pair::open().await;
    pair.ways[0].set(Faults { refuse: true, ..Faults::default() }).await;
    pair.ways[0].reset().await;
    // until the end of the connection is seen, one that is sent on it is lost
    let taken_out = async || {
        let _lost = within(&pair.channel, LONG).await;
        pair.is_out(0).then_some(())
    };
    until("the dead one to be out", LONG, taken_out).await.expect("it is");
    let out = pair.channel.snapshot().endpoints.into_iter().find_map(|endpoint| endpoint.out);
    assert!(out.is_some_and(|(why, _since)| why.contains("refused")));
    for _call in 0..100 {
        within(&pair.channel, LONG).await.expect("the other one is there");
    }
    pair.ways[0].heal().await;
    pair.is_in_again(0).await;
    pair.close().await;
}

#[tokio::test]
async fn one_of_two_that_stands_still_is_found_out_and_comes_back() {
    let pair = Pair::open().await;
    pair.ways[1].set(Faults { block: Block::Both, ..Faults::default() }).await;
    let mut lost = 0;
    while !pair.is_out(1) {
        let calls = (0..8).map(|_call| within(&pair.channel, Duration::from_secs(1)));
        lost += join_all(calls).await.iter().filter(|answer| answer.is_err()).count();
        assert!(lost <= 16, "it is found out after a few calls");
    }
    for _call in 0..100 {
        within(&pair.channel, LONG).await.expect("the other one is there");
    }
    pair.ways[1].heal().await;
    pair.is_in_again(1).await;
    pair.close().await;
}

#[tokio::test]
async fn calls_end_by_their_deadline_whatever_the_way_does() {
    let house = House::open().await;
    let way = Proxy::start(house.serving.address).await.expect("a port");
    let channel = connect(&way.url(), "--url").expect("it is a URL");
    let blocked = |block| Faults { block, ..Faults::default() };
    let well = Faults::default();
    for faults in [
        blocked(Block::ToServer),
        blocked(Block::ToClient),
        blocked(Block::Both),
        Faults { latency: Duration::from_secs(600), ..well },
        Faults { bandwidth: Some(1), ..well },
        Faults { refuse: true, ..well },
    ] {
        for connected in [true, false] {
            within(&channel, LONG).await.expect("all is well");
            way.set(faults).await;
            if !connected || faults.refuse {
                way.reset().await;
            }
            let begun = Instant::now();
            let status = within(&channel, Duration::from_millis(100)).await;
            let status = status.expect_err("nothing comes through");
            assert!(
                matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable),
                "{faults:?}: {status:?}"
            );
            assert!(begun.elapsed() < Duration::from_secs(5), "{faults:?}: {:?}", begun.elapsed());
            // what is on its way for ten minutes would hold the connection for so long
            way.heal().await;
            way.reset().await;
            let well = async || within(&channel, LONG).await.ok();
            until("the way to be well", LONG, well).await.expect("it is healed");
        }
    }
    drop(channel);
    house.close().await;
}

#[tokio::test]
async fn what_is_under_way_goes_on_when_its_channel_is_gone() {
    let house = House::open().await;
    let channel = house.channel();
    let mut answers = follow(&channel, question("wait")).await.expect("it begins");
    drop(channel);
    house.probe.waits(1).await;
    house.probe.release();
    for text in ["first", "last"] {
        let answer = answers.message().await.expect("it goes on").expect("there is more");
        assert_eq!(answer.text, text);
    }
    assert_eq!(answers.message().await.expect("it ends well"), None);
    house.close().await;
}

#[tokio::test]
async fn the_stack_loses_no_call_to_a_replica_that_falls_ill() {
    let stages = [Stage::open([]).await, Stage::open([]).await];
    let way = async |stage: &Stage| {
        let address = stage.url.trim_start_matches("http://").parse().expect("an address");
        Proxy::start(address).await.expect("a port")
    };
    let ways = [way(&stages[0]).await, way(&stages[1]).await];
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "play.attempt_timeout = '1s'").expect("it can be written");
    let urls = format!("{},{}", ways[0].url(), ways[1].url());
    let channel = play::channel(&Host::new(), &urls, file.path()).expect("they are URLs");
    let (calls, over) = (Cell::new(0_u32), Cell::new(false));
    let caller = async || {
        while !over.get() {
            call(&channel, TWICE, LONG).await.expect("one of two is well");
            calls.set(calls.get() + 1);
        }
    };
    let (calls, channel) = (&calls, &channel);
    // enough for what is tried again to be within its budget
    let more = async || {
        let enough = calls.get() + 300;
        let made = async || (calls.get() >= enough).then_some(());
        until("more calls", LONG, made).await.expect("they are made");
    };
    let is_out = async |number: usize, out: bool| {
        let address = ways[number].address();
        let is = async || {
            let endpoints = channel.snapshot().endpoints;
            let endpoint = endpoints.iter().find(|endpoint| endpoint.address == address);
            endpoint.is_some_and(|endpoint| endpoint.out.is_some() == out).then_some(())
        };
        until("the replica to be out or in", LONG, is).await.expect("it is");
    };
    let [first, second] = stages;
    let story = async {
        more().await;
        ways[0].set(Faults { block: Block::Both, ..Faults::default() }).await;
        is_out(0, true).await;
        ways[0].heal().await;
        is_out(0, false).await;
        more().await;
        ways[1].set(Faults { refuse: true, ..Faults::default() }).await;
        ways[1].reset().await;
        is_out(1, true).await;
        ways[1].heal().await;
        is_out(1, false).await;
        more().await;
        // and in good order: it refuses what is late, and says GOAWAY
        first.close().await;
        more().await;
        over.set(true);
    };
    tokio::join!(story, join_all((0..8).map(|_caller| caller())));
    second.close().await;
}
