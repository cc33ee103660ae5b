//! An order as its customer sees it: a merge of all that was heard of it. It decides nothing, refuses nothing, and ends the
//! same whatever came first or twice. Pure.

use crate::history::{Entry, History, News, Part};
use contract::money::{Currency, Money};
use contract::{
    google::r#type::Money as WireMoney,
    mypage::v1 as wire,
    order::v1::OrderState,
    status::{BAR_REJECTED, CUSTOMER_CANCELLED, OPERATOR_CANCELLED},
    types::v1::LineItem,
};
use journal::{Decision, Noun, Time};
use prost::Message;
use sea_orm::entity::prelude::*;
use std::convert::Infallible;

/// A customer's order, which is a row of `my_orders`.
///
/// Its parts may be heard of before the order itself: until then it has no customer, and is on nobody's page.
#[sea_orm::model]
#[derive(Clone, Debug, Default, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "my_orders")]
pub struct Model {
    /// Which order.
    #[sea_orm(primary_key, auto_increment = false)]
    pub order_id: Uuid,
    /// Whose it is; empty until the order itself is heard of.
    pub customer_id: String,
    /// What was ordered: the contract's `MyOrder` with nothing but its lines, encoded.
    pub lines: Vec<u8>,
    /// In which all amounts are.
    pub currency: String,
    /// What it costs, in minor units.
    pub total_minor: i64,
    /// What was charged, net of refunds, in minor units.
    pub charged_minor: i64,
    /// The ticket's number; 0 while there is none.
    pub number: i32,
    /// How it stands, by the contract's number: an index for lists, derived from the history.
    pub state: i32,
    /// The customer's words on its end.
    pub order_note: String,
    /// The operator's.
    pub payment_note: String,
    /// The barista's.
    pub ticket_note: String,
    /// When it was accepted.
    pub create_time: Time,
    /// When the newest event merged here was published.
    pub as_of_time: Time,
    /// All revisions heard of its parts: what everything else follows from.
    pub history: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

/// What an event tells of an order.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Of which order.
    pub order_id: Uuid,
    /// When it was published.
    pub event_time: Time,
    pub(crate) entry: Entry,
    pub(crate) shown: Shown,
}

/// What is shown of a part as it is, beside its state.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    Order { customer_id: String, lines: Vec<u8>, total: Money, note: String, create_time: Time },
    Payment { charged_minor: i64, note: String },
    Ticket { number: i32, note: String },
}

impl Noun for Model {
    type Key = Uuid;
    type Command = Heard;
    type Refusal = Infallible;

    fn key(heard: &Heard) -> Uuid {
        heard.order_id
    }

    fn keys(&self) -> impl IntoIterator<Item = Uuid> {
        [self.order_id]
    }

    /// It tells nothing, so nothing needs it.
    fn correlation_id(&self) -> Uuid {
        Uuid::nil()
    }

    fn decide(
        current: Option<Self>,
        heard: &Heard,
        _now: Time,
    ) -> Result<Decision<Self>, Infallible> {
        let mut order =
            current.unwrap_or_else(|| Self { order_id: heard.order_id, ..Self::default() });
        order.merge(heard);
        Ok(order.into())
    }
}

impl Model {
    fn merge(&mut self, heard: &Heard) {
        self.as_of_time = std::cmp::max(self.as_of_time, heard.event_time);
        let mut history = History::decode(&self.history);
        let news = history.add(heard.entry);
        if news == News::Newest {
            self.show(&heard.shown);
            self.state = history.known().state().into();
        }
        if news != News::Nothing {
            self.history = history.encode();
        }
    }

    fn show(&mut self, shown: &Shown) {
        match shown {
            Shown::Order { customer_id, lines, total, note, create_time } => {
                self.customer_id.clone_from(customer_id);
                self.lines.clone_from(lines);
                self.currency = total.currency.to_string();
                self.total_minor = total.minor;
                self.order_note.clone_from(note);
                self.create_time = *create_time;
            }
            Shown::Payment { charged_minor, note } => {
                self.charged_minor = *charged_minor;
                self.payment_note.clone_from(note);
            }
            Shown::Ticket { number, note } => {
                self.number = *number;
                self.ticket_note.clone_from(note);
            }
        }
    }

    /// Takes over what another row of the same order knows: as if all events had been heard here that were heard there.
    pub(crate) fn join(&mut self, other: &Self) {
        self.as_of_time = std::cmp::max(self.as_of_time, other.as_of_time);
        let mut history = History::decode(&self.history);
        for entry in History::decode(&other.history).entries() {
            // of each part the last one that is newest here is also the newest there
            if history.add(*entry) == News::Newest {
                self.take(entry.part(), other);
            }
        }
        self.state = history.known().state().into();
        self.history = history.encode();
    }

    fn take(&mut self, part: Part, other: &Self) {
        match part {
            Part::Order => {
                self.customer_id.clone_from(&other.customer_id);
                self.lines.clone_from(&other.lines);
                self.currency.clone_from(&other.currency);
                self.total_minor = other.total_minor;
                self.order_note.clone_from(&other.order_note);
                self.create_time = other.create_time;
            }
            Part::Payment => {
                self.charged_minor = other.charged_minor;
                self.payment_note.clone_from(&other.payment_note);
            }
            Part::Ticket => {
                self.number = other.number;
                self.ticket_note.clone_from(&other.ticket_note);
            }
        }
    }

