//! What the other services would publish of one order.

use crate::page::usd;
use contract::{
    make::v1::{CoffeeCancelled, CoffeeMade, CoffeeQueued, CoffeeStarted, Ticket, TicketState},
    order::v1::{Order, OrderCancelRequested, OrderPlaced, OrderState},
    payment::v1::{
        Payment, PaymentApproved, PaymentCancelRequested, PaymentCancelled, PaymentDeclined,
        PaymentState,
    },
    status::BAR_REJECTED,
    types::v1::LineItem,
};
use journal::{Envelope, Time};
use prost::{Message, Name};
use prost_types::Timestamp;
use uuid::Uuid;

/// One order of 9.00 USD.
pub(crate) struct Story {
    order_id: Uuid,
    customer_id: &'static str,
}

/// So many seconds after the story begins.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp { seconds: 1_764_000_000 + second, nanos: 0 }
}

impl Story {
    /// Orders sort by `n`, as if placed one after the other.
    pub(crate) fn of(n: u128, customer_id: &'static str) -> Self {
        let order_id = Uuid::from_u128(0x0189_0000_0000_7000_8000_0000_0000_0000 + n);
        Self { order_id, customer_id }
    }

    pub(crate) fn id(&self) -> String {
        self.order_id.to_string()
    }

    pub(crate) fn lines(&self) -> Vec<LineItem> {
        let (menu_item_id, note) = ("latte".to_owned(), format!("for {}", self.customer_id));
        vec![LineItem { menu_item_id, quantity: 2, note, ..Default::default() }]
    }

    /// Placed, paid, queued, started, made.
    pub(crate) fn usual(&self) -> Vec<Envelope> {
        vec![
            self.placed(),
            self.paid(1, PaymentState::Approved, 2),
            self.ticket(1, TicketState::Queued, 3),
            self.ticket(2, TicketState::Making, 4),
            self.ticket(3, TicketState::Made, 5),
        ]
    }

    pub(crate) fn placed(&self) -> Envelope {
        self.event("order", 1, &OrderPlaced { order: Some(self.order()) })
    }

    /// Revision 2.
    pub(crate) fn cancel_asked(&self, note: &str, second: i64) -> Envelope {
        let order = Order {
            state: OrderState::Cancelling.into(),
            state_note: note.to_owned(),
            cancel_requested_time: Some(at(second)),
            update_time: Some(at(second)),
            revision: 2,
            ..self.order()
        };
        self.event("order", second, &OrderCancelRequested { order: Some(order) })
    }

    pub(crate) fn without_total(&self) -> Envelope {
        let order = Order { total: None, ..self.order() };
        self.event("order", 1, &OrderPlaced { order: Some(order) })
    }

    pub(crate) fn paid(&self, revision: i64, state: PaymentState, second: i64) -> Envelope {
        let payment = Some(self.payment(revision, state, second));
        match state {
            PaymentState::Approved => self.event("payment", second, &PaymentApproved { payment }),
            PaymentState::Declined => self.event("payment", second, &PaymentDeclined { payment }),
            PaymentState::CancelPending => {
                self.event("payment", second, &PaymentCancelRequested { payment })
            }
            _ => self.event("payment", second, &PaymentCancelled { payment }),
        }
    }

    pub(crate) fn refunded(&self, revision: i64, second: i64) -> Envelope {
        let payment = self.payment(revision, PaymentState::Cancelled, second);
        let payment = Payment { refunded: payment.amount.clone(), ..payment };
        self.event("payment", second, &PaymentCancelled { payment: Some(payment) })
    }

    pub(crate) fn ticket(&self, revision: i64, state: TicketState, second: i64) -> Envelope {
        let ticket = Some(Ticket {
            ticket_id: Uuid::now_v7().to_string(),
            order_id: self.id(),
            customer_id: self.customer_id.to_owned(),
            number: 42,
            lines: self.lines(),
            state: state.into(),
            create_time: Some(at(3)),
            update_time: Some(at(second)),
            revision,
            ..Default::default()
        });
        match state {
            TicketState::Making => self.event("make", second, &CoffeeStarted { ticket }),
            TicketState::Made => self.event("make", second, &CoffeeMade { ticket }),
            TicketState::Rejected | TicketState::Cancelled => {
                self.event("make", second, &CoffeeCancelled { ticket })
            }
            _ => self.event("make", second, &CoffeeQueued { ticket }),
        }
    }

    pub(crate) fn rejected_by_the_bar(&self, revision: i64, note: &str, second: i64) -> Envelope {
        let event = self.ticket(revision, TicketState::Rejected, second);
        let mut event = CoffeeCancelled::decode(event.payload).expect("it was just encoded");
        let ticket = event.ticket.as_mut().expect("it has one");
        (ticket.state_reason, ticket.state_note) = (BAR_REJECTED.to_owned(), note.to_owned());
        self.event("make", second, &event)
    }

    fn order(&self) -> Order {
        Order {
            order_id: self.id(),
            customer_id: self.customer_id.to_owned(),
            lines: self.lines(),
            total: Some(usd(900)),
            state: OrderState::Placed.into(),
            create_time: Some(at(1)),
            update_time: Some(at(1)),
            revision: 1,
            ..Default::default()
        }
    }

    fn payment(&self, revision: i64, state: PaymentState, second: i64) -> Payment {
        Payment {
            payment_id: Uuid::now_v7().to_string(),
            order_id: self.id(),
            customer_id: self.customer_id.to_owned(),
            lines: self.lines(),
            amount: Some(usd(900)),
            state: state.into(),
            create_time: Some(at(2)),
            update_time: Some(at(second)),
            revision,
            ..Default::default()
        }
    }

    fn event<E: Message + Name>(&self, source: &str, second: i64, event: &E) -> Envelope {
        let envelope = Envelope::of(&format!("/starcoffee/{source}"), self.order_id, event);
        Envelope { time: Time::try_from(&at(second)).expect("a time"), ..envelope }
    }
}
