//! What the client was told, against what became of it.

use super::{Case, Parts, Violation, name};
use crate::load::{
    customer::{Accepted, Cancel, Outcome, Sent},
    snapshot::{Order, Snapshot},
};
use contract::{order::v1::OrderState, status::is_final};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// What the client was told, against what is (4, 5, 8, and 2 for granted cancels).
pub(super) fn kept(
    snapshot: &Snapshot,
    all: &BTreeMap<Uuid, Parts<'_>>,
    found: &mut Vec<Violation>,
) {
    let mut seen = HashSet::new();
    for sent in &snapshot.sent {
        let Some(order_id) = sent.order_id() else { continue };
        let mut case = Case { order_id, found };
        if !seen.insert(order_id) {
            case.not(
                5,
                format_args!(
                    "request {} was answered with another request's order",
                    sent.request_id
                ),
            );
        }
        if let Some(other) = sent.other {
            case.not(
                5,
                format_args!("request {} was also answered with order {other}", sent.request_id),
            );
        }
        let Some(order) = all.get(&order_id).and_then(|parts| parts.order) else {
            case.not(4, "the client saw it accepted, and it is lost");
            continue;
        };
        let basket = &snapshot.baskets[sent.basket];
        if order.lines != basket.lines {
            case.not(4, "its lines are not those sent");
        }
        if basket.price.is_some_and(|price| price != order.total) {
            case.not(
                4,
                format_args!("its total is {}, by the menu {:?}", order.total, basket.price),
            );
        }
        if let Outcome::Accepted(accepted) = &sent.outcome {
            told(accepted, order, &mut case);
        }
        match sent.cancel {
            Cancel::Refused if order.cancel_requested => {
                case.not(8, "its cancel was refused, and is recorded");
            }
            Cancel::Answered(OrderState::Cancelled) if order.state != OrderState::Cancelled => {
                case.not(
                    2,
                    format_args!("its cancel was granted, and it is {}", name(order.state)),
                );
            }
            Cancel::Answered(_) if !order.cancel_requested => {
                case.not(4, "its cancel was accepted, and is not recorded");
            }
            Cancel::Answered(_) | Cancel::Refused | Cancel::None | Cancel::Unknown => {}
        }
    }
}

fn told(accepted: &Accepted, order: &Order, case: &mut Case<'_>) {
    if !accepted.lines_as_sent {
        case.not(4, "it was answered with other lines than those sent");
    }
    if accepted.total != order.total {
        case.not(4, format_args!("its total was {}, and is {}", accepted.total, order.total));
    }
    if is_final(accepted.state) && accepted.state != order.state {
        let (was, is) = (name(accepted.state), name(order.state));
        case.not(4, format_args!("it was {was}, which is never left, and is {is}"));
    }
}

/// Orders of our customers that no answer named: at most one for each request whose outcome nobody knows.
pub(super) fn unasked(snapshot: &Snapshot, found: &mut Vec<Violation>) {
    let named: HashSet<_> = snapshot.sent.iter().filter_map(Sent::order_id).collect();
    let others: HashSet<_> = snapshot.sent.iter().filter_map(|sent| sent.other).collect();
    let mut unknown: HashMap<usize, usize> = HashMap::new();
    let mut refused = HashSet::new();
    for sent in snapshot.sent.iter().chain(&snapshot.probes) {
        match sent.outcome {
            Outcome::Unknown => *unknown.entry(sent.customer).or_default() += 1,
            Outcome::Refused => _ = refused.insert(sent.customer),
            Outcome::Accepted(_) | Outcome::Named(_) => {}
        }
    }
    for order in &snapshot.orders {
        if named.contains(&order.order_id) || others.contains(&order.order_id) {
            continue;
        }
        match unknown.get_mut(&order.customer) {
            Some(left) if *left > 0 => *left -= 1,
            _ => {
                let mut case = Case { order_id: order.order_id, found };
                if refused.contains(&order.customer) {
                    case.not(8, "nobody was answered with it: a refused request left it");
                } else {
                    case.not(5, "nobody was answered with it: a request left two orders");
                }
            }
        }
    }
}
