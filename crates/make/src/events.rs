//! Facts in: what each event tells a ticket.

use crate::ticket::{Canceller, Command, Order};
use contract::{
    ids,
    order::v1::OrderCancelRequested,
    payment::v1::{PaymentApproved, PaymentCancelRequested},
};
use journal::{Envelope, Malformed, Routes};
use uuid::Uuid;

pub(crate) fn routes() -> Routes<Command> {
    Routes::new()
        .on(|meta, event: PaymentApproved| {
            let payment = event.payment.ok_or_else(|| Malformed::missing("payment"))?;
            if payment.lines.is_empty() {
                return Err(Malformed::missing("payment.lines"));
            }
            Ok(Command::Queue {
                order: order(meta, &payment.order_id, payment.customer_id)?,
                number: 0, // drawn from the roll in the transaction that stores the ticket
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