    /// The sum of its parts' revisions.
    #[must_use]
    pub fn revision(&self) -> i64 {
        History::decode(&self.history).revision()
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_wire(&self) -> wire::MyOrder {
        let history = History::decode(&self.history);
        let reason = history.known().reason();
        let note = match reason {
            BAR_REJECTED => &self.ticket_note,
            OPERATOR_CANCELLED => &self.payment_note,
            CUSTOMER_CANCELLED => &self.order_note,
            _ => "",
        };
        let states = history.states().into_iter();
        wire::MyOrder {
            order_id: self.order_id.to_string(),
            total: self.money(self.total_minor),
            charged: self.money(self.charged_minor),
            state: self.state,
            state_reason: reason.to_owned(),
            state_note: note.to_owned(),
            number: self.number,
            history: states.map(|(state, time)| shown_state(state, time)).collect(),
            create_time: Some(self.create_time.into()),
            update_time: Some(history.update_time().into()),
            revision: history.revision(),
            ..wire::MyOrder::decode(&*self.lines).expect("the row's lines are our own encoding")
        }
    }

    fn money(&self, minor: i64) -> Option<WireMoney> {
        let currency: Currency = self.currency.parse().ok()?;
        Some(Money { minor, currency }.to_wire())
    }
}

fn shown_state(state: OrderState, time: Time) -> wire::MyOrderHistory {
    wire::MyOrderHistory { state: state.into(), event_time: Some(time.into()) }
}

/// The lines as the row keeps them.
pub(crate) fn encode_lines(lines: Vec<LineItem>) -> Vec<u8> {
    wire::MyOrder { lines, ..Default::default() }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Standing;
    use contract::{make::v1::TicketState, payment::v1::PaymentState};
    use proptest::{collection::vec, prelude::*, sample::Index};

    /// The events that three services might publish of one order: each revision of a part always says the same, repeats of
    /// it (another event, published later) included.
    fn story() -> impl Strategy<Value = Vec<Heard>> {
        let orders = vec((any::<bool>(), 0..90_i64, "[a-z ]{0,5}"), 0..4);
        let payments = vec((1..6_i32, 0..90_i64, "[a-z ]{0,5}"), 0..5);
        let tickets = vec((1..6_i32, 0..90_i64, "[a-z ]{0,5}"), 0..5);
        (orders, payments, tickets).prop_map(|(orders, payments, tickets)| {
            let orders = (1..).zip(orders).map(|(revision, (cancel_requested, at, note))| {
                let total = Money { minor: 900, currency: "USD".parse().expect("a currency") };
                let shown = Shown::Order {
                    customer_id: "kim".to_owned(),
                    lines: Vec::new(),
                    total,
                    note,
                    create_time: Time::from_micros(1),
                };
                heard(revision * 2, Standing::Order { cancel_requested }, at, shown)
            });
            let payments = (1..).zip(payments).map(|(revision, (state, at, note))| {
                let state = PaymentState::try_from(state).expect("a state");
                let shown = Shown::Payment { charged_minor: revision * 100, note };
                heard(revision, Standing::Payment(state), at, shown)
            });
            let tickets = (1..).zip(tickets).map(|(revision, (state, at, note))| {
                let state = TicketState::try_from(state).expect("a state");
                let shown = Shown::Ticket { number: state.into(), note };
                heard(revision, Standing::Ticket(state), at, shown)
            });
            orders.chain(payments).chain(tickets).collect()
        })
    }

    fn heard(revision: i64, standing: Standing, at: i64, shown: Shown) -> Heard {
        let time = Time::from_micros(at);
        let entry = Entry { revision, standing, time };
        Heard {
            order_id: Uuid::from_u128(1),
            event_time: Time::from_micros(at + revision),
            entry,
            shown,
        }
    }

    fn merged<'a>(story: impl IntoIterator<Item = &'a Heard>) -> Option<Model> {
        story.into_iter().fold(None, |order, heard| {
            let Ok(decision) = Model::decide(order, heard, Time::from_micros(0));
            assert!(decision.facts.is_empty(), "it publishes nothing");
            Some(decision.state)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn any_permutation_with_any_repeats_ends_in_the_same_row(
            (story, shuffled) in story().prop_flat_map(|story| (Just(story.clone()), Just(story).prop_shuffle())),
            repeats in vec((any::<Index>(), any::<Index>()), 0..8),
        ) {
            let mut told = shuffled;
            for (which, place) in repeats {
                if !told.is_empty() {
                    let again = told[which.index(told.len())].clone();
                    told.insert(place.index(told.len() + 1), again);
                }
            }
            let (one, other) = (merged(&story), merged(&told));
            prop_assert_eq!(&one, &other);
            let Some(order) = one else { return Ok(()) };
            let wire = order.to_wire();
            prop_assert_eq!(wire.revision, order.revision());
            prop_assert_eq!(wire.history.last().map(|last| last.state), Some(order.state), "the history ends in the state");
            prop_assert_eq!(order.customer_id.is_empty(), order.create_time == Time::default(), "listed once the order is known");
            prop_assert_eq!(merged(told.iter().chain(&story)), Some(order), "a replay changes nothing");
        }

        #[test]
        fn two_rows_that_each_heard_a_part_of_the_story_join_to_the_whole(
            (story, places) in story().prop_flat_map(|story| {
                let len = story.len();
                (Just(story), vec(0..3_u8, len))
            }),
        ) {
            // each event was heard here, there, or on both sides
            let heard = |deaf: u8| {
                story.iter().zip(&places).filter(move |(_, place)| **place != deaf).map(|(heard, _)| heard)
            };
            let (here, there) = (merged(heard(1)), merged(heard(2)));
            let joined = match (here, there) {
                (Some(mut here), Some(there)) => {
                    here.join(&there);
                    Some(here)
                }
                (here, there) => here.or(there),
            };
            prop_assert_eq!(joined, merged(&story));
        }
    }
}
