//! Facts in: what each event tells a payment.

use crate::payment::{Command, Order};
use contract::{
    ids,
    make::v1::{CancelRefused, CoffeeCancelled},
    money::Currency,
};
use journal::{Malformed, Routes};
use uuid::Uuid;

/// `currency` is the shop's: that of a payment which nobody ever asked for.
pub(crate) fn routes(currency: Currency) -> Routes<Command> {
    Routes::new()
        .on(move |meta, event: CoffeeCancelled| {
            let ticket = event.ticket.ok_or_else(|| Malformed::missing("ticket"))?;
            Ok(Command::CoffeeCancelled {
                order: Order {
                    order_id: ids::parse(&ticket.order_id)?,
                    payment_id: Uuid::now_v7(),
                    customer_id: ticket.customer_id,
                    correlation_id: meta.correlation_id,
                },
                currency,
                reason: ticket.state_reason,
                note: ticket.state_note,
            })
        })
        .on(|_meta, event: CancelRefused| {
            let ticket = event.ticket.ok_or_else(|| Malformed::missing("ticket"))?;
            Ok(Command::CancelRefused { order_id: ids::parse(&ticket.order_id)? })
        })
}
