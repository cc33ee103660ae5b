//! Watch streams.

use crate::{
    house::{House, follow, reason},
    probe::question,
};
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt as _;

#[tokio::test]
async fn a_watch_ends_as_its_work_ends() {
    let house = House::open().await;
    let channel = house.channel();
    let mut good = follow(&channel, question("good")).await.expect("it begins");
    for text in ["first", "last"] {
        assert_eq!(good.message().await.expect("all is well").expect("more comes").text, text);
    }
    assert_eq!(good.message().await.expect("all is well"), None);
    let mut bad = follow(&channel, question("fail")).await.expect("it begins");
    assert_eq!(bad.message().await.expect("all is well").expect("more comes").text, "first");
    assert_eq!(bad.message().await.expect_err("it fails").code(), Code::NotFound);
    let mut broken = follow(&channel, question("panic")).await.expect("it begins");
    assert_eq!(broken.message().await.expect("all is well").expect("more comes").text, "first");
    let status = broken.message().await.expect_err("it panics");
    assert_eq!(reason(&status), (Code::Internal, "INTERNAL".to_owned()));
    house.close().await;
}

#[tokio::test]
async fn a_drain_ends_a_watch_and_says_so() {
    let house = House::open().await;
    let mut watch = follow(&house.channel(), question("wait")).await.expect("it begins");
    assert_eq!(watch.message().await.expect("all is well").expect("more comes").text, "first");
    house.probe.waits(1).await;
    house.host.stop("the test is over");
    let status = watch.message().await.expect_err("it is drained");
    assert_eq!(reason(&status), (Code::Unavailable, "DRAINING".to_owned()));
    let retry = status.get_details_retry_info().expect("it says when");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
    house.probe.dropped(1).await;
    house.ends().await;
}

#[tokio::test]
async fn a_reader_who_goes_away_ends_the_work() {
    let house = House::open().await;
    let watch = follow(&house.channel(), question("wait")).await.expect("it begins");
    house.probe.waits(1).await;
    drop(watch);
    house.probe.dropped(1).await;
    house.close().await;
}
