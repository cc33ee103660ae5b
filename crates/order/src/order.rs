//! The order: one row decides "was it accepted?". How it stands is derived from what it knows of its payment and its ticket,
//! newest revision of each, so that no order of events is assumed and none does harm. Pure.

use contract::{
    make::v1::TicketState,
    money::Money,
    order::v1::{
        self as wire, OrderCancelRequested, OrderCancelled, OrderPlaced, OrderRejected, OrderState,
    },
    payment::v1::PaymentState,
    status::{BAR_REJECTED, CUSTOMER_CANCELLED, Known, OPERATOR_CANCELLED},
};
use journal::{Decision, Noun, Time};
use prost::{Message, Name};
use sea_orm::entity::prelude::*;

/// An order, which is a row of `orders`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "orders")]
pub struct Model {
    /// A `UUIDv7`, by which lists are ordered.
    #[sea_orm(primary_key, auto_increment = false)]
    pub order_id: Uuid,
    /// Whose request it answers: the key of "was it accepted?" ([`contract::ids::request_key`]).
    pub request_key: Uuid,
    /// The `request_id` that began it.
    pub correlation_id: Uuid,
    /// SHA-256 of lines and token, by which a repeat is told from another order. The token itself is never kept.
    pub body_hash: Vec<u8>,
    /// Who ordered.
    pub customer_id: String,
    /// What was ordered: the contract's order with nothing but its lines, encoded.
    pub lines: Vec<u8>,
    /// The price of all lines, in minor units.
    pub total_minor: i64,
    /// The currency of the price.
    pub currency: String,
    /// When it was accepted.
    pub create_time: Time,
    /// When the customer asked for a cancel.
    pub cancel_requested_time: Option<Time>,
    /// Why, in the customer's words.
    pub cancel_note: String,
    /// The newest payment heard of, by the contract's number; 0 is none.
    pub payment_state: i32,
    /// Its revision.
    pub payment_revision: i64,
    /// What an operator said about it.
    pub payment_note: String,
    /// The newest ticket heard of, by the contract's number; 0 is none that tells more than the payment.
    pub ticket_state: i32,
    /// Its revision.
    pub ticket_revision: i64,
    /// What the barista said about it.
    pub ticket_note: String,
    /// How it stands, by the contract's number: an index for lists and for settling, derived anew at each change.
    pub state: i32,
    /// When it last changed.
    pub update_time: Time,
    /// Grows with each change.
    pub revision: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// All that an order can be told.
#[derive(Clone, Debug)]
pub enum Command {
    /// A customer orders, for this price.
    Place(Placing),
    /// The customer wants it cancelled.
    Cancel {
        /// Which order.
        order_id: Uuid,
        /// Why, in the customer's words.
        note: String,
        /// The revision the customer has seen; 0 for any.
        revision: i64,
    },
    /// How its payment stands.
    PaymentIs {
        /// Whose payment.
        order_id: Uuid,
        /// How it stands.
        payment: Part<PaymentState>,
    },
    /// How its ticket stands.
    TicketIs {
        /// Whose ticket.
        order_id: Uuid,
        /// How it stands.
        ticket: Part<TicketState>,
    },
}

/// An order to be accepted.
#[derive(Clone, Debug)]
pub struct Placing {
    /// Its id, if it is not a repeat.
    pub order_id: Uuid,
    /// Whose request it answers.
    pub request_key: Uuid,
    /// The request itself.
    pub request_id: Uuid,
    /// SHA-256 of lines and token.
    pub body_hash: [u8; 32],
    /// Who orders.
    pub customer_id: String,
    /// What is ordered: the contract's order with nothing but its lines, encoded.
    pub lines: Vec<u8>,
    /// The price of all lines.
    pub total: Money,
}

/// What is heard of another service's part of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<S> {
    /// How it stands.
    pub state: S,
    /// Which of its changes this was.
    pub revision: i64,
    /// What people said about it.
    pub note: String,
}

