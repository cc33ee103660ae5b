//! Closing the shop while people hang on.

use crate::{open, people};
use contract::{
    make::v1::WatchTicketsRequest,
    mypage::v1::WatchMyOrdersRequest,
    order::v1::{OrderState, order_service_client::OrderServiceClient},
};
use futures::future::join_all;
use std::{collections::BTreeSet, time::Duration};
use testbed::Doors as _;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::test]
async fn whoever_hangs_on_it_closes_within_ten_seconds() -> anyhow::Result<()> {
    let mut shop = open(&[]).await?;
    people::paid(&shop, "kim").await?;
    let addresses = shop.addresses().clone();
    // never says a word; says half of it; watches health; watches tickets; watches their page
    let _idle = TcpStream::connect(addresses.order).await?;
    let mut half = TcpStream::connect(addresses.order).await?;
    half.write_all(b"PRI * HTTP/2.0\r\n").await?;
    let mut watches = Vec::new();
    for address in [addresses.order, addresses.order_admin] {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        let request = HealthCheckRequest { service: String::new() };
        let mut health = HealthClient::new(channel).watch(request).await?.into_inner();
        health.message().await?.expect("it says how it is");
        watches.push(health);
    }
    let mut tickets = shop.make().watch_tickets(WatchTicketsRequest {}).await?.into_inner();
    while !tickets.message().await?.expect("a snapshot comes first").snapshot_complete {}
    let watch = WatchMyOrdersRequest { customer_id: "kim".to_owned() };
    let _mine = shop.mypage().watch_my_orders(watch).await?.into_inner();

    let begun = Instant::now();
    let status = shop.process().terminate().await?;
    assert!(status.success(), "{status}: {}", shop.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let ended = loop {
        match tickets.message().await {
            Ok(Some(_last_words)) => {}
            Ok(None) => panic!("a watch that is drained does not end as if all were said"),
            Err(status) => break status,
        }
    };
    assert_eq!((ended.code(), people::reason(&ended).as_str()), (Code::Unavailable, "DRAINING"));
    Ok(())
}

#[tokio::test]
async fn an_order_under_way_is_paid_before_the_shop_closes() -> anyhow::Result<()> {
    let mut shop = open(&["--provider-latency", "1s"]).await?;
    let (mut client, request) = (shop.order(), people::lattes("kim"));
    let kept = request.clone();
    let (answer, status) = tokio::join!(client.place_order(request), async {
        let orders = || people::orders(&shop, "kim");
        let under_way = async || orders().await.ok().filter(|orders| !orders.is_empty());
        testbed::until("the order to be under way", people::SOON, under_way).await?;
        shop.process().terminate().await
    });
    assert!(status?.success());
    let order = answer?.into_inner().order.unwrap_or_default();
    assert_eq!(order.state(), OrderState::Paid, "whoever was inside is served");
    shop.reopen(&[]).await?;
    assert_eq!(people::place(&shop, kept).await?.order_id, order.order_id);
    Ok(())
}

/// However far their orders are: Payment goes after Order.
#[tokio::test]
async fn nobody_is_left_in_doubt_when_a_busy_shop_closes() -> anyhow::Result<()> {
    let mut shop = open(&[]).await?;
    let placing = |mut client: OrderServiceClient<Channel>| async move {
        loop {
            if let Err(status) = client.place_order(people::lattes("kim")).await {
                return people::reason(&status);
            }
        }
    };
    let callers = join_all((0..64).map(|_| placing(shop.order())));
    let (reasons, status) = tokio::join!(callers, async {
        let many = async || people::orders(&shop, "kim").await.ok().filter(|all| all.len() >= 50);
        testbed::until("a busy shop", people::SOON, many).await?;
        shop.process().terminate().await
    });
    assert!(status?.success(), "{}", shop.log());
    // told to come back, or the connection was closed
    let expected = BTreeSet::from(["DRAINING".to_owned(), String::new()]);
    let reasons: BTreeSet<_> = reasons.into_iter().collect();
    assert!(reasons.is_subset(&expected), "{reasons:?}: {}", shop.log());
    Ok(())
}
