//! The provider's ledger: what was charged since the load began, and whether Order knows all of it.

use super::{
    connection::{Shop, answer},
    snapshot::{Charge, Order, PAGE_SIZE, Snapshot, micros},
};
use anyhow::Context as _;
use contract::{
    google::r#type::Money as WireMoney,
    money::{Currency, Money},
    order::v1::GetOrderRequest,
    payment::v1::{self as payment, ListChargesRequest},
};
use std::{collections::HashSet, time::Duration};
use tonic::Code;
use uuid::Uuid;

/// The first order that we know of need not be the first there was: that one may be lost.
const BEFORE: Duration = Duration::from_secs(10);
/// Orders of others that are looked up, one by one. Under somebody else's load they are not all: then these, evenly spread.
const LOOKED_UP: usize = 1000;

/// From when on charges concern us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    /// Of no older order.
    order_id: Uuid,
    /// Not charged before, in microseconds. An id tells no time if somebody has charged by hand.
    time: i64,
}

impl Since {
    /// A little before our first order.
    pub(crate) fn a_little_before(first: &Order) -> Self {
        // a UUIDv7 begins with 48 bits of milliseconds
        let milliseconds = (first.order_id.as_u128() >> 80).saturating_sub(BEFORE.as_millis());
        let before = i64::try_from(BEFORE.as_micros()).expect("a few seconds");
        Self { order_id: Uuid::from_u128(milliseconds << 80), time: first.create_time - before }
    }
}

/// Newest orders first: it ends at the first page that reaches below `since`.
///
/// # Errors
/// Payment does not answer, or answers what cannot be.
pub(crate) async fn charges(
    shop: &Shop,
    currency: Currency,
    since: Since,
) -> anyhow::Result<Vec<Charge>> {
    let mut client = shop.payment.clone();
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            ListChargesRequest { page_size: PAGE_SIZE, page_token, order_id: String::new() };
        let page = answer(client.list_charges(request)).await;
        let page = page.context("Payment lists no charges")?;
        for row in page.charges {
            let charge = charge(row, currency)?;
            if charge.order_id < since.order_id {
                return Ok(all);
            }
            all.push(charge);
        }
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
}

fn charge(charge: payment::Charge, currency: Currency) -> anyhow::Result<Charge> {
    let minor = |money: Option<WireMoney>| {
        money.map_or(Ok(0), |money| Money::from_wire(&money, currency).map(|money| money.minor))
    };
    Ok(Charge {
        order_id: charge.order_id.parse()?,
        amount: minor(charge.amount)?,
        refunded: minor(charge.refunded)?,
        create_time: micros(charge.create_time),
    })
}

/// Orders that were charged, that nobody lists for our customers, and that Order does not know: others' it knows.
///
/// # Errors
/// Order does not answer.
pub(crate) async fn lost(
    shop: &Shop,
    snapshot: &Snapshot,
    since: Since,
) -> anyhow::Result<Vec<Uuid>> {
    let mut client = shop.order(0);
    let mut lost = Vec::new();
    for order_id in strangers(snapshot, since) {
        let request = GetOrderRequest { order_id: order_id.to_string() };
        match answer(client.get_order(request)).await {
            Ok(_others) => {}
            Err(status) if status.code() == Code::NotFound => lost.push(order_id),
            Err(status) => return Err(status).context("Order does not tell of an order"),
        }
    }
    Ok(lost)
}

/// Orders charged meanwhile that nobody lists for our customers.
fn strangers(snapshot: &Snapshot, since: Since) -> Vec<Uuid> {
    let orders = snapshot.orders.iter().map(|order| order.order_id);
    let payments = snapshot.payments.iter().map(|payment| payment.order_id);
    let tickets = snapshot.tickets.iter().map(|ticket| ticket.order_id);
    let mine = snapshot.mine.iter().map(|mine| mine.order_id);
    let known: HashSet<_> = orders.chain(payments).chain(tickets).chain(mine).collect();
    let mut strangers: Vec<_> = snapshot
        .charges
        .iter()
        .filter(|charge| charge.create_time >= since.time && !known.contains(&charge.order_id))
        .map(|charge| charge.order_id)
        .collect();
    let apart = strangers.len().div_ceil(LOOKED_UP).max(1);
    if apart > 1 {
        strangers = strangers.into_iter().step_by(apart).collect();
    }
    strangers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{
        check::tests::quiet_shop,
        customer::tests::{order, refusal, served},
    };
    use contract::order::v1::OrderState;

    /// The one charge of a quiet shop that is not of our customers.
    const STRANGER: Uuid = Uuid::from_u128(999);

    #[tokio::test]
    async fn an_order_that_was_charged_and_that_order_does_not_know_is_lost() {
        let lost = async |answer| {
            let shop = quiet_shop();
            let since = Since::a_little_before(&shop.orders[0]);
            let look_up = async |order: &Shop, _plan: &_| lost(order, &shop, since).await;
            served([answer], look_up).await
        };
        let (found, arrived) = lost(Err(refusal(Code::NotFound, "ORDER_NOT_FOUND"))).await;
        assert_eq!(found.expect("Order answers"), [STRANGER]);
        assert_eq!(arrived, [STRANGER.to_string()], "nothing of ours is looked up");
        let (found, _) = lost(Ok(order(999, OrderState::Paid))).await;
        assert_eq!(found.expect("Order answers"), Vec::<Uuid>::new(), "it is somebody else's");
        let (found, _) = lost(Err(refusal(Code::Unavailable, "STORE_UNAVAILABLE"))).await;
        assert!(found.is_err(), "nobody knows");
    }

    #[test]
    fn only_charges_made_meanwhile_are_looked_up_and_not_all_of_very_many() {
        let mut shop = quiet_shop();
        let since = Since::a_little_before(&shop.orders[0]);
        let charge = |id, create_time| Charge {
            order_id: Uuid::from_u128(id),
            create_time,
            ..shop.charges[0].clone()
        };
        let old = charge(5000, since.time - 1);
        let new: Vec<_> = (10_000..13_000).map(|id| charge(id, since.time)).collect();
        shop.charges.push(old);
        assert_eq!(strangers(&shop, since), [STRANGER]);
        shop.charges.extend(new);
        let some = strangers(&shop, since);
        assert!(some.len() <= LOOKED_UP && some.len() > LOOKED_UP / 2, "{}", some.len());
    }
}