/// What a command names an order by: a caller who repeats a request knows no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// By its id.
    Order(Uuid),
    /// By whose request it answers.
    Request(Uuid),
}

/// Why an order said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such order.
    #[error("there is no such order")]
    NotFound,
    /// The customer's request id stands for another order.
    #[error("this request_id was used for another order: lines or token differ")]
    RequestIdReused,
    /// Its state does not allow it.
    #[error("the order is {}, which cannot be cancelled", shown(*.0))]
    NotCancellable(OrderState),
    /// It has changed since the customer saw it.
    #[error("the order is at revision {0} by now")]
    RevisionMismatch(i64),
}

impl Noun for Model {
    type Key = Key;
    type Command = Command;
    type Refusal = Refusal;

    fn key(command: &Command) -> Key {
        match command {
            Command::Place(placing) => Key::Request(placing.request_key),
            Command::Cancel { order_id, .. }
            | Command::PaymentIs { order_id, .. }
            | Command::TicketIs { order_id, .. } => Key::Order(*order_id),
        }
    }

    fn keys(&self) -> impl IntoIterator<Item = Key> {
        [Key::Order(self.order_id), Key::Request(self.request_key)]
    }

    fn correlation_id(&self) -> Uuid {
        self.correlation_id
    }

    fn decide(
        current: Option<Self>,
        command: &Command,
        now: Time,
    ) -> Result<Decision<Self>, Refusal> {
        match command {
            Command::Place(placing) => match current {
                None => Ok(Self::placed(placing, now).tells(|order| OrderPlaced { order })),
                Some(order) => Ok(order.repeated(&placing.body_hash)?.into()),
            },
            Command::Cancel { note, revision, .. } => {
                current.ok_or(Refusal::NotFound)?.cancel(note, *revision, now)
            }
            Command::PaymentIs { payment, .. } => {
                Ok(current.ok_or(Refusal::NotFound)?.paid(payment, now))
            }
            Command::TicketIs { ticket, .. } => {
                Ok(current.ok_or(Refusal::NotFound)?.made(ticket, now))
            }
        }
    }
}

impl Model {
    fn placed(placing: &Placing, now: Time) -> Self {
        Self {
            order_id: placing.order_id,
            request_key: placing.request_key,
            correlation_id: placing.request_id,
            body_hash: placing.body_hash.to_vec(),
            customer_id: placing.customer_id.clone(),
            lines: placing.lines.clone(),
            total_minor: placing.total.minor,
            currency: placing.total.currency.to_string(),
            create_time: now,
            cancel_requested_time: None,
            cancel_note: String::new(),
            payment_state: PaymentState::Unspecified.into(),
            payment_revision: 0,
            payment_note: String::new(),
            ticket_state: TicketState::Unspecified.into(),
            ticket_revision: 0,
            ticket_note: String::new(),
            state: OrderState::Placed.into(),
            update_time: now,
            revision: 1,
        }
    }

    /// What a repeat of its request hears: the order as it is, if it is the same request.
    ///
    /// # Errors
    /// [`Refusal::RequestIdReused`].
    pub fn repeated(self, body_hash: &[u8]) -> Result<Self, Refusal> {
        if self.body_hash == body_hash { Ok(self) } else { Err(Refusal::RequestIdReused) }
    }

    /// Who repeats a cancel gets the answer again, also with the revision seen before the first.
    fn cancel(mut self, note: &str, seen: i64, now: Time) -> Result<Decision<Self>, Refusal> {
        match self.known().state() {
            OrderState::Cancelling | OrderState::Cancelled => Ok(self.into()),
            state @ (OrderState::Making
            | OrderState::Ready
            | OrderState::Rejected
            | OrderState::Unspecified) => Err(Refusal::NotCancellable(state)),
            OrderState::Placed | OrderState::Paid if seen != 0 && seen != self.revision => {
                Err(Refusal::RevisionMismatch(self.revision))
            }
            OrderState::Placed | OrderState::Paid => {
                self.cancel_requested_time = Some(now);
                note.clone_into(&mut self.cancel_note);
                Ok(self.changed(now).tells(|order| OrderCancelRequested { order }))
            }
        }
    }

