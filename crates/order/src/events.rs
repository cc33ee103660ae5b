//! Facts in: what each event tells an order.

use crate::order::{Command, Part};
use contract::{
    ids,
    make::v1::{CancelRefused, CoffeeCancelled, CoffeeMade, CoffeeStarted, Ticket, TicketState},
    payment::v1::{
        Payment, PaymentApproved, PaymentCancelRequested, PaymentCancelled, PaymentDeclined,
        PaymentState,
    },
};
use journal::{Malformed, Routes};

/// `CoffeeQueued` is not among them: it tells a customer nothing that `PaymentApproved` has not told.
pub(crate) fn routes() -> Routes<Command> {
    Routes::new()
        .on(|_meta, event: PaymentApproved| payment(event.payment))
        .on(|_meta, event: PaymentDeclined| payment(event.payment))
        .on(|_meta, event: PaymentCancelRequested| payment(event.payment))
        .on(|_meta, event: PaymentCancelled| payment(event.payment))
        .on(|_meta, event: CoffeeStarted| ticket(event.ticket))
        .on(|_meta, event: CoffeeMade| ticket(event.ticket))
        .on(|_meta, event: CoffeeCancelled| ticket(event.ticket))
        .on(|_meta, event: CancelRefused| ticket(event.ticket))
}

/// Payment's word, whether it came as an event or as an answer.
pub(crate) fn payment(payment: Option<Payment>) -> Result<Command, Malformed> {
    let payment = payment.ok_or_else(|| Malformed::missing("payment"))?;
    let state = match payment.state() {
        // also what a newer version may say: better a dead letter than a guess
        PaymentState::Unspecified => return Err(Malformed::missing("payment.state")),
        state => state,
    };
    if payment.revision <= 0 {
        return Err(Malformed::missing("payment.revision"));
    }
    Ok(Command::PaymentIs {
        order_id: ids::parse(&payment.order_id)?,
        payment: Part { state, revision: payment.revision, note: payment.state_note },
    })
}

fn ticket(ticket: Option<Ticket>) -> Result<Command, Malformed> {
    let ticket = ticket.ok_or_else(|| Malformed::missing("ticket"))?;
    let state = match ticket.state() {
        TicketState::Unspecified => return Err(Malformed::missing("ticket.state")),
        state => state,
    };
    if ticket.revision <= 0 {
        return Err(Malformed::missing("ticket.revision"));
    }
    Ok(Command::TicketIs {
        order_id: ids::parse(&ticket.order_id)?,
        ticket: Part { state, revision: ticket.revision, note: ticket.state_note },
    })
}
