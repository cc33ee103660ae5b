//! A new version rolls out: one replica after the other is told to go and started again, while people order.

use crate::{amount, binary, loading::Load, parting, people};
use contract::order::v1::{GetOrderRequest, OrderState, order_service_client::OrderServiceClient};
use futures::future::join_all;
use mesh::Channel;
use std::{
    cell::{Cell, RefCell},
    time::Duration,
};
use testbed::{Engine, Fleet, Plan, Service, until};
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Request, Status};

const REPLICAS: Plan<'static> = Plan {
    replicas: 2,
    engine: Engine::Postgres,
    make: Engine::Postgres,
    arguments: &[(Service::Make, &["--auto-barista", "30ms"])],
};
/// Who is restarted, in turns.
const TURNS: [(Service, usize); 8] = [
    (Service::Order, 0),
    (Service::Payment, 0),
    (Service::Order, 1),
    (Service::Payment, 1),
    (Service::Make, 0),
    (Service::MyPage, 0),
    (Service::Make, 1),
    (Service::MyPage, 1),
];
/// Customers who order one after the other: on a machine that is slow they ask for less, and none of them is late for that.
const CUSTOMERS: u32 = 10;
/// What people wait for an order.
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls before, between and after two restarts.
const CALLS: usize = 100;

/// What becomes of calls.
#[derive(Default)]
struct Served {
    enough: Cell<bool>,
    calls: Cell<usize>,
    failed: RefCell<Vec<Status>>,
}

impl Served {
    fn note<T>(&self, answer: Result<T, Status>) -> Option<T> {
        self.calls.update(|calls| calls + 1);
        answer.map_err(|status| self.failed.borrow_mut().push(status)).ok()
    }

    async fn more(&self) -> anyhow::Result<()> {
        let enough = self.calls.get() + CALLS;
        let more = async || (self.calls.get() >= enough).then_some(());
        until("calls", people::SOON, more).await
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

/// Orders again and again, at most so often a second, and looks at each order, until they have had enough.
async fn customer(shop: Channel, most: u32, served: &Served) {
    let mut orders = OrderServiceClient::new(shop);
    let mut due = interval(Duration::from_secs(1) / most);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !served.enough.get() {
        due.tick().await;
        let placed = orders.place_order(timed(people::lattes("kim"))).await;
        let Some(placed) = served.note(placed) else { continue };
        let order = placed.into_inner().order.unwrap_or_default();
        // or later: an answer that comes by a second attempt tells how the order is by then
        let paid = [OrderState::Paid, OrderState::Making, OrderState::Ready];
        assert!(paid.contains(&order.state()), "{order:?}");
        let request = GetOrderRequest { order_id: order.order_id };
        served.note(orders.get_order(timed(request)).await);
    }
}

#[tokio::test]
async fn a_rolling_restart_under_load_fails_no_call() -> anyhow::Result<()> {
    let restarts = usize::try_from(amount("SOAK_RESTARTS", 4))?;
    let most = amount("SOAK_RATE", 100).div_ceil(CUSTOMERS);
    let mut fleet = Fleet::open(binary(), &REPLICAS).await?;
    // a load beside them knows afterwards whether all is consistent
    let load = ["--rate", "10", "--duration", "2h", "--cancel-share", "0.2"];
    let load = Load::begin_at(fleet.directory(), fleet.urls(), &load)?;
    for replica in [0, 1] {
        parting::calls(&fleet.view(replica)?, 5).await?;
    }
    // the client as people have it, and as `starcoffee` itself calls
    let shop = mesh::client::connect_secure(&fleet.urls()[1], "--order-url", None)?
        .knowing(contract::DESCRIPTORS)?;

    let served = Served::default();
    let customers = join_all((0..CUSTOMERS).map(|_| customer(shop.clone(), most, &served)));
    let rolling = async {
        served.more().await?;
        for (service, replica) in TURNS.into_iter().cycle().take(restarts) {
            let status = fleet.stop(service, replica).await?;
            anyhow::ensure!(status.success(), "{status}: {}", fleet.log_of(service, replica));
            fleet.start(service, replica)?;
            fleet.ready(service, replica).await?;
            served.more().await?;
        }
        served.enough.set(true);
        anyhow::Ok(())
    };
    let (rolled, _) = tokio::join!(rolling, customers);
    rolled?;
    let (calls, failed) = (served.calls.get(), served.failed.take());
    println!("{restarts} restarts, {calls} calls, {} failed", failed.len());
    assert!(failed.is_empty(), "{} of {calls}: {failed:#?}", failed.len());
    load.enough().await?;
    let (status, report, log) = load.end().await?;
    assert!(status.success(), "{report}\n{log}");
    let count = |name: &str| report[name].as_u64();
    assert_eq!(
        (count("failed"), count("stuck"), count("violations")),
        (Some(0), Some(0), Some(0)),
        "{report}\n{log}"
    );
    Ok(())
}
