//! Facts in: what each event tells of an order. All of the shop's events are heard.

use crate::{
    history::{Entry, Standing},
    my_order::{Heard, Shown, encode_lines},
};
use contract::{
    google::r#type::Money as WireMoney,
    ids,
    make::v1::{CancelRefused, CoffeeCancelled, CoffeeMade, CoffeeQueued, CoffeeStarted, Ticket},
    money::Money,
    order::v1::{Order, OrderCancelRequested, OrderCancelled, OrderPlaced, OrderRejected},
    payment::v1::{
        Payment, PaymentApproved, PaymentCancelRequested, PaymentCancelled, PaymentDeclined,
        PaymentState,
    },
};
use journal::{Envelope, Malformed, Routes, Time};
use prost_types::Timestamp;

pub(crate) fn routes() -> Routes<Heard> {
    Routes::new()
        .on(|meta, event: OrderPlaced| about_order(meta, event.order))
        .on(|meta, event: OrderCancelRequested| about_order(meta, event.order))
        .on(|meta, event: OrderCancelled| about_order(meta, event.order))
        .on(|meta, event: OrderRejected| about_order(meta, event.order))
        .on(|meta, event: PaymentApproved| about_payment(meta, event.payment))
        .on(|meta, event: PaymentDeclined| about_payment(meta, event.payment))
        .on(|meta, event: PaymentCancelRequested| about_payment(meta, event.payment))
        .on(|meta, event: PaymentCancelled| about_payment(meta, event.payment))
        .on(|meta, event: CoffeeQueued| about_ticket(meta, event.ticket))
        .on(|meta, event: CoffeeStarted| about_ticket(meta, event.ticket))
        .on(|meta, event: CoffeeMade| about_ticket(meta, event.ticket))
        .on(|meta, event: CoffeeCancelled| about_ticket(meta, event.ticket))
        .on(|meta, event: CancelRefused| about_ticket(meta, event.ticket))
}

fn about_order(meta: &Envelope, order: Option<Order>) -> Result<Heard, Malformed> {
    let order = order.ok_or_else(|| Malformed::missing("order"))?;
    if order.customer_id.is_empty() {
        return Err(Malformed::missing("order.customer_id"));
    }
    let standing = Standing::Order { cancel_requested: order.cancel_requested_time.is_some() };
    Ok(Heard {
        order_id: ids::parse(&order.order_id)?,
        event_time: meta.time,
        entry: entry(order.revision, standing, order.update_time)?,
        shown: Shown::Order {
            customer_id: order.customer_id,
            lines: encode_lines(order.lines),
            total: money(order.total, "order.total")?,
            note: order.state_note,
            create_time: time(order.create_time, "create_time")?,
        },
    })
}

fn about_payment(meta: &Envelope, payment: Option<Payment>) -> Result<Heard, Malformed> {
    let payment = payment.ok_or_else(|| Malformed::missing("payment"))?;
    let state = payment.state();
    let charged_minor = match state {
        PaymentState::Approved | PaymentState::CancelPending | PaymentState::Cancelled => {
            let amount = money(payment.amount, "payment.amount")?.minor;
            let refunded = payment.refunded.map(|refunded| money(Some(refunded), "refunded"));
            let refunded = refunded.transpose()?.map_or(0, |refunded| refunded.minor);
            amount.checked_sub(refunded).ok_or_else(|| Malformed::new("refunded is too large"))?
        }
        PaymentState::Declined | PaymentState::Voided => 0,
        PaymentState::Unspecified => return Err(Malformed::missing("payment.state")),
    };
    Ok(Heard {
        order_id: ids::parse(&payment.order_id)?,
        event_time: meta.time,
        entry: entry(payment.revision, Standing::Payment(state), payment.update_time)?,
        shown: Shown::Payment { charged_minor, note: payment.state_note },
    })
}

fn about_ticket(meta: &Envelope, ticket: Option<Ticket>) -> Result<Heard, Malformed> {
    let ticket = ticket.ok_or_else(|| Malformed::missing("ticket"))?;
    let state = ticket.state();
    if state == contract::make::v1::TicketState::Unspecified {
        return Err(Malformed::missing("ticket.state"));
    }
    Ok(Heard {
        order_id: ids::parse(&ticket.order_id)?,
        event_time: meta.time,
        entry: entry(ticket.revision, Standing::Ticket(state), ticket.update_time)?,
        shown: Shown::Ticket { number: ticket.number, note: ticket.state_note },
    })
}

fn entry(
    revision: i64,
    standing: Standing,
    update_time: Option<Timestamp>,
) -> Result<Entry, Malformed> {
    if revision < 1 {
        return Err(Malformed::missing("revision"));
    }
    Ok(Entry { revision, standing, time: time(update_time, "update_time")? })
}

fn time(time: Option<Timestamp>, field: &'static str) -> Result<Time, Malformed> {
    let time = time.ok_or_else(|| Malformed::missing(field))?;
    Time::try_from(&time).map_err(|error| Malformed::new(format!("{field}: {error}")))
}

fn money(money: Option<WireMoney>, field: &'static str) -> Result<Money, Malformed> {
    let money = money.ok_or_else(|| Malformed::missing(field))?;
    let currency = money.currency_code.parse();
    currency
        .and_then(|currency| Money::from_wire(&money, currency))
        .map_err(|error| Malformed::new(format!("{field}: {error}")))
}