    fn paid(mut self, payment: &Part<PaymentState>, now: Time) -> Decision<Self> {
        if payment.revision <= self.payment_revision {
            return self.into();
        }
        self.payment_state = payment.state.into();
        self.payment_revision = payment.revision;
        self.payment_note.clone_from(&payment.note);
        self.moved(now)
    }

    /// What QUEUED means to a customer is PAID, which the payment has told: a write saved for every order.
    fn made(mut self, ticket: &Part<TicketState>, now: Time) -> Decision<Self> {
        if ticket.revision <= self.ticket_revision || ticket.state == TicketState::Queued {
            return self.into();
        }
        self.ticket_state = ticket.state.into();
        self.ticket_revision = ticket.revision;
        self.ticket_note.clone_from(&ticket.note);
        self.moved(now)
    }

    /// Tells how it ended, once.
    fn moved(self, now: Time) -> Decision<Self> {
        let before = self.state;
        let order = self.changed(now);
        match order.known().state() {
            state if before == i32::from(state) => order.into(),
            OrderState::Cancelled => order.tells(|order| OrderCancelled { order }),
            OrderState::Rejected => order.tells(|order| OrderRejected { order }),
            OrderState::Unspecified
            | OrderState::Placed
            | OrderState::Paid
            | OrderState::Making
            | OrderState::Ready
            | OrderState::Cancelling => order.into(),
        }
    }

    fn changed(self, now: Time) -> Self {
        let state = self.known().state().into();
        Self { state, update_time: now, revision: self.revision + 1, ..self }
    }

    fn tells<E: Message + Name>(
        self,
        event: impl FnOnce(Option<wire::Order>) -> E,
    ) -> Decision<Self> {
        let event = event(Some(self.to_wire()));
        let subject = self.order_id;
        Decision::from(self).and(subject, &event)
    }

    /// What it knows: all that its state follows from.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            cancel_requested: self.cancel_requested_time.is_some(),
            payment: PaymentState::try_from(self.payment_state).unwrap_or_default(),
            ticket: TicketState::try_from(self.ticket_state).unwrap_or_default(),
        }
    }

    /// What is to be paid.
    #[must_use]
    pub fn total(&self) -> Money {
        let currency = self.currency.parse().expect("the row's currency is our own spelling");
        Money { minor: self.total_minor, currency }
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_wire(&self) -> wire::Order {
        let reason = self.known().reason();
        let note = match reason {
            BAR_REJECTED => &self.ticket_note,
            OPERATOR_CANCELLED => &self.payment_note,
            CUSTOMER_CANCELLED => &self.cancel_note,
            _ => "",
        };
        wire::Order {
            order_id: self.order_id.to_string(),
            customer_id: self.customer_id.clone(),
            total: Some(self.total().to_wire()),
            state: self.state,
            state_reason: reason.to_owned(),
            state_note: note.to_owned(),
            cancel_requested_time: self.cancel_requested_time.map(Into::into),
            create_time: Some(self.create_time.into()),
            update_time: Some(self.update_time.into()),
            revision: self.revision,
            ..wire::Order::decode(&*self.lines).expect("the row's lines are our own encoding")
        }
    }
}

