//! What no server is made for: said before anything is served.

use crate::{
    house::DEFAULT,
    probe::{DOMAIN, NAME, Probe, descriptors},
    protos,
};
use chassis::Host;
use mesh::{Deadlines, Listener, Server};

fn make(
    descriptors: &'static [u8],
    service: &'static str,
    deadlines: Deadlines,
) -> Result<Server, String> {
    Server::new(DOMAIN, descriptors, service, deadlines).map_err(|error| format!("{error:#}"))
}

#[test]
fn a_rule_that_cannot_be_checked_is_named() {
    let descriptors = protos::compile(
        r#"service Probe { rpc Ask(Question) returns (Question); }
           message Question { string text = 1 [(buf.validate.field).string.prefix = "a"]; }"#,
    );
    let error = make(descriptors.leak(), NAME, Deadlines::new(DEFAULT)).expect_err("it cannot be");
    assert_eq!(
        error,
        "the requests cannot be validated: test.v1.Question.text: its rules: string: prefix: \
         no such rule is known"
    );
}

#[test]
fn what_is_not_in_the_protos_is_named() {
    let unknown = make(descriptors(), "test.v1.Other", Deadlines::new(DEFAULT));
    assert_eq!(unknown.expect_err("it is not there"), "test.v1.Other is not in the descriptors");
    let deadlines = Deadlines::new(DEFAULT).method("Tell", DEFAULT, DEFAULT);
    let unknown = make(descriptors(), NAME, deadlines).expect_err("it is not there");
    assert_eq!(unknown, "test.v1.Probe has no Tell to set a deadline for");
    let server = make(descriptors(), NAME, Deadlines::new(DEFAULT)).expect("it is a service");
    let unknown = server.first(["Ask", "Tell"]).expect_err("one is not there");
    assert_eq!(unknown.to_string(), "test.v1.Probe has no Tell to go first");
    let malformed = make(b"no descriptors", NAME, Deadlines::new(DEFAULT));
    assert!(malformed.is_err_and(|error| error.starts_with("the descriptors are malformed")));
}

#[tokio::test]
async fn another_service_is_not_served() {
    let descriptors = protos::compile("service Other { rpc Ask(A) returns (A); } message A {}");
    let server = make(descriptors.leak(), "test.v1.Other", Deadlines::new(DEFAULT));
    let (host, any) = (Host::new(), "127.0.0.1:0".parse().expect("an address"));
    let listener = Listener::bind(("--listen", any), ("--admin-listen", any)).await;
    let listener = listener.expect("there are free ports");
    let served = server.expect("it is well-formed").serve(&host, listener, Probe::new(&host));
    assert!(served.is_err());
}

#[test]
fn a_service_beside_it_is_read_from_the_same_protos() {
    let server = make(descriptors(), NAME, Deadlines::new(DEFAULT)).expect("it is a service");
    let (_reporter, health) = tonic_health::server::health_reporter();
    let error = server.beside(health, Deadlines::new(DEFAULT)).expect_err("it is not among them");
    assert_eq!(error.to_string(), "grpc.health.v1.Health is not in the descriptors");
}
