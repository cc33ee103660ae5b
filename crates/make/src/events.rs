//! Facts in: what each event tells a ticket.

use crate::ticket::{Canceller, Command, Order};
use contract::{
    ids,
    order::v1::OrderCancelRequested,
    payment::v1::{PaymentApproved, PaymentCancelRequested},
};
use journal::{Envelope, Malformed, Routes};
use std::sync::atomic::{AtomicI32, Ordering};
use uuid::Uuid;

/// The numbers called out at the counter: 1 to 999, then 1 again.
pub(crate) struct Numbers(AtomicI32);

impl Numbers {
    /// Goes on after the number drawn last.
    pub(crate) fn after(last: i32) -> Self {
        Self(AtomicI32::new(last))
    }

    fn draw(&self) -> i32 {
        // wraps around after i32::MAX; the euclidean remainder is never negative
        self.0.fetch_add(1, Ordering::Relaxed).rem_euclid(999) + 1
    }
}

pub(crate) fn routes(numbers: Numbers) -> Routes<Command> {
    Routes::new()
        .on(move |meta, event: PaymentApproved| {
            let payment = event.payment.ok_or_else(|| Malformed::missing("payment"))?;
            if payment.lines.is_empty() {
                return Err(Malformed::missing("payment.lines"));
            }
            Ok(Command::Queue {
                order: order(meta, &payment.order_id, payment.customer_id)?,
                number: numbers.draw(),
                lines: payment.lines,
            })
        })
        .on(|meta, event: OrderCancelRequested| {
            let cancelled = event.order.ok_or_else(|| Malformed::missing("order"))?;
            Ok(Command::Cancel {
                order: order(meta, &cancelled.order_id, cancelled.customer_id)?,
                by: Canceller::Customer,
                note: cancelled.state_note,
            })
        })
        .on(|meta, event: PaymentCancelRequested| {
            let payment = event.payment.ok_or_else(|| Malformed::missing("payment"))?;
            Ok(Command::Cancel {
                order: order(meta, &payment.order_id, payment.customer_id)?,
                by: Canceller::Operator,
                note: payment.state_note,
            })
        })
}

fn order(meta: &Envelope, order_id: &str, customer_id: String) -> Result<Order, Malformed> {
    Ok(Order {
        order_id: ids::parse(order_id)?,
        ticket_id: Uuid::now_v7(),
        customer_id,
        correlation_id: meta.correlation_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_from_1_to_999_and_begin_again() {
        let numbers = Numbers::after(997);
        assert_eq!([(); 4].map(|()| numbers.draw()), [998, 999, 1, 2]);
        assert_eq!(Numbers::after(0).draw(), 1);
    }
}
