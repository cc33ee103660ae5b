//! What the services and the provider say of one order, against each other.

use super::{Case, Parts, Violation, name};
use crate::load::snapshot::{Order, Snapshot};
use contract::{
    make::v1::TicketState,
    order::v1::OrderState,
    payment::v1::PaymentState,
    status::{Known, is_final},
};
use std::collections::HashMap;

/// What was made, and for what (1, 2).
pub(super) fn coffee(parts: &Parts<'_>, case: &mut Case<'_>) {
    let (payment, ticket) = (parts.payment_state(), parts.ticket_state());
    let approved = matches!(
        payment,
        PaymentState::Approved | PaymentState::CancelPending | PaymentState::Cancelled
    );
    let tombstone = matches!(ticket, TicketState::Cancelled | TicketState::Unspecified);
    if !tombstone && !approved {
        case.not(
            1,
            format_args!(
                "a ticket {}, and the payment {}",
                ticket.as_str_name(),
                payment.as_str_name()
            ),
        );
    }
    if !tombstone && parts.charge.is_none_or(|charge| charge.amount == 0) {
        case.not(1, format_args!("a ticket {}, and nothing was charged", ticket.as_str_name()));
    }
    let gone = payment == PaymentState::Cancelled || parts.refunded() > 0;
    if gone && matches!(ticket, TicketState::Queued | TicketState::Making | TicketState::Made) {
        case.not(2, format_args!("refunded, and its ticket {}", ticket.as_str_name()));
    }
    if ticket == TicketState::Cancelled && parts.begun() {
        case.not(2, "its cancel was granted, and the barista began");
    }
}

/// What the provider holds, and Payment says (3).
pub(super) fn charge(order: &Order, parts: &Parts<'_>, case: &mut Case<'_>) {
    if let Some(charge) = parts.charge {
        if charge.amount != 0 && charge.amount != order.total {
            case.not(
                3,
                format_args!("charged {}, and its price is {}", charge.amount, order.total),
            );
        }
        if charge.refunded > charge.amount {
            case.not(3, format_args!("charged {}, refunded {}", charge.amount, charge.refunded));
        }
    }
    if let Some(payment) = parts.payment
        && payment.amount != 0
        && payment.amount != order.total
    {
        case.not(
            3,
            format_args!("a payment of {}, and its price is {}", payment.amount, order.total),
        );
    }
}

/// Everybody has the same lines (4).
pub(super) fn lines(order: &Order, parts: &Parts<'_>, case: &mut Case<'_>) {
    // a payment voided before it came has no lines
    if parts.payment.is_some_and(|p| !p.lines.is_empty() && p.lines != order.lines) {
        case.not(4, "its payment has other lines");
    }
    if parts.ticket.is_some_and(|t| !t.lines.is_empty() && t.lines != order.lines) {
        case.not(4, "its ticket has other lines");
    }
    if parts.mine.is_some_and(|mine| mine.lines != order.lines || mine.total != order.total) {
        case.not(4, "its page shows other lines or another total");
    }
}

/// Each event arrived: Order is what Payment and Make make of it, and for the same reason (6).
pub(super) fn agreement(order: &Order, parts: &Parts<'_>, case: &mut Case<'_>) {
    let known = |ticket| {
        let (cancel_requested, payment) = (order.cancel_requested, parts.payment_state());
        let known = Known { cancel_requested, payment, ticket };
        (known.state(), known.reason())
    };
    let ticket = parts.ticket_state();
    let is = (order.state, &*order.reason);
    // tombstones are not listed: an unlisted ticket may be one
    let hidden = parts.ticket.is_none() && known(TicketState::Cancelled) == is;
    if known(ticket) != is && !hidden {
        case.not(
            6,
            format_args!(
                "is {} {}, with the payment {} and the ticket {}: an event is missing",
                name(order.state),
                order.reason,
                parts.payment_state().as_str_name(),
                ticket.as_str_name()
            ),
        );
    }
}

