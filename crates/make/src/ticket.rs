//! The ticket: one row decides "is it made?". The first to come decides: an order whose cancel was granted is never
//! made, even if the cancel overtook the order itself, and one that a barista has begun is never cancelled. Pure.

use contract::{
    make::v1::{
        self as wire, CancelRefused, CoffeeCancelled, CoffeeMade, CoffeeQueued, CoffeeStarted,
        TicketState,
    },
    status::{BAR_REJECTED, CUSTOMER_CANCELLED, OPERATOR_CANCELLED},
    types::v1::LineItem,
};
use journal::{Decision, Noun, Time};
use prost::{Message, Name};
use sea_orm::entity::prelude::*;

/// How a ticket stands; the numbers are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i32", db_type = "Integer")]
pub enum State {
    /// It waits for a barista.
    Queued = 1,
    /// A barista has begun.
    Making = 2,
    /// The coffee is made.
    Made = 3,
    /// The bar cannot make it.
    Rejected = 4,
    /// Cancelled before a barista began.
    Cancelled = 5,
}

/// A ticket, which is a row of `tickets`. A cancel that came before the order leaves one as well, without a number: a
/// tombstone, which is kept for good and never shown.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tickets")]
pub struct Model {
    /// The order it serves: there is at most one ticket for it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub order_id: Uuid,
    /// Of version 7: lists are ordered by it.
    pub ticket_id: Uuid,
    /// The request that began the order.
    pub correlation_id: Uuid,
    /// Who ordered.
    pub customer_id: String,
    /// Called out at the counter, 1 to 999; 0 on a tombstone.
    pub number: i32,
    /// What to make: the contract's ticket with nothing but its lines, encoded.
    pub lines: Vec<u8>,
    /// How it stands.
    pub state: State,
    /// Who makes it; empty while it waits.
    pub barista_id: String,
    /// Why it was rejected or cancelled.
    pub state_reason: String,
    /// The same in people's own words.
    pub state_note: String,
    /// When it came to the bar.
    pub create_time: Time,
    /// When it last changed.
    pub update_time: Time,
    /// Grows with each change.
    pub revision: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// All that a ticket can be told.
#[derive(Clone, Debug)]
pub enum Command {
    /// The order is paid.
    Queue {
        /// Whose order it is.
        order: Order,
        /// The number to call out.
        number: i32,
        /// What to make.
        lines: Vec<LineItem>,
    },
    /// The customer, or an operator, wants the order cancelled.
    Cancel {
        /// Whose order it is.
        order: Order,
        /// Who wants it.
        by: Canceller,
        /// Why, in their words.
        note: String,
    },
    /// A barista begins.
    Start {
        /// Which ticket.
        ticket_id: Uuid,
        /// Who makes it.
        barista_id: String,
    },
    /// The coffee is made.
    Complete {
        /// Which ticket.
        ticket_id: Uuid,
    },
    /// The bar cannot make it.
    Reject {
        /// Which ticket.
        ticket_id: Uuid,
        /// Why, in the barista's words.
        note: String,
    },
}

/// The order that an event is about.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its id.
    pub order_id: Uuid,
    /// The id of its ticket, if this is the first that Make hears of it.
    pub ticket_id: Uuid,
    /// Who ordered.
    pub customer_id: String,
    /// The request that began it.
    pub correlation_id: Uuid,
}

/// Who wants an order cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canceller {
    /// Its customer.
    Customer,
    /// The shop.
    Operator,
}

/// What a command names a ticket by: events know the order, baristas the ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// By the order's id.
    Order(Uuid),
    /// By its own id.
    Ticket(Uuid),
}

/// Why a ticket said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such ticket.
    #[error("there is no such ticket")]
    NotFound,
    /// Its state does not allow it.
    #[error("the ticket is {0}, which does not allow this")]
    State(State),
    /// Another barista has begun.
    #[error("another barista is making it")]
    Taken,
}

/// What is watched of tickets: all that the bar has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bar;

impl Noun for Model {
    type Key = Key;
    type Command = Command;
    type Refusal = Refusal;

    fn key(command: &Command) -> Key {
        match command {
            Command::Queue { order, .. } | Command::Cancel { order, .. } => {
                Key::Order(order.order_id)
            }
            Command::Start { ticket_id, .. }
            | Command::Complete { ticket_id }
            | Command::Reject { ticket_id, .. } => Key::Ticket(*ticket_id),
        }
    }

