//! How a server ends: what is under way is finished, and nobody who merely hangs on keeps it.

use crate::{
    house::{House, ask, spawn},
    probe::{ASK, LARGE, framed, question},
    wire::Wire,
};
use prost::Message as _;
use std::time::Duration;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

#[tokio::test]
async fn whoever_hangs_on_does_not_keep_it() {
    let house = House::open().await;
    let (api, admin) = (house.serving.address, house.serving.admin_address);
    let mut hanging = Vec::new();
    for address in [api, admin] {
        hanging.push(TcpStream::connect(address).await.expect("it listens"));
        let mut half = TcpStream::connect(address).await.expect("it listens");
        half.write_all(b"PRI * HTTP/2.0\r\n").await.expect("it is taken");
        hanging.push(half);
    }
    let idle = Wire::connect(api).await;
    let mut watches = Vec::new();
    for address in [api, admin] {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
        let mut client = HealthClient::new(endpoint.connect().await.expect("it listens"));
        let watch = client.watch(HealthCheckRequest::default()).await.expect("it is told");
        let mut watch = watch.into_inner();
        watch.message().await.expect("it is told").expect("it begins with what is");
        watches.push(watch);
    }
    let endpoint = Endpoint::from_shared(format!("http://{api}")).expect("a URL");
    let mut client = ServerReflectionClient::new(endpoint.connect().await.expect("it listens"));
    let nothing = futures::stream::pending();
    let reflection = client.server_reflection_info(nothing).await.expect("it listens");
    // the clients are here until it has ended
    house.close().await;
    assert!(TcpStream::connect(api).await.is_err(), "nobody listens any more");
    drop((hanging, idle, watches, reflection));
}

#[tokio::test]
async fn an_idle_client_costs_no_time() {
    let house = House::open().await;
    let endpoint = Endpoint::from_shared(house.url()).expect("a URL");
    let tonic = endpoint.connect().await.expect("it listens");
    // they carried calls, and one watches health as gRPC's own clients do
    let channels = [house.channel(), tonic.clone().into()];
    for channel in &channels {
        ask(channel, question("hello")).await.expect("it is answered");
    }
    let watch = HealthClient::new(tonic).watch(HealthCheckRequest::default()).await;
    let begun = Instant::now();
    house.close().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    drop((channels, watch));
}

#[tokio::test]
async fn a_call_under_way_is_answered_before_it_ends() {
    let house = House::open().await;
    let channel = house.channel();
    let answer = spawn({
        let channel = channel.clone();
        async move { ask(&channel, question("wait")).await }
    });
    house.probe.waits(1).await;
    house.host.stop("the test is over");
    house.host.draining().cancelled().await;
    let late = ask(&channel, question("late")).await.expect_err("nothing is begun any more");
    assert_eq!(late.code(), Code::Unavailable, "{late:?}");
    house.probe.release();
    let answer = answer.await.expect("it does not panic").expect("it is answered");
    assert_eq!(answer.text, "wait");
    assert_eq!(house.probe.asked(), [question("wait")]);
    house.ends().await;
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    let answer = spawn(async move {
        let wait = question("wait, then be large").encode_to_vec();
        wire.send(ASK, &[], &[&framed(&wait)]).await
    });
    house.probe.waits(1).await;
    house.host.stop("the test is over");
    house.probe.release();
    house.ends().await;
    let answer = answer.await.expect("it does not panic");
    assert_eq!(answer.status().code(), Code::Ok);
    assert!(answer.body.len() > LARGE, "{}", answer.body.len());
}
