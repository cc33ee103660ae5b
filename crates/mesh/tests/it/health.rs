//! Health and reflection, as people and probes ask.

use crate::{
    house::{DEFAULT, House, MOST, reason},
    probe::{self, Beside},
    wire::Wire,
};
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tokio::time::timeout;
use tonic::{Code, Status, server::NamedService as _, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

/// For what happens at once.
const SECONDS: Duration = Duration::from_secs(10);

async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URL");
    endpoint.connect().await.expect("it listens")
}

async fn check(address: SocketAddr, service: &str) -> Result<ServingStatus, Status> {
    let mut client = HealthClient::new(channel(address).await);
    let request = HealthCheckRequest { service: service.to_owned() };
    Ok(client.check(request).await?.into_inner().status())
}

#[tokio::test]
async fn it_is_out_of_use_while_what_it_needs_is_away() {
    let house = House::open_with(DEFAULT, MOST, Duration::from_secs(2)).await;
    house.serving.ready();
    let (tell, address) = (house.serving.readiness(), house.serving.admin_address);
    for (ready, status) in [(false, ServingStatus::NotServing), (true, ServingStatus::Serving)] {
        tell(ready);
        assert_eq!(check(address, "").await.expect("it is served"), status);
        let alive = check(address, "liveness").await.expect("it is known");
        assert_eq!(alive, ServingStatus::Serving, "nothing outside can make it be restarted");
    }
    house.host.stop("the test is over");
    tell(true);
    let stopping = check(address, "").await.expect("it is served while it stops");
    assert_eq!(stopping, ServingStatus::NotServing);
}

#[tokio::test]
async fn it_serves_when_it_is_ready_and_until_it_stops() {
    let house = House::open_with(DEFAULT, MOST, Duration::from_secs(2)).await;
    let addresses = [house.serving.address, house.serving.admin_address];
    let mut watches = Vec::new();
    for address in addresses {
        let mut client = HealthClient::new(channel(address).await);
        let request = HealthCheckRequest { service: probe::NAME.to_owned() };
        watches.push(client.watch(request).await.expect("it tells").into_inner());
    }
    for (step, status) in
        [ServingStatus::NotServing, ServingStatus::Serving, ServingStatus::NotServing]
            .into_iter()
            .enumerate()
    {
        match step {
            0 => {}
            1 => house.serving.ready(),
            _ => house.host.stop("the test is over"),
        }
        for address in addresses {
            for service in ["", probe::NAME] {
                let said = check(address, service).await.expect("it is served while it stops");
                assert_eq!(said, status, "{step} {service:?}");
            }
            let alive = check(address, "liveness").await.expect("it is known");
            assert_eq!(alive, ServingStatus::Serving);
            let unknown = check(address, "test.v1.Other").await.expect_err("nobody knows it");
            assert_eq!(unknown.code(), Code::NotFound);
        }
        for watch in &mut watches {
            let told = watch.message().await.expect("it tells").expect("it goes on");
            assert_eq!(told.status(), status);
        }
    }
    house.serving.ready();
    let late = check(addresses[0], "").await.expect("it is served while it stops");
    assert_eq!(late, ServingStatus::NotServing, "it does not come back");
    house.ends().await;
}

#[tokio::test]
async fn the_admin_port_tells_health_and_nothing_else() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.admin_address).await;
    let answer = wire.send(probe::ASK, &[], &[&probe::framed(&[])]).await;
    assert_eq!(answer.refusal().code(), Code::Unimplemented);
    house.close().await;
}

#[tokio::test]
async fn health_holds_little_and_not_for_long() {
    const HEALTH: [&str; 2] = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];
    let house = House::open().await;
    for address in [house.serving.address, house.serving.admin_address] {
        let wire = Wire::connect(address).await;
        for path in HEALTH {
            // of more than 64 KiB nothing is waited for
            let large = wire.hang(path, &[], &[&[0, 0, 1, 0, 1]]).await;
            assert_eq!(large.status().code(), Code::OutOfRange, "{path}");
        }
        let half = |path| wire.hang(path, &[], &[&[0, 0, 1, 0, 0, 7]]);
        let halves = timeout(SECONDS, futures::future::join_all(HEALTH.map(half))).await;
        for half in halves.expect("they are not waited for") {
            assert_eq!(reason(&half.refusal()), (Code::DeadlineExceeded, "DEADLINE".to_owned()));
        }
    }
    house.close().await;
}

#[tokio::test]
async fn reflection_takes_no_large_questions() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // it ends, though nothing ended the question
        let answer = timeout(SECONDS, wire.hang(&path, &[], &[&[0, 0, 1, 0, 1]])).await;
        let answer = answer.expect("it is not waited for");
        assert_eq!(answer.body.len(), 0, "{version}");
    }
    house.close().await;
}

#[tokio::test]
async fn reflection_shows_the_service_with_its_rules() {
    use v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let house = House::open().await;
    let mut client = ServerReflectionClient::new(channel(house.serving.address).await);
    let ask = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol(probe::NAME.to_owned()),
    ];
    let ask =
        ask.map(|ask| ServerReflectionRequest { host: String::new(), message_request: Some(ask) });
    let answers = client.server_reflection_info(futures::stream::iter(ask)).await;
    let mut answers = answers.expect("it is there").into_inner();
    let mut next = async || {
        let answer = answers.message().await.expect("it tells").expect("it goes on");
        answer.message_response.expect("it is an answer")
    };
    let MessageResponse::ListServicesResponse(list) = next().await else { panic!("no list") };
    let names: BTreeSet<_> = list.service.iter().map(|service| &*service.name).collect();
    assert_eq!(names, BTreeSet::from([probe::NAME, Beside::NAME, "grpc.health.v1.Health"]));
    let MessageResponse::FileDescriptorResponse(file) = next().await else { panic!("no file") };
    let pool = prost_reflect::DescriptorPool::decode(probe::descriptors()).expect("it decodes");
    let file_sent = &file.file_descriptor_proto[0];
    let file = pool.get_file_by_name("test.proto").expect("it is there");
    assert_eq!(file_sent.len(), file.encode_to_vec().len(), "every option is kept");
    house.close().await;
}

#[tokio::test]
async fn reflection_speaks_its_old_version_too() {
    use v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let house = House::open().await;
    let mut client = ServerReflectionClient::new(channel(house.serving.address).await);
    let ask = MessageRequest::ListServices(String::new());
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let answers = client.server_reflection_info(futures::stream::iter([ask])).await;
    let answer = answers.expect("it is there").into_inner().message().await;
    let answer = answer.expect("it tells").and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("no list") };
    assert!(list.service.iter().any(|service| service.name == probe::NAME), "{list:?}");
    house.close().await;
}