    fn keys(&self) -> impl IntoIterator<Item = Key> {
        [Key::Order(self.order_id), Key::Ticket(self.ticket_id)]
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
            Command::Queue { order, number, lines } => Ok(match current {
                None => {
                    Self::queued(order, *number, lines, now).tells(|ticket| CoffeeQueued { ticket })
                }
                // a repeat, or the cancel came first
                Some(ticket) => ticket.into(),
            }),
            Command::Cancel { order, by, note } => Ok(match current {
                None => Self::tombstone(order, now).cancelled(*by, note),
                Some(ticket) => ticket.cancel(*by, note, now),
            }),
            Command::Start { barista_id, .. } => shown(current)?.start(barista_id, now),
            Command::Complete { .. } => shown(current)?.complete(now),
            Command::Reject { note, .. } => shown(current)?.reject(note, now),
        }
    }
}

/// For the bar, a tombstone is no ticket.
fn shown(ticket: Option<Model>) -> Result<Model, Refusal> {
    ticket.filter(|ticket| !ticket.is_tombstone()).ok_or(Refusal::NotFound)
}

impl Model {
    /// Whether it only remembers that a cancel came before the order.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.number == 0
    }

    fn queued(order: &Order, number: i32, lines: &[LineItem], now: Time) -> Self {
        let lines = wire::Ticket { lines: lines.to_vec(), ..Default::default() }.encode_to_vec();
        Self { number, lines, state: State::Queued, ..Self::tombstone(order, now) }
    }

    fn tombstone(order: &Order, now: Time) -> Self {
        Self {
            order_id: order.order_id,
            ticket_id: order.ticket_id,
            correlation_id: order.correlation_id,
            customer_id: order.customer_id.clone(),
            number: 0,
            lines: Vec::new(),
            state: State::Cancelled,
            barista_id: String::new(),
            state_reason: String::new(),
            state_note: String::new(),
            create_time: now,
            update_time: now,
            revision: 1,
        }
    }

    /// Only here is known whether the barista has begun, so here it is decided. A refusal is told for every request:
    /// each may come from another who waits for an answer.
    fn cancel(self, by: Canceller, note: &str, now: Time) -> Decision<Self> {
        match self.state {
            State::Queued => self.becomes(State::Cancelled, now).cancelled(by, note),
            State::Making | State::Made => self.tells(|ticket| CancelRefused { ticket }),
            State::Rejected | State::Cancelled => self.into(),
        }
    }

    fn cancelled(mut self, by: Canceller, note: &str) -> Decision<Self> {
        let reason = match by {
            Canceller::Customer => CUSTOMER_CANCELLED,
            Canceller::Operator => OPERATOR_CANCELLED,
        };
        self.state_reason = reason.to_owned();
        self.state_note = note.to_owned();
        self.tells(|ticket| CoffeeCancelled { ticket })
    }

    fn start(self, barista_id: &str, now: Time) -> Result<Decision<Self>, Refusal> {
        match self.state {
            State::Queued => {
                let mut ticket = self.becomes(State::Making, now);
                ticket.barista_id = barista_id.to_owned();
                Ok(ticket.tells(|ticket| CoffeeStarted { ticket }))
            }
            State::Making if self.barista_id == barista_id => Ok(self.into()),
            State::Making => Err(Refusal::Taken),
            state @ (State::Made | State::Rejected | State::Cancelled) => {
                Err(Refusal::State(state))
            }
        }
    }

    fn complete(self, now: Time) -> Result<Decision<Self>, Refusal> {
        match self.state {
            State::Making => {
                Ok(self.becomes(State::Made, now).tells(|ticket| CoffeeMade { ticket }))
            }
            State::Made => Ok(self.into()),
            state @ (State::Queued | State::Rejected | State::Cancelled) => {
                Err(Refusal::State(state))
            }
        }
    }

    fn reject(self, note: &str, now: Time) -> Result<Decision<Self>, Refusal> {
        match self.state {
            State::Queued | State::Making => {
                let mut ticket = self.becomes(State::Rejected, now);
                ticket.state_reason = BAR_REJECTED.to_owned();
                ticket.state_note = note.to_owned();
                Ok(ticket.tells(|ticket| CoffeeCancelled { ticket }))
            }
            State::Rejected => Ok(self.into()),
            state @ (State::Made | State::Cancelled) => Err(Refusal::State(state)),
        }
    }

    fn becomes(self, state: State, now: Time) -> Self {
        Self { state, update_time: now, revision: self.revision + 1, ..self }
    }

    fn tells<E: Message + Name>(
        self,
        event: impl FnOnce(Option<wire::Ticket>) -> E,
    ) -> Decision<Self> {
        let event = event(Some(self.to_wire()));
        let subject = self.order_id;
        Decision::from(self).and(subject, &event)
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_wire(&self) -> wire::Ticket {
        wire::Ticket {
            ticket_id: self.ticket_id.to_string(),
            order_id: self.order_id.to_string(),
            customer_id: self.customer_id.clone(),
            number: self.number,
            state: TicketState::from(self.state).into(),
            barista_id: self.barista_id.clone(),
            state_reason: self.state_reason.clone(),
            state_note: self.state_note.clone(),
            create_time: Some(self.create_time.into()),
            update_time: Some(self.update_time.into()),
            revision: self.revision,
            ..wire::Ticket::decode(&*self.lines).expect("the row's lines are our own encoding")
        }
    }
}

