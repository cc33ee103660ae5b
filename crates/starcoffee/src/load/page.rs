//! How far what customers see lags behind what happened: from the commit of an event, by the clock of the service that committed
//! it, to its arrival at a customer who watches. Where the clocks of load and shop differ, so does the figure.

use super::connection::Shop;
use contract::mypage::v1::{MyOrder, WatchMyOrdersRequest};
use futures::future::join_all;
use prost_types::Timestamp;
use std::{
    cell::RefCell,
    convert::Infallible,
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, sleep_until};

/// A sample: to watch them all would be a load of its own.
const WATCHED: usize = 8;
/// Until a shop that does not let us watch is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches some customers' orders; each lag seen goes into `lags`. Never ends.
pub(crate) async fn watch(
    shop: &Shop,
    customers: &[String],
    lags: &RefCell<Vec<Duration>>,
) -> Infallible {
    let watched = customers.iter().take(WATCHED);
    join_all(watched.map(|customer| watch_one(shop, customer, lags))).await;
    std::future::pending().await
}

async fn watch_one(shop: &Shop, customer: &str, lags: &RefCell<Vec<Duration>>) -> Infallible {
    let mut mypage = shop.mypage.clone();
    loop {
        let request = WatchMyOrdersRequest { customer_id: customer.to_owned() };
        let mut snapshot = true; // its orders may have changed long ago
        if let Ok(updates) = mypage.watch_my_orders(request).await {
            let mut updates = updates.into_inner();
            while let Ok(Some(update)) = updates.message().await {
                snapshot &= !update.snapshot_complete;
                if !snapshot && let Some(lag) = update.order.as_ref().and_then(lag) {
                    lags.borrow_mut().push(lag);
                }
            }
        }
        sleep_until(Instant::now() + PAUSE).await;
    }
}

/// How long ago the newest event of this order was committed.
fn lag(order: &MyOrder) -> Option<Duration> {
    let time = |time: Timestamp| SystemTime::try_from(time).ok();
    let newest = order.history.iter().filter_map(|entry| entry.event_time.and_then(time)).max()?;
    SystemTime::now().duration_since(newest).ok()
}
