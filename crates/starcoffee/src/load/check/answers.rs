//! What the client was told, against what became of it.

use super::{Case, Parts, Violation, name};
use crate::load::{
    basket::Lines,
    customer::{Accepted, Cancel, Contradiction, Outcome, Sent},
    snapshot::{Order, Snapshot},
};
use contract::{
    order::v1::OrderState,
    status::{BAR_REJECTED, OPERATOR_CANCELLED, is_final},
};
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
        contradicted(sent, &mut case);
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
            Cancel::Answered(OrderState::Cancelled) | Cancel::Others(OrderState::Cancelled)
                if order.state != OrderState::Cancelled =>
            {
                case.not(
                    2,
                    format_args!("its cancel was granted, and it is {}", name(order.state)),
                );
            }
            // whom others were faster than has nothing recorded
            Cancel::Answered(_)
                if !order.cancel_requested
                    && !matches!(&*order.reason, BAR_REJECTED | OPERATOR_CANCELLED) =>
            {
                case.not(4, "its cancel was accepted, and is not recorded");
            }
            Cancel::Answered(_)
            | Cancel::Others(_)
            | Cancel::Refused
            | Cancel::None
            | Cancel::Unknown => {}
        }
    }
}

/// What a repeat of an accepted request was answered, and must not be.
fn contradicted(sent: &Sent, case: &mut Case<'_>) {
    for contradiction in &sent.contradictions {
        let (invariant, answer) = match contradiction {
            Contradiction::Order(other) => (5, format!("with order {other}")),
            Contradiction::Total(total) => (4, format!("with a total of {total}")),
            Contradiction::State(state) => (4, format!("{}, after it had ended", name(*state))),
            Contradiction::Refused(reason) if reason == "REQUEST_ID_REUSED" => (5, reason.clone()),
            Contradiction::Refused(reason) => (4, reason.clone()),
        };
        let request = sent.request_id;
        case.not(invariant, format_args!("request {request} was also answered {answer}"));
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

/// What the shop had to refuse (8).
pub(super) fn refused(snapshot: &Snapshot, found: &mut Vec<Violation>) {
    for probe in &snapshot.probes {
        if probe.outcome != Outcome::Refused {
            let request = probe.request_id;
            let what = format!("request {request} had to be refused, and was not");
            found.push(Violation { invariant: 8, what });
        }
    }
}

/// Orders of our customers that no answer named: at most one for each request whose outcome nobody knows, and with its lines.
pub(super) fn unasked(snapshot: &Snapshot, found: &mut Vec<Violation>) {
    let mut named: HashSet<_> = snapshot.sent.iter().filter_map(Sent::order_id).collect();
    let contradictions = snapshot.sent.iter().flat_map(|sent| &sent.contradictions);
    named.extend(contradictions.filter_map(|contradiction| match contradiction {
        Contradiction::Order(other) => Some(*other),
        Contradiction::Total(_) | Contradiction::State(_) | Contradiction::Refused(_) => None,
    }));
    let mut unknown: HashMap<(usize, &Lines), usize> = HashMap::new();
    for sent in snapshot.sent.iter().filter(|sent| sent.outcome == Outcome::Unknown) {
        let lines = &snapshot.baskets[sent.basket].lines;
        *unknown.entry((sent.customer, lines)).or_default() += 1;
    }
    let refused: HashSet<_> = snapshot
        .sent
        .iter()
        .chain(&snapshot.probes)
        .filter(|sent| sent.outcome == Outcome::Refused)
        .map(|sent| sent.customer)
        .collect();
    for order in snapshot.orders.iter().filter(|order| !named.contains(&order.order_id)) {
        match unknown.get_mut(&(order.customer, &order.lines)) {
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