impl From<State> for TicketState {
    fn from(state: State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Making => Self::Making,
            State::Made => Self::Made,
            State::Rejected => Self::Rejected,
            State::Cancelled => Self::Cancelled,
        }
    }
}

/// As people see it: `QUEUED`.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = TicketState::from(*self).as_str_name();
        f.write_str(name.trim_start_matches("TICKET_STATE_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    const ORDER: Uuid = Uuid::from_u128(1);

    fn order(ticket: u128) -> Order {
        Order {
            order_id: ORDER,
            ticket_id: Uuid::from_u128(ticket),
            customer_id: "kim".to_owned(),
            correlation_id: Uuid::from_u128(7),
        }
    }

    fn latte() -> LineItem {
        LineItem { menu_item_id: "latte".to_owned(), quantity: 2, ..Default::default() }
    }

    fn queue(ticket: u128) -> Command {
        Command::Queue { order: order(ticket), number: 42, lines: vec![latte()] }
    }

    fn cancel(by: Canceller) -> Command {
        Command::Cancel { order: order(9), by, note: "in a hurry".to_owned() }
    }

    fn start(barista_id: &str) -> Command {
        Command::Start { ticket_id: Uuid::from_u128(2), barista_id: barista_id.to_owned() }
    }

    fn complete() -> Command {
        Command::Complete { ticket_id: Uuid::from_u128(2) }
    }

    fn reject() -> Command {
        Command::Reject { ticket_id: Uuid::from_u128(2), note: "no milk".to_owned() }
    }

    /// Tells a ticket one thing after the other: how it ends, what was told of it, and what the last answer was.
    fn told(commands: &[Command]) -> (Option<Model>, Vec<&'static str>, Result<(), Refusal>) {
        let (mut ticket, mut facts, mut answer) = (None, Vec::new(), Ok(()));
        for (at, command) in (1..).zip(commands) {
            match Model::decide(ticket.clone(), command, Time::from_micros(at)) {
                Ok(decision) => {
                    ticket = Some(decision.state);
                    facts.extend(decision.facts.iter().map(|fact| fact.name));
                    answer = Ok(());
                }
                Err(refusal) => answer = Err(refusal),
            }
        }
        (ticket, facts, answer)
    }

    #[test]
    fn a_paid_order_is_queued_once_started_and_made() {
        let (ticket, facts, _) =
            told(&[queue(2), queue(3), start("ann"), start("ann"), complete(), complete()]);
        let ticket = ticket.expect("a ticket").to_wire();
        assert_eq!(
            ticket.ticket_id,
            Uuid::from_u128(2).to_string(),
            "the first came, the first stays"
        );
        assert_eq!((ticket.number, ticket.state(), ticket.revision), (42, TicketState::Made, 3));
        assert_eq!((ticket.barista_id.as_str(), ticket.lines), ("ann", vec![latte()]));
        assert_eq!(facts, ["CoffeeQueued", "CoffeeStarted", "CoffeeMade"]);
    }

    #[test]
    fn a_cancel_before_the_order_leaves_a_tombstone() {
        let (ticket, facts, answer) = told(&[cancel(Canceller::Customer), queue(2), start("ann")]);
        let ticket = ticket.expect("a tombstone");
        assert!(ticket.is_tombstone());
        assert_eq!(
            (ticket.state, ticket.state_reason.as_str()),
            (State::Cancelled, CUSTOMER_CANCELLED)
        );
        assert_eq!(ticket.state_note, "in a hurry");
        assert_eq!(facts, ["CoffeeCancelled"]);
        assert_eq!(answer, Err(Refusal::NotFound), "a tombstone is not shown");
    }

    #[test]
    fn a_started_coffee_is_not_cancelled_and_each_who_asks_is_told() {
        let asked =
            [cancel(Canceller::Customer), cancel(Canceller::Operator), cancel(Canceller::Customer)];
        let (ticket, facts, _) = told(&[&[queue(2), start("ann")][..], &asked].concat());
        assert_eq!(ticket.expect("a ticket").revision, 2);
        assert_eq!(facts[2..], ["CancelRefused"; 3]);
    }

    #[test]
    fn the_bar_may_reject_what_is_not_made() {
        for before in [vec![queue(2)], vec![queue(2), start("ann")]] {
            let (ticket, facts, answer) =
                told(&[&before[..], &[reject(), reject(), cancel(Canceller::Operator)]].concat());
            let ticket = ticket.expect("a ticket");
            assert_eq!(
                (ticket.state_reason.as_str(), ticket.state_note.as_str()),
                (BAR_REJECTED, "no milk")
            );
            assert_eq!((facts.last(), answer), (Some(&"CoffeeCancelled"), Ok(())));
            assert_eq!(facts.iter().filter(|fact| **fact == "CoffeeCancelled").count(), 1);
        }
    }

    #[test]
    fn moves_out_of_turn_are_refused() {
        let cancelled = [queue(2), cancel(Canceller::Customer)];
        let made = [queue(2), start("ann"), complete()];
        for (before, command, refusal) in [
            (&[][..], start("ann"), Refusal::NotFound),
            (&[queue(2)], complete(), Refusal::State(State::Queued)),
            (&[queue(2), start("ann")], start("bob"), Refusal::Taken),
            (&made, start("ann"), Refusal::State(State::Made)),
            (&made, reject(), Refusal::State(State::Made)),
            (&cancelled, start("ann"), Refusal::State(State::Cancelled)),
            (&cancelled, reject(), Refusal::State(State::Cancelled)),
            (&[queue(2), reject()], complete(), Refusal::State(State::Rejected)),
        ] {
            let (_, _, answer) = told(&[before, &[command]].concat());
            assert_eq!(answer, Err(refusal));
        }
    }

    fn anything() -> impl Strategy<Value = Command> {
        prop_oneof![
            (2..5_u128).prop_map(queue),
            Just(cancel(Canceller::Customer)),
            Just(cancel(Canceller::Operator)),
            Just(start("ann")),
            Just(start("bob")),
            Just(complete()),
            Just(reject()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn no_order_and_no_repetition_breaks_an_invariant(commands in vec(anything(), 0..24)) {
            let mut ticket: Option<Model> = None;
            let (mut brews, mut granted) = (0, false);
            for (at, command) in (1..).zip(&commands) {
                let Ok(Decision { state, facts }) = Model::decide(ticket.clone(), command, Time::from_micros(at)) else {
                    continue; // refused: by its type, nothing changed and nothing is told
                };
                let told: Vec<_> = facts.iter().map(|fact| fact.name).collect();
                let changed = ticket.as_ref() != Some(&state);
                prop_assert!(told.len() <= 1 && facts.iter().all(|fact| fact.subject == ORDER));
                for fact in &facts {
                    let event = CoffeeQueued::decode(fact.payload.clone())?;
                    prop_assert_eq!(event.ticket, Some(state.to_wire()), "a fact is the whole ticket");
                }
                if let Some(before) = &ticket {
                    prop_assert_eq!((before.ticket_id, before.number), (state.ticket_id, state.number), "one ticket");
                    prop_assert_eq!(&before.lines, &state.lines);
                    prop_assert_eq!(state.revision - before.revision, i64::from(changed));
                    if let Command::Cancel { .. } = command {
                        let late = matches!(before.state, State::Making | State::Made);
                        prop_assert_eq!(told == ["CancelRefused"], late, "told each time, and only then");
                        prop_assert!(!late || !changed);
                    }
                } else if let Command::Cancel { .. } = command {
                    prop_assert!(state.is_tombstone() && state.state == State::Cancelled);
                }
                prop_assert_eq!(changed, !told.is_empty() && told != ["CancelRefused"], "a change is told, and only a change");
                brews += i32::from(told == ["CoffeeStarted"]);
                prop_assert!(brews <= 1, "one brew");
                granted |= told == ["CoffeeCancelled"];
                prop_assert!(!granted || matches!(state.state, State::Cancelled | State::Rejected), "a granted cancel stays");
                ticket = Some(state);
            }
        }
    }
}