/// Money is where it belongs, and what is paid is in the queue (7).
pub(super) fn money(order: &Order, parts: &Parts<'_>, case: &mut Case<'_>) {
    let paid = matches!(order.state, OrderState::Paid | OrderState::Making | OrderState::Ready);
    let due = if paid { order.total } else { 0 };
    if parts.kept() != due {
        let state = name(order.state);
        case.not(7, format_args!("is {state}, and {} is kept instead of {due}", parts.kept()));
    }
    // a voided payment took nothing; what a charge that nobody heard of took, the provider gave back, and `kept` tells
    let voided = parts.payment_state() == PaymentState::Voided;
    let by_provider = if voided { 0 } else { parts.refunded() };
    let refunded = parts.payment.map_or(0, |payment| payment.refunded);
    if refunded != by_provider {
        case.not(7, format_args!("Payment says {refunded} refunded, the provider {by_provider}"));
    }
    if paid && parts.ticket.is_none() {
        case.not(7, "is paid, and has no ticket");
    }
}

/// The page shows what the services say (7).
pub(super) fn my_page(order: &Order, parts: &Parts<'_>, case: &mut Case<'_>) {
    let Some(mine) = parts.mine else {
        case.not(7, "is not on its customer's page");
        return;
    };
    if (mine.state, &mine.reason) != (order.state, &order.reason) {
        let (shown, is) = (name(mine.state), name(order.state));
        case.not(
            7,
            format_args!("its page shows {shown} {}, it is {is} {}", mine.reason, order.reason),
        );
    }
    if mine.charged != parts.kept() {
        let kept = parts.kept();
        case.not(7, format_args!("its page shows {} charged, it is {kept}", mine.charged));
    }
    if parts.ticket.is_some_and(|ticket| ticket.number != mine.number) {
        case.not(7, "its page shows another number than its ticket's");
    }
    // the order's newest event, unlike its newest change, cannot be seen: between its first revision and its last.
    let payment = parts.payment.map_or(0, |payment| payment.revision);
    let least = 1 + payment + parts.ticket.map_or(0, |ticket| ticket.revision);
    let most = order.revision + payment + parts.ticket.map_or(1, |ticket| ticket.revision);
    if !(least..=most).contains(&mine.revision) {
        let revision = mine.revision;
        case.not(7, format_args!("its page is at revision {revision}, not {least} to {most}"));
    }
    let history = &mine.history;
    let ended = history.iter().position(|state| is_final(*state));
    if history.first() != Some(&OrderState::Placed)
        || history.last() != Some(&mine.state)
        || history.windows(2).any(|pair| pair[0] == pair[1])
        || ended.is_some_and(|at| at + 1 < history.len())
    {
        let history: Vec<_> = history.iter().map(|state| name(*state)).collect();
        let state = name(mine.state);
        case.not(7, format_args!("its history {history:?} does not lead to {state}"));
    }
}

/// A page's sums are those of its orders (7).
pub(super) fn pages(snapshot: &Snapshot, found: &mut Vec<Violation>) {
    let customer_of: HashMap<_, _> =
        snapshot.orders.iter().map(|order| (order.order_id, order.customer)).collect();
    let mut sums: HashMap<usize, (i64, i64)> = HashMap::new();
    for mine in &snapshot.mine {
        if let Some(customer) = customer_of.get(&mine.order_id) {
            let (orders, spent) = sums.entry(*customer).or_default();
            *orders += 1;
            *spent += mine.charged;
        }
    }
    for page in &snapshot.pages {
        let (orders, spent) = sums.get(&page.customer).copied().unwrap_or_default();
        if !page.open_as_listed {
            let what =
                format!("customer {}: the open orders shown are not the newest", page.customer);
            found.push(Violation { invariant: 7, what });
        }
        if (page.orders, page.spent) != (orders, spent) {
            let what = format!(
                "customer {}: the page shows {} orders and {} spent, its orders make {orders} and {spent}",
                page.customer, page.orders, page.spent
            );
            found.push(Violation { invariant: 7, what });
        }
    }
}
