//! Waiting until nothing of ours is on its way any more.

use super::connection::Shop;
use contract::order::v1::{ListOrdersRequest, OrderState};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Status;

/// Seldom enough not to be a load of its own.
const LOOK: Duration = Duration::from_millis(500);
/// A barista who does nothing for so long is not there.
const NOBODY_MAKES_COFFEE: Duration = Duration::from_secs(5);
/// The most that a list gives at once: enough to see that something moves.
const PAGE_SIZE: i32 = 1000;

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every order is READY, CANCELLED or REJECTED.
    Quiet,
    /// All that is left waits for a barista, and there is none.
    NobodyMakesCoffee,
    /// Orders are PLACED or CANCELLING, and have not moved for as long as we were willing to wait.
    Stuck,
}

/// What is still on its way: changes whenever anything moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OnTheWay {
    undecided: usize,
    in_the_bar: usize,
    revisions: i64,
}

/// Waits until the orders of `customers` are quiet; gives up when nothing has moved for `patience`.
/// `left` is told how many are on their way.
pub(crate) async fn wait(
    shop: &Shop,
    customers: &[String],
    patience: Duration,
    left: impl Fn(usize),
) -> End {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // none: we have not been told yet
    let mut moving: BTreeMap<&str, Option<OnTheWay>> =
        customers.iter().map(|customer| (customer.as_str(), None)).collect();
    let mut moved = Instant::now();
    loop {
        look.tick().await;
        let mut next = BTreeMap::new();
        for (customer, before) in moving {
            // a shop that does not answer now has not moved
            let now = on_the_way(shop, customer).await.map_or_else(|_error| before.clone(), Some);
            if now != before {
                moved = Instant::now();
            }
            if now.as_ref() != Some(&OnTheWay::default()) {
                next.insert(customer, now);
            }
        }
        moving = next;
        let known = || moving.values().flatten();
        left(known().map(|now| now.undecided + now.in_the_bar).sum());
        let decided = moving.values().all(|now| now.as_ref().is_some_and(|now| now.undecided == 0));
        match moved.elapsed() {
            _ if moving.is_empty() => return End::Quiet,
            still if still >= NOBODY_MAKES_COFFEE && decided => return End::NobodyMakesCoffee,
            still if still >= patience => return End::Stuck,
            _ => {}
        }
    }
}

async fn on_the_way(shop: &Shop, customer: &str) -> Result<OnTheWay, Status> {
    let states = [OrderState::Placed, OrderState::Cancelling, OrderState::Paid, OrderState::Making];
    let request = ListOrdersRequest {
        page_size: PAGE_SIZE,
        states: states.map(i32::from).to_vec(),
        customer_id: customer.to_owned(),
        page_token: String::new(),
        order_id: String::new(),
    };
    let mut now = OnTheWay::default();
    for order in shop.order(0).list_orders(request).await?.into_inner().orders {
        now.revisions += order.revision;
        if matches!(order.state(), OrderState::Placed | OrderState::Cancelling) {
            now.undecided += 1;
        } else {
            now.in_the_bar += 1;
        }
    }
    Ok(now)
}