/// As people see it: `PAID`.
fn shown(state: OrderState) -> &'static str {
    state.as_str_name().trim_start_matches("ORDER_STATE_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{
        status::{PAYMENT_DECLINED, PAYMENT_UNAVAILABLE},
        types::v1::LineItem,
    };
    use proptest::{collection::vec, prelude::*, sample::Index};

    const ORDER: Uuid = Uuid::from_u128(1);
    const PLACED: i64 = 1; // revisions
    const CANCELLED_AT: Time = Time::from_micros(2);

    fn placing(body: u8) -> Placing {
        let line = LineItem { menu_item_id: "latte".to_owned(), quantity: 2, ..Default::default() };
        Placing {
            order_id: ORDER,
            request_key: Uuid::from_u128(2),
            request_id: Uuid::from_u128(3),
            body_hash: [body; 32],
            customer_id: "kim".to_owned(),
            lines: wire::Order { lines: vec![line], ..Default::default() }.encode_to_vec(),
            total: Money { minor: 900, currency: "USD".parse().expect("a currency") },
        }
    }

    fn place() -> Command {
        Command::Place(placing(0))
    }

    fn cancel(revision: i64) -> Command {
        Command::Cancel { order_id: ORDER, note: "in a hurry".to_owned(), revision }
    }

    fn payment(revision: i64, state: PaymentState) -> Command {
        let payment = Part { state, revision, note: "the machine is broken".to_owned() };
        Command::PaymentIs { order_id: ORDER, payment }
    }

    fn ticket(revision: i64, state: TicketState) -> Command {
        let ticket = Part { state, revision, note: "no milk".to_owned() };
        Command::TicketIs { order_id: ORDER, ticket }
    }

    /// Tells an order one thing after the other: how it ends, what was told of it, and what the last answer was.
    fn told(commands: &[Command]) -> (Option<Model>, Vec<&'static str>, Result<(), Refusal>) {
        let (mut order, mut facts, mut answer) = (None, Vec::new(), Ok(()));
        for (at, command) in (1..).zip(commands) {
            match Model::decide(order.clone(), command, Time::from_micros(at)) {
                Ok(decision) => {
                    order = Some(decision.state);
                    facts.extend(decision.facts.iter().map(|fact| fact.name));
                    answer = Ok(());
                }
                Err(refusal) => answer = Err(refusal),
            }
        }
        (order, facts, answer)
    }

    /// The order after these, all of which it took.
    fn order(commands: &[Command]) -> wire::Order {
        let (order, _, answer) = told(commands);
        assert_eq!(answer, Ok(()));
        order.expect("an order").to_wire()
    }

    /// State, reason and note of the order after these.
    fn ends(commands: &[Command]) -> (OrderState, String, String) {
        let order = order(commands);
        (order.state(), order.state_reason, order.state_note)
    }

    #[test]
    fn a_placed_order_is_told_whole() {
        let Decision { state: order, facts } =
            Model::decide(None, &place(), Time::from_micros(1)).expect("it is accepted");
        let [fact] = &*facts else { panic!("one fact, not {}", facts.len()) };
        assert_eq!((fact.package, fact.name), ("starcoffee.order.v1", "OrderPlaced"));
        assert_eq!(fact.subject, ORDER);
        let placed = OrderPlaced::decode(&*fact.payload).expect("it decodes").order;
        assert_eq!(placed, Some(order.to_wire()));
        let order = order.to_wire();
        assert_eq!((order.state(), order.revision), (OrderState::Placed, PLACED));
        assert_eq!((order.lines.len(), order.lines[0].quantity), (1, 2));
        assert_eq!(order.total, Some(placing(0).total.to_wire()));
        assert_eq!((order.create_time, order.cancel_requested_time), (order.update_time, None));
    }

    #[test]
    fn a_repeat_is_the_order_as_it_is_and_another_body_is_refused() {
        let paid = [place(), payment(1, PaymentState::Approved)];
        let (before, ..) = told(&paid);
        let (after, facts, answer) = told(&[&paid[..], &[place()]].concat());
        assert_eq!((after, facts, answer), (before, vec!["OrderPlaced"], Ok(())));
        let other = Command::Place(placing(1));
        assert_eq!(told(&[place(), other]).2, Err(Refusal::RequestIdReused));
    }

    #[test]
    fn the_usual_way_is_placed_paid_making_ready() {
        use OrderState::{Making, Paid, Placed, Ready};
        let story = [
            place(),
            payment(1, PaymentState::Approved),
            ticket(1, TicketState::Queued),
            ticket(2, TicketState::Making),
            ticket(3, TicketState::Made),
        ];
        let states = [1, 2, 3, 4, 5].map(|length| ends(&story[..length]).0);
        assert_eq!(states, [Placed, Paid, Paid, Making, Ready]);
        let (order, facts, _) = told(&story);
        assert_eq!(facts, ["OrderPlaced"], "others told the rest");
        assert_eq!(order.expect("an order").revision, 4, "being queued is no change");
    }

    #[test]
    fn an_order_that_is_not_paid_is_rejected() {
        for (payment_state, reason) in [
            (PaymentState::Declined, PAYMENT_DECLINED),
            (PaymentState::Voided, PAYMENT_UNAVAILABLE),
        ] {
            let story = [place(), payment(1, payment_state)];
            assert_eq!(told(&story).1, ["OrderPlaced", "OrderRejected"]);
            assert_eq!(ends(&story), (OrderState::Rejected, reason.to_owned(), String::new()));
        }
    }

    #[test]
    fn a_customer_s_cancel_waits_for_the_money() {
        let asked = [place(), payment(1, PaymentState::Approved), cancel(0)];
        let words = (CUSTOMER_CANCELLED.to_owned(), "in a hurry".to_owned());
        let cancelling = (OrderState::Cancelling, words.0.clone(), words.1.clone());
        assert_eq!(ends(&asked), cancelling);
        assert_eq!(order(&asked).cancel_requested_time, Some(Time::from_micros(3).into()));
        let granted = [&asked[..], &[ticket(2, TicketState::Cancelled)]].concat();
        assert_eq!(ends(&granted), cancelling);
        let done = [&granted[..], &[payment(2, PaymentState::Cancelled)]].concat();
        assert_eq!(ends(&done), (OrderState::Cancelled, words.0, words.1));
        assert_eq!(told(&done).1, ["OrderPlaced", "OrderCancelRequested", "OrderCancelled"]);
        let refused = [&asked[..], &[ticket(2, TicketState::Making)]].concat();
        assert_eq!(ends(&refused), (OrderState::Making, String::new(), String::new()));
    }

    #[test]
    fn an_unpaid_order_is_cancelled_when_it_is_void() {
        let story = [place(), cancel(PLACED), payment(1, PaymentState::Voided)];
        assert_eq!(ends(&story).0, OrderState::Cancelled);
        let order = order(&story);
        assert_eq!(order.cancel_requested_time, Some(CANCELLED_AT.into()));
        assert_eq!(told(&story).1, ["OrderPlaced", "OrderCancelRequested", "OrderCancelled"]);
    }

    #[test]
    fn the_shop_s_own_cancels_say_why() {
        let paid = [place(), payment(1, PaymentState::Approved)];
        let operator = [&paid[..], &[payment(2, PaymentState::CancelPending)]].concat();
        let note = "the machine is broken".to_owned();
        let reason = OPERATOR_CANCELLED.to_owned();
        assert_eq!(ends(&operator), (OrderState::Cancelling, reason, note));
        let kept = [&operator[..], &[payment(3, PaymentState::Approved)]].concat();
        assert_eq!(ends(&kept), (OrderState::Paid, String::new(), String::new()));
        let bar = [&paid[..], &[ticket(2, TicketState::Rejected)]].concat();
        let words = (BAR_REJECTED.to_owned(), "no milk".to_owned());
        assert_eq!(ends(&bar), (OrderState::Cancelling, words.0.clone(), words.1.clone()));
        let done = [&bar[..], &[payment(2, PaymentState::Cancelled)]].concat();
        assert_eq!(ends(&done), (OrderState::Cancelled, words.0, words.1));
        assert_eq!(told(&done).1, ["OrderPlaced", "OrderCancelled"]);
    }

    #[test]
    fn a_cancel_repeated_is_answered_the_same_whatever_the_revision() {
        for story in [
            vec![place(), cancel(PLACED)],
            vec![place(), payment(1, PaymentState::CancelPending)],
            vec![place(), cancel(0), payment(1, PaymentState::Voided)],
        ] {
            let before = told(&story);
            for revision in [0, PLACED, 99] {
                let after = told(&[&story[..], &[cancel(revision)]].concat());
                assert_eq!(after, before);
            }
        }
    }

    #[test]
    fn what_is_begun_or_ended_is_not_cancelled() {
        for (part, state) in [
            (ticket(2, TicketState::Making), OrderState::Making),
            (ticket(3, TicketState::Made), OrderState::Ready),
            (payment(1, PaymentState::Declined), OrderState::Rejected),
        ] {
            for revision in [0, 99] {
                let answer = told(&[place(), part.clone(), cancel(revision)]).2;
                assert_eq!(answer, Err(Refusal::NotCancellable(state)));
            }
        }
    }

    #[test]
    fn a_cancel_of_an_old_revision_is_refused() {
        let paid = [place(), payment(1, PaymentState::Approved), cancel(PLACED)];
        assert_eq!(told(&paid).2, Err(Refusal::RevisionMismatch(2)));
        assert_eq!(told(&[place(), cancel(PLACED)]).2, Ok(()));
    }

    #[test]
    fn nobody_hears_of_an_order_that_was_not_placed() {
        for command in
            [cancel(0), payment(1, PaymentState::Approved), ticket(1, TicketState::Cancelled)]
        {
            assert_eq!(told(&[command]).2, Err(Refusal::NotFound));
        }
    }

    #[test]
    fn an_older_word_changes_nothing() {
        let newest = [place(), payment(3, PaymentState::Approved), ticket(3, TicketState::Made)];
        let before = told(&newest);
        for late in [
            payment(2, PaymentState::CancelPending),
            payment(3, PaymentState::Declined),
            ticket(2, TicketState::Making),
            // a refused cancel repeats the revision that is known
            ticket(3, TicketState::Made),
        ] {
            assert_eq!(told(&[&newest[..], &[late]].concat()), before);
        }
    }

    /// What two services might publish of one order, each revision always the same.
    fn parts() -> impl Strategy<Value = Vec<Command>> {
        (vec((1..6_i32, "[a-z]{0,3}"), 0..5), vec((2..6_i32, "[a-z]{0,3}"), 0..5)).prop_map(
            |(payments, tickets)| {
                let payments = (1..).zip(payments).map(|(revision, (state, note))| {
                    let state = PaymentState::try_from(state).expect("a state");
                    let payment = Part { state, revision, note };
                    Command::PaymentIs { order_id: ORDER, payment }
                });
                let tickets = (2..).zip(tickets).map(|(revision, (state, note))| {
                    let state = TicketState::try_from(state).expect("a state");
                    Command::TicketIs { order_id: ORDER, ticket: Part { state, revision, note } }
                });
                payments.chain([ticket(1, TicketState::Queued)]).chain(tickets).collect()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn any_permutation_with_any_repeats_ends_in_the_same_knowledge(
            (parts, shuffled) in parts().prop_flat_map(|parts| (Just(parts.clone()), Just(parts).prop_shuffle())),
            repeats in vec((any::<Index>(), any::<Index>()), 0..8),
            cancelled in any::<bool>(),
        ) {
            let first = if cancelled { vec![place(), cancel(0)] } else { vec![place()] };
            let mut other = shuffled;
            for (which, place) in repeats {
                let again = other[which.index(other.len())].clone();
                other.insert(place.index(other.len() + 1), again);
            }
            let [one, other] = [parts, other].map(|parts| {
                let (order, facts, answer) = told(&[&first[..], &parts[..]].concat());
                assert_eq!(answer, Ok(()));
                assert_eq!(facts.iter().filter(|fact| **fact == "OrderPlaced").count(), 1);
                // when and in how many steps it came to know is its own history
                let order = order.expect("an order");
                (order.known(), Model { update_time: Time::default(), revision: 0, ..order })
            });
            prop_assert_eq!(one, other);
        }
    }
}
