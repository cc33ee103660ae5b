//! The consistency check: what was sent and what the shop says of it, against the invariants of the shop.
//!
//! A pure function, so that each invariant's check is itself tested with a seeded violation. The invariants, and what can be
//! seen of each over the APIs of a quiet shop:
//!
//! 1. No coffee is started for an order whose payment was not approved before.
//! 2. A made coffee is never refunded; a started one only when the bar rejects it; a granted cancel is never followed by a start.
//! 3. At most one charge, one ticket and one brew for each order; the charge equals the server's price.
//! 4. An order the client saw accepted is never lost, and its lines never change.
//! 5. One `request_id` of one customer is one order, whatever was retried.
//! 6. A change and its event are stored together, and each event arrives: so the parts of an order agree.
//! 7. Money is kept for the orders PAID, MAKING and READY and for no others, each of them has its ticket, and `MyPage` shows
//!    what the services say.
//! 8. A refusal means that nothing happened.
//!
//! Times are not compared: the services' clocks may differ.

mod answers;
mod services;
#[cfg(test)]
pub(crate) mod tests;

use super::snapshot::{Charge, MyOrder, Order, Payment, Snapshot, Ticket};
use contract::{make::v1::TicketState, order::v1::OrderState, payment::v1::PaymentState};
use std::{collections::BTreeMap, fmt};
use uuid::Uuid;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which invariant, 1 to 8.
    pub(crate) invariant: u8,
    /// In words.
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.what)
    }
}

/// All that a snapshot of a quiet shop shows to be wrong.
#[must_use]
pub(crate) fn check(snapshot: &Snapshot) -> Vec<Violation> {
    let mut found = Vec::new();
    let all = assemble(snapshot, &mut found);
    answers::kept(snapshot, &all, &mut found);
    answers::unasked(snapshot, &mut found);
    answers::refused(snapshot, &mut found);
    for (&order_id, parts) in &all {
        let mut case = Case { order_id, found: &mut found };
        let Some(order) = parts.order else {
            case.not(4, "Payment, Make or MyPage knows it, and Order does not");
            continue;
        };
        services::coffee(parts, &mut case);
        services::charge(order, parts, &mut case);
        services::lines(order, parts, &mut case);
        // else it is on its way: reported as stuck
        if !matches!(order.state, OrderState::Placed | OrderState::Cancelling) {
            services::agreement(order, parts, &mut case);
            services::money(order, parts, &mut case);
            services::my_page(order, parts, &mut case);
        }
    }
    for &order_id in &snapshot.lost {
        let mut case = Case { order_id, found: &mut found };
        case.not(7, "the provider has a charge for it, and Order does not know it");
    }
    services::pages(snapshot, &mut found);
    found
}

/// All that is known of one order.
#[derive(Clone, Copy, Debug, Default)]
struct Parts<'a> {
    order: Option<&'a Order>,
    payment: Option<&'a Payment>,
    ticket: Option<&'a Ticket>,
    charge: Option<&'a Charge>,
    mine: Option<&'a MyOrder>,
}

impl Parts<'_> {
    fn payment_state(&self) -> PaymentState {
        self.payment.map_or(PaymentState::Unspecified, |payment| payment.state)
    }

    fn ticket_state(&self) -> TicketState {
        self.ticket.map_or(TicketState::Unspecified, |ticket| ticket.state)
    }

    /// By the provider's ledger.
    fn refunded(&self) -> i64 {
        self.charge.map_or(0, |charge| charge.refunded)
    }

    /// By the provider's ledger, less what was refunded.
    fn kept(&self) -> i64 {
        self.charge.map_or(0, |charge| charge.amount - charge.refunded)
    }

    /// The barista began, whatever came of it.
    fn begun(&self) -> bool {
        matches!(self.ticket_state(), TicketState::Making | TicketState::Made)
            || self.ticket.is_some_and(|ticket| ticket.begun)
    }
}

/// Where the violations of one order are written down.
struct Case<'a> {
    order_id: Uuid,
    found: &'a mut Vec<Violation>,
}

impl Case<'_> {
    fn not(&mut self, invariant: u8, what: impl fmt::Display) {
        let what = format!("order {}: {what}", self.order_id);
        self.found.push(Violation { invariant, what });
    }
}

/// What each service says of each order; a second row of what there is one of is a violation.
fn assemble<'a>(snapshot: &'a Snapshot, found: &mut Vec<Violation>) -> BTreeMap<Uuid, Parts<'a>> {
    let mut all: BTreeMap<Uuid, Parts<'a>> = BTreeMap::new();
    let mut twice = |order_id, invariant, what| Case { order_id, found }.not(invariant, what);
    for row in &snapshot.orders {
        if all.entry(row.order_id).or_default().order.replace(row).is_some() {
            twice(row.order_id, 5, "is listed twice");
        }
    }
    for row in &snapshot.payments {
        if all.entry(row.order_id).or_default().payment.replace(row).is_some() {
            twice(row.order_id, 3, "two payments");
        }
    }
    for row in &snapshot.tickets {
        if all.entry(row.order_id).or_default().ticket.replace(row).is_some() {
            twice(row.order_id, 3, "two tickets");
        }
    }
    for row in &snapshot.mine {
        if all.entry(row.order_id).or_default().mine.replace(row).is_some() {
            twice(row.order_id, 7, "is on its page twice");
        }
    }
    for row in &snapshot.charges {
        // others' orders are charged too; those that Order does not know are in `lost`
        let Some(parts) = all.get_mut(&row.order_id) else { continue };
        if parts.charge.replace(row).is_some() {
            twice(row.order_id, 3, "charged twice");
        }
    }
    all
}

fn name(state: OrderState) -> &'static str {
    state.as_str_name().trim_start_matches("ORDER_STATE_")
}
