//! Two of each service, on one database each: whoever is asked, the answer is the same.

use crate::{
    binary,
    people::{self, SOON},
};
use contract::{
    make::v1::{TicketState, WatchTicketsRequest},
    mypage::v1::WatchMyOrdersRequest,
    order::v1::{OrderState, WatchOrderRequest},
};
use futures::future::{join_all, try_join_all};
use std::{collections::BTreeSet, time::Duration};
use testbed::{Doors as _, Engine, Fleet, Plan, Service};
use tokio::time::{Instant, timeout};

/// What a replica hears of another's change by, and what a busy machine adds to it.
const WITHIN: Duration = Duration::from_secs(2);
const TWO: Plan<'static> =
    Plan { replicas: 2, engine: Engine::Sqlite, make: Engine::Sqlite, arguments: &[] };

#[tokio::test]
async fn a_watch_sees_within_a_second_what_another_replica_does() -> anyhow::Result<()> {
    let mut fleet = Fleet::open(binary(), &TWO).await?;
    let [here, there] = [fleet.view(0)?, fleet.view(1)?];
    // what is changed here is watched there; and nobody there hears an event of it
    for service in [Service::Order, Service::Make, Service::MyPage] {
        fleet.stop(service, 0).await?;
    }
    let order = people::paid(&there, "kim").await?;
    let ticket = people::ticket(&there, &order.order_id).await?;
    for service in [Service::Order, Service::Make, Service::MyPage] {
        fleet.start(service, 0)?;
        fleet.ready(service, 0).await?;
    }
    let watch = WatchOrderRequest { order_id: order.order_id.clone(), after_revision: 0 };
    let mut orders = here.order().watch_order(watch).await?.into_inner();
    let mut tickets = here.make().watch_tickets(WatchTicketsRequest {}).await?.into_inner();
    while !tickets.message().await?.expect("a snapshot comes first").snapshot_complete {}
    let watch = WatchMyOrdersRequest { customer_id: "kim".to_owned() };
    let mut mine = here.mypage().watch_my_orders(watch).await?.into_inner();
    while !mine.message().await?.expect("a snapshot comes first").snapshot_complete {}

    people::start(&there, &ticket.ticket_id).await?;
    let begun = Instant::now();
    let told = timeout(SOON, tickets.message()).await??.expect("it goes on").ticket;
    assert_eq!(told.unwrap_or_default().state(), TicketState::Making);
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    people::complete(&there, &ticket.ticket_id).await?;
    people::becomes(&there, &order.order_id, OrderState::Ready).await?;
    let told = async {
        while let Some(update) = orders.message().await? {
            if update.order.unwrap_or_default().state() == OrderState::Ready {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended before the order did")
    };
    timeout(WITHIN, told).await??;
    people::shown(&there, "kim", OrderState::Ready).await?;
    let told = async {
        loop {
            let update = mine.message().await?.expect("it goes on");
            if update.order.unwrap_or_default().state() == OrderState::Ready {
                return anyhow::Ok(());
            }
        }
    };
    timeout(WITHIN, told).await??;
    Ok(())
}

#[tokio::test]
async fn a_request_that_meets_both_replicas_is_one_order_and_one_charge() -> anyhow::Result<()> {
    let fleet = Fleet::open(binary(), &TWO).await?;
    let replicas = [fleet.view(0)?, fleet.view(1)?];
    let requests: Vec<_> = (0..10).map(|_| people::lattes("kim")).collect();
    let placing = requests
        .iter()
        .flat_map(|request| (0..6).map(|n| people::place(&replicas[n % 2], request.clone())));
    let answers = join_all(placing).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let ids: BTreeSet<_> = answers.iter().map(|order| order.order_id.as_str()).collect();
    assert_eq!(ids.len(), requests.len());
    assert!(answers.iter().all(|order| order.state() == OrderState::Paid), "{answers:?}");
    let made = ids.iter().map(async |order_id| {
        assert_eq!(people::charges(&replicas[1], order_id).await?.len(), 1);
        people::make(&replicas[0], order_id).await
    });
    try_join_all(made).await?;
    for replica in &replicas {
        let page = people::my_page(replica, "kim").await?;
        assert_eq!(page.order_count, 10);
    }
    Ok(())
}
