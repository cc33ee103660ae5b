//! The payment: one row decides "is it paid?". It is recorded once, by who comes first: an answer of the provider, or a
//! word that the order is never to be charged. Once money is on its way back, nothing stops it. Pure.

use contract::{
    money::{Currency, Money},
    payment::v1::{
        self as wire, PaymentApproved, PaymentCancelRequested, PaymentCancelled, PaymentDeclined,
        PaymentState,
    },
    status::{OPERATOR_CANCELLED, PAYMENT_DECLINED},
    types::v1::LineItem,
};
use journal::{Decision, Noun, Time};
use prost::{Message, Name};
use sea_orm::entity::prelude::*;

/// How a payment stands. Two states that others see are two each here: whether the provider has yet to be told is
/// nobody's business but the undoer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i32", db_type = "Integer")]
pub enum State {
    /// The money was taken.
    Approved = 1,
    /// The card was declined; nothing was taken.
    Declined = 2,
    /// An operator asked for a cancel; the bar has not answered. Shown as `CANCEL_PENDING`.
    CancelAsked = 3,
    /// The bar agreed, so nothing moves it back: the provider is to be told. Shown as `CANCEL_PENDING`.
    Refunding = 4,
    /// The money was given back.
    Cancelled = 5,
    /// The order is never charged; the provider is to be told. Shown as VOIDED.
    VoidOwed = 6,
    /// The order is never charged, and the provider knows.
    Voided = 7,
}

/// A payment, which is a row of `payments`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "payments")]
pub struct Model {
    /// The order it pays: there is at most one payment for it. The provider's key, too.
    #[sea_orm(primary_key, auto_increment = false)]
    pub order_id: Uuid,
    /// A `UUIDv7`, by which lists are ordered.
    pub payment_id: Uuid,
    /// The request that began the order.
    pub correlation_id: Uuid,
    /// Who pays.
    pub customer_id: String,
    /// What is paid for: the contract's payment with nothing but its lines, encoded.
    pub lines: Vec<u8>,
    /// What was, or was to be, charged, in minor units; 0 if the order was voided before anybody asked.
    pub amount_minor: i64,
    /// What was given back of it.
    pub refunded_minor: i64,
    /// The currency of both.
    pub currency: String,
    /// How it stands.
    pub state: State,
    /// Why it was declined or cancelled.
    pub state_reason: String,
    /// The same in people's own words.
    pub state_note: String,
    /// When it was recorded.
    pub create_time: Time,
    /// When it last changed.
    pub update_time: Time,
    /// Grows with each change.
    pub revision: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// All that a payment can be told.
#[derive(Clone, Debug)]
pub enum Command {
    /// The provider has answered.
    Record {
        /// Whose order it is.
        order: Order,
        /// What was charged.
        amount: Money,
        /// What is paid for.
        lines: Vec<LineItem>,
        /// Whether it was.
        approved: bool,
    },
    /// Never charge this order.
    Void {
        /// Whose order it is.
        order: Order,
        /// The shop's.
        currency: Currency,
    },
    /// An operator asks for a cancel.
    Ask {
        /// Which order's payment.
        order_id: Uuid,
        /// Why, in the operator's words.
        note: String,
    },
    /// The coffee will not be made.
    CoffeeCancelled {
        /// Whose order it is.
        order: Order,
        /// The shop's.
        currency: Currency,
        /// Why.
        reason: String,
        /// The same in people's own words.
        note: String,
    },
    /// The barista had begun.
    CancelRefused {
        /// Which order's payment.
        order_id: Uuid,
    },
    /// The provider has acknowledged the cancel.
    Undone {
        /// Which order's payment.
        order_id: Uuid,
    },
}

/// The order that a command is about.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its id.
    pub order_id: Uuid,
    /// The id of its payment, if this is the first that Payment hears of it.
    pub payment_id: Uuid,
    /// Who ordered.
    pub customer_id: String,
    /// The request that began it.
    pub correlation_id: Uuid,
}

/// Why a payment said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such payment.
    #[error("there is no such payment")]
    NotFound,
    /// The order is never charged.
    #[error("the order was voided: it is never charged")]
    Voided,
    /// The order was charged with another amount.
    #[error("the order was charged with another amount")]
    OtherAmount,
    /// Nothing was charged that could be given back.
    #[error("the payment is {0}: there is no money to give back")]
    State(State),
}

impl Noun for Model {
    type Key = Uuid;
    type Command = Command;
    type Refusal = Refusal;

    fn key(command: &Command) -> Uuid {
        match command {
            Command::Record { order, .. }
            | Command::Void { order, .. }
            | Command::CoffeeCancelled { order, .. } => order.order_id,
            Command::Ask { order_id, .. }
            | Command::CancelRefused { order_id }
            | Command::Undone { order_id } => *order_id,
        }
    }

    fn keys(&self) -> impl IntoIterator<Item = Uuid> {
        [self.order_id]
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
            Command::Record { order, amount, lines, approved } => match current {
                None => Ok(Self::recorded(order, *amount, lines, *approved, now)),
                Some(payment) => payment.repeated(*amount).map(Decision::from),
            },
            Command::Void { order, currency } => {
                Ok(current.unwrap_or_else(|| Self::void(order, *currency, now)).into())
            }
            Command::Ask { note, .. } => current.ok_or(Refusal::NotFound)?.ask(note, now),
            Command::CoffeeCancelled { order, currency, reason, note } => Ok(match current {
                None => Self::void(order, *currency, now).because(reason, note),
                Some(payment) => payment.refund(reason, note, now),
            }
            .into()),
            Command::CancelRefused { .. } => Ok(current.ok_or(Refusal::NotFound)?.restore(now)),
            Command::Undone { .. } => Ok(current.ok_or(Refusal::NotFound)?.undone(now)),
        }
    }
}

impl Model {
    fn recorded(
        order: &Order,
        amount: Money,
        lines: &[LineItem],
        approved: bool,
        now: Time,
    ) -> Decision<Self> {
        let lines = wire::Payment { lines: lines.to_vec(), ..Default::default() }.encode_to_vec();
        let state = if approved { State::Approved } else { State::Declined };
        let void = Self::void(order, amount.currency, now);
        let payment = Self { lines, amount_minor: amount.minor, state, ..void };
        if approved {
            payment.tells(|payment| PaymentApproved { payment })
        } else {
            payment.because(PAYMENT_DECLINED, "").tells(|payment| PaymentDeclined { payment })
        }
    }

    /// Others hear of it when the provider knows: until then money may have been taken that is on its way back.
    fn void(order: &Order, currency: Currency, now: Time) -> Self {
        Self {
            order_id: order.order_id,
            payment_id: order.payment_id,
            correlation_id: order.correlation_id,
            customer_id: order.customer_id.clone(),
            lines: Vec::new(),
            amount_minor: 0,
            refunded_minor: 0,
            currency: currency.to_string(),
            state: State::VoidOwed,
            state_reason: String::new(),
            state_note: String::new(),
            create_time: now,
            update_time: now,
            revision: 1,
        }
    }

    /// What a charge hears when something is recorded already.
    ///
    /// # Errors
    /// [`Refusal::Voided`] and [`Refusal::OtherAmount`].
    pub fn repeated(self, amount: Money) -> Result<Self, Refusal> {
        match self.state {
            State::VoidOwed | State::Voided => Err(Refusal::Voided),
            _ if self.amount_minor != amount.minor || self.currency != amount.currency.code() => {
                Err(Refusal::OtherAmount)
            }
            State::Approved
            | State::Declined
            | State::CancelAsked
            | State::Refunding
            | State::Cancelled => Ok(self),
        }
    }

    fn ask(self, note: &str, now: Time) -> Result<Decision<Self>, Refusal> {
        match self.state {
            State::Approved => Ok(self
                .becomes(State::CancelAsked, now)
                .because(OPERATOR_CANCELLED, note)
                .tells(|payment| PaymentCancelRequested { payment })),
            State::CancelAsked | State::Refunding | State::Cancelled => Ok(self.into()),
            state @ (State::Declined | State::VoidOwed | State::Voided) => {
                Err(Refusal::State(state))
            }
        }
    }

    /// By its own state and never by the ticket's revision: an event may come late, twice, or after a newer one.
    fn refund(self, reason: &str, note: &str, now: Time) -> Self {
        match self.state {
            State::Approved | State::CancelAsked => {
                self.becomes(State::Refunding, now).because(reason, note)
            }
            State::Declined
            | State::Refunding
            | State::Cancelled
            | State::VoidOwed
            | State::Voided => self,
        }
    }

    fn restore(self, now: Time) -> Decision<Self> {
        match self.state {
            State::CancelAsked => self
                .becomes(State::Approved, now)
                .because("", "")
                .tells(|payment| PaymentApproved { payment }),
            State::Approved
            | State::Declined
            | State::Refunding
            | State::Cancelled
            | State::VoidOwed
            | State::Voided => self.into(),
        }
    }

    fn undone(self, now: Time) -> Decision<Self> {
        let state = match self.state {
            State::Refunding => State::Cancelled,
            State::VoidOwed => State::Voided,
            State::Approved
            | State::Declined
            | State::CancelAsked
            | State::Cancelled
            | State::Voided => return self.into(),
        };
        // a void row knows of no amount: there, nothing was taken for good
        let refunded_minor = self.amount_minor;
        let payment = Self { refunded_minor, ..self.becomes(state, now) };
        payment.tells(|payment| PaymentCancelled { payment })
    }

    /// Whether the provider is still to be told to cancel.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        matches!(self.state, State::Refunding | State::VoidOwed)
    }

    fn becomes(self, state: State, now: Time) -> Self {
        Self { state, update_time: now, revision: self.revision + 1, ..self }
    }

    fn because(self, reason: &str, note: &str) -> Self {
        Self { state_reason: reason.to_owned(), state_note: note.to_owned(), ..self }
    }

    fn tells<E: Message + Name>(
        self,
        event: impl FnOnce(Option<wire::Payment>) -> E,
    ) -> Decision<Self> {
        let event = event(Some(self.to_wire()));
        let subject = self.order_id;
        Decision::from(self).and(subject, &event)
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_wire(&self) -> wire::Payment {
        let currency = self.currency.parse().expect("the row's currency is our own spelling");
        let money = |minor| Some(Money { minor, currency }.to_wire());
        wire::Payment {
            payment_id: self.payment_id.to_string(),
            order_id: self.order_id.to_string(),
            customer_id: self.customer_id.clone(),
            amount: money(self.amount_minor),
            refunded: money(self.refunded_minor),
            state: PaymentState::from(self.state).into(),
            state_reason: self.state_reason.clone(),
            state_note: self.state_note.clone(),
            create_time: Some(self.create_time.into()),
            update_time: Some(self.update_time.into()),
            revision: self.revision,
            ..wire::Payment::decode(&*self.lines).expect("the row's lines are our own encoding")
        }
    }
}

impl State {
    /// The states that others see as this one; empty for none.
    #[must_use]
    pub fn shown_as(state: PaymentState) -> &'static [Self] {
        match state {
            PaymentState::Unspecified => &[],
            PaymentState::Approved => &[Self::Approved],
            PaymentState::Declined => &[Self::Declined],
            PaymentState::Voided => &[Self::VoidOwed, Self::Voided],
            PaymentState::CancelPending => &[Self::CancelAsked, Self::Refunding],
            PaymentState::Cancelled => &[Self::Cancelled],
        }
    }
}

impl From<State> for PaymentState {
    fn from(state: State) -> Self {
        match state {
            State::Approved => Self::Approved,
            State::Declined => Self::Declined,
            State::CancelAsked | State::Refunding => Self::CancelPending,
            State::Cancelled => Self::Cancelled,
            State::VoidOwed | State::Voided => Self::Voided,
        }
    }
}

/// As people see it: `APPROVED`.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = PaymentState::from(*self).as_str_name();
        f.write_str(name.trim_start_matches("PAYMENT_STATE_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{self, Charge};
    use contract::status::{BAR_REJECTED, CUSTOMER_CANCELLED};
    use proptest::{collection::vec, prelude::*};
    use sea_orm::Iterable as _;

    const ORDER: Uuid = Uuid::from_u128(1);

    fn usd(minor: i64) -> Money {
        Money { minor, currency: "USD".parse().expect("a currency") }
    }

    fn order(payment: u128) -> Order {
        Order {
            order_id: ORDER,
            payment_id: Uuid::from_u128(payment),
            customer_id: "kim".to_owned(),
            correlation_id: Uuid::from_u128(7),
        }
    }

    fn latte() -> LineItem {
        LineItem { menu_item_id: "latte".to_owned(), quantity: 2, ..Default::default() }
    }

    fn record(approved: bool) -> Command {
        Command::Record { order: order(2), amount: usd(900), lines: vec![latte()], approved }
    }

    fn void() -> Command {
        Command::Void { order: order(3), currency: usd(0).currency }
    }

    fn ask() -> Command {
        Command::Ask { order_id: ORDER, note: "spilt".to_owned() }
    }

    fn coffee_cancelled(reason: &str) -> Command {
        Command::CoffeeCancelled {
            order: order(4),
            currency: usd(0).currency,
            reason: reason.to_owned(),
            note: "in a hurry".to_owned(),
        }
    }

    fn cancel_refused() -> Command {
        Command::CancelRefused { order_id: ORDER }
    }

    fn undone() -> Command {
        Command::Undone { order_id: ORDER }
    }

    /// Tells a payment one thing after the other: how it ends, what was told of it, and what the last answer was.
    fn told(commands: &[Command]) -> (Option<Model>, Vec<&'static str>, Result<(), Refusal>) {
        let (mut payment, mut facts, mut answer) = (None, Vec::new(), Ok(()));
        for (at, command) in (1..).zip(commands) {
            match Model::decide(payment.clone(), command, Time::from_micros(at)) {
                Ok(decision) => {
                    payment = Some(decision.state);
                    facts.extend(decision.facts.iter().map(|fact| fact.name));
                    answer = Ok(());
                }
                Err(refusal) => answer = Err(refusal),
            }
        }
        (payment, facts, answer)
    }

    #[test]
    fn an_approved_charge_is_recorded_once() {
        let (payment, facts, answer) = told(&[record(true), record(true), void()]);
        let payment = payment.expect("a payment").to_wire();
        assert_eq!(payment.payment_id, Uuid::from_u128(2).to_string());
        assert_eq!((payment.state(), payment.revision), (PaymentState::Approved, 1));
        assert_eq!((payment.amount, payment.lines), (Some(usd(900).to_wire()), vec![latte()]));
        assert_eq!((facts, answer), (vec!["PaymentApproved"], Ok(())));
    }

    #[test]
    fn a_declined_card_is_an_answer() {
        let all = [record(false), record(false), void(), coffee_cancelled(CUSTOMER_CANCELLED)];
        let (payment, facts, answer) = told(&all);
        let payment = payment.expect("a payment");
        assert_eq!((payment.state, payment.revision, answer), (State::Declined, 1, Ok(())));
        assert_eq!(
            (payment.state_reason.as_str(), facts),
            (PAYMENT_DECLINED, vec!["PaymentDeclined"])
        );
    }

    #[test]
    fn an_order_is_charged_with_one_amount() {
        let other = Command::Record {
            order: order(5),
            amount: usd(901),
            lines: vec![latte()],
            approved: true,
        };
        let (payment, facts, answer) = told(&[record(true), other]);
        assert_eq!(
            (payment.expect("a payment").amount_minor, answer),
            (900, Err(Refusal::OtherAmount))
        );
        assert_eq!(facts, ["PaymentApproved"]);
    }

    #[test]
    fn a_voided_order_is_never_charged() {
        for owed in
            [vec![void()], vec![void(), undone()], vec![coffee_cancelled(CUSTOMER_CANCELLED)]]
        {
            let (before, ..) = told(&owed);
            let (payment, _, answer) = told(&[owed, vec![record(true)]].concat());
            assert_eq!((payment, answer), (before.clone(), Err(Refusal::Voided)));
            let payment = before.expect("a payment").to_wire();
            assert_eq!(
                (payment.state(), payment.amount),
                (PaymentState::Voided, Some(usd(0).to_wire()))
            );
        }
    }

    #[test]
    fn others_hear_of_a_void_when_the_provider_knows() {
        let (_, facts, _) = told(&[void()]);
        assert!(facts.is_empty());
        let (payment, facts, _) = told(&[void(), undone(), undone(), void()]);
        let payment = payment.expect("a payment");
        assert_eq!((payment.state, payment.revision), (State::Voided, 2));
        assert_eq!(
            (payment.to_wire().refunded, facts),
            (Some(usd(0).to_wire()), vec!["PaymentCancelled"])
        );
    }

    #[test]
    fn a_cancelled_coffee_is_paid_back() {
        let (payment, facts, _) = told(&[record(true), coffee_cancelled(BAR_REJECTED)]);
        let payment = payment.expect("a payment");
        assert_eq!(payment.state, State::Refunding);
        assert_eq!(payment.to_wire().state(), PaymentState::CancelPending);
        assert_eq!(facts, ["PaymentApproved"], "the money is not back yet");
        let again = [coffee_cancelled(CUSTOMER_CANCELLED), cancel_refused(), undone(), undone()];
        let first = [record(true), coffee_cancelled(BAR_REJECTED)];
        let (payment, facts, _) = told(&[&first[..], &again[..]].concat());
        let payment = payment.expect("a payment").to_wire();
        assert_eq!((payment.state(), payment.revision), (PaymentState::Cancelled, 3));
        assert_eq!(
            (payment.state_reason.as_str(), payment.state_note.as_str()),
            (BAR_REJECTED, "in a hurry")
        );
        assert_eq!(payment.refunded, payment.amount);
        assert_eq!(facts, ["PaymentApproved", "PaymentCancelled"]);
    }

    #[test]
    fn the_bar_decides_what_an_operator_asks() {
        let (payment, facts, _) = told(&[record(true), ask(), ask()]);
        let payment = payment.expect("a payment");
        assert_eq!((payment.state, payment.revision), (State::CancelAsked, 2));
        assert_eq!(
            (payment.state_reason.as_str(), payment.state_note.as_str()),
            (OPERATOR_CANCELLED, "spilt")
        );
        assert_eq!(facts, ["PaymentApproved", "PaymentCancelRequested"]);

        let (payment, facts, _) = told(&[record(true), ask(), cancel_refused(), cancel_refused()]);
        let payment = payment.expect("a payment");
        assert_eq!((payment.state, payment.revision), (State::Approved, 3));
        assert_eq!((payment.state_reason.as_str(), payment.state_note.as_str()), ("", ""));
        assert_eq!(facts, ["PaymentApproved", "PaymentCancelRequested", "PaymentApproved"]);

        let granted = [record(true), ask(), coffee_cancelled(OPERATOR_CANCELLED)];
        assert_eq!(told(&granted).0.expect("a payment").state, State::Refunding);
    }

    #[test]
    fn only_money_that_was_taken_is_given_back() {
        for (state, before) in [(State::Declined, record(false)), (State::VoidOwed, void())] {
            assert_eq!(told(&[before, ask()]).2, Err(Refusal::State(state)));
        }
        for nothing in [ask(), cancel_refused(), undone()] {
            assert_eq!(told(&[nothing]).2, Err(Refusal::NotFound));
        }
        assert_eq!(
            Refusal::State(State::VoidOwed).to_string(),
            "the payment is VOIDED: there is no money to give back"
        );
    }

    #[test]
    fn every_state_is_shown_as_one_state() {
        for state in State::iter() {
            let shown: Vec<_> = (0..=5)
                .map(|n| PaymentState::try_from(n).expect("a state"))
                .filter(|shown| State::shown_as(*shown).contains(&state))
                .collect();
            assert_eq!(shown, [PaymentState::from(state)]);
        }
    }

    /// Something that happens to one order, at any moment and in any order.
    #[derive(Clone, Debug)]
    enum Step {
        /// A call of Pay begins. The card is good or not, which only the first may matter.
        Pay { good: bool },
        /// One of the calls that run goes one step on.
        GoOn { call: usize },
        /// The process of one of them dies.
        Die { call: usize },
        /// The undoer takes the payment to the provider, if it is owed.
        Tell,
        /// The provider's acknowledgement is recorded; or never, when the process died.
        Acknowledge { lost: bool },
        /// Anything else that a payment can be told.
        Hear(Word),
    }

    #[derive(Clone, Copy, Debug)]
    enum Word {
        Void,
        Ask,
        CoffeeCancelled,
        CancelRefused,
    }

    fn step() -> impl Strategy<Value = Step> {
        let word = prop_oneof![
            Just(Word::Void),
            Just(Word::Ask),
            Just(Word::CoffeeCancelled),
            Just(Word::CancelRefused)
        ];
        prop_oneof![
            2 => any::<bool>().prop_map(|good| Step::Pay { good }),
            4 => (0..3_usize).prop_map(|call| Step::GoOn { call }),
            1 => (0..3_usize).prop_map(|call| Step::Die { call }),
            2 => Just(Step::Tell),
            2 => any::<bool>().prop_map(|lost| Step::Acknowledge { lost }),
            2 => word.prop_map(Step::Hear),
        ]
    }

    /// A call of Pay between two of its steps.
    #[derive(Clone, Copy)]
    enum Call {
        /// Nothing was recorded when it looked.
        Looked { good: bool },
        /// The provider has answered.
        Answered { approved: bool },
    }

    /// One order's payment, its provider, and all that is under way between them.
    #[derive(Default)]
    struct World {
        clock: i64,
        payment: Option<Model>,
        charge: Option<Charge>,
        calls: Vec<Call>,
        acknowledgements: usize,
    }

    impl World {
        fn takes(&mut self, step: &Step) {
            match *step {
                Step::Pay { good } if self.payment.is_none() => {
                    self.calls.push(Call::Looked { good });
                }
                Step::GoOn { call } if call < self.calls.len() => self.goes_on(call),
                Step::Die { call } if call < self.calls.len() => drop(self.calls.swap_remove(call)),
                Step::Tell if self.payment.as_ref().is_some_and(Model::is_owed) => {
                    self.ask_provider(provider::Command::Cancel { order_id: ORDER })
                        .expect("a cancel is never refused");
                    self.acknowledgements += 1;
                }
                Step::Acknowledge { lost } if self.acknowledgements > 0 => {
                    self.acknowledgements -= 1;
                    if !lost {
                        self.tell(&undone());
                    }
                }
                Step::Hear(word) => self.tell(&match word {
                    Word::Void => void(),
                    Word::Ask => ask(),
                    Word::CoffeeCancelled => coffee_cancelled(CUSTOMER_CANCELLED),
                    Word::CancelRefused => cancel_refused(),
                }),
                _ => {} // nothing there to happen to
            }
        }

        fn goes_on(&mut self, call: usize) {
            match self.calls[call] {
                Call::Looked { good: approved } => {
                    let charge =
                        provider::Command::Charge { order_id: ORDER, amount: usd(900), approved };
                    match self.ask_provider(charge) {
                        Ok(state) => {
                            self.calls[call] =
                                Call::Answered { approved: state == provider::State::Charged }
                        }
                        Err(_cancelled) => drop(self.calls.swap_remove(call)),
                    }
                }
                Call::Answered { approved } => {
                    self.calls.swap_remove(call);
                    self.tell(&record(approved));
                }
            }
        }

        fn ask_provider(
            &mut self,
            command: provider::Command,
        ) -> Result<provider::State, provider::Refusal> {
            let decision =
                Charge::decide(self.charge.clone(), &command, Time::from_micros(self.clock))?;
            let state = decision.state.state;
            self.charge = Some(decision.state);
            Ok(state)
        }

        fn tell(&mut self, command: &Command) {
            self.clock += 1;
            let before = self.payment.clone();
            let Ok(decision) =
                Model::decide(before.clone(), command, Time::from_micros(self.clock))
            else {
                return; // a refusal changes nothing
            };
            let after = decision.state;
            assert!(
                allowed(before.as_ref().map(|b| b.state), after.state),
                "{before:?} became {after:?}"
            );
            let moved = before.as_ref() != Some(&after);
            assert_eq!(after.revision, before.map_or(0, |b| b.revision) + i64::from(moved));
            assert!(moved || decision.facts.is_empty(), "a fact without a change");
            self.payment = Some(after);
        }

        fn money(&self) -> i64 {
            self.charge.as_ref().map_or(0, |charge| match charge.state {
                provider::State::Charged | provider::State::Refunded => {
                    charge.amount_minor - charge.refunded_minor
                }
                provider::State::Declined | provider::State::Cancelled => 0,
            })
        }

        fn check(&self) {
            assert!([0, 900].contains(&self.money()), "at most one charge");
            let Some(payment) = &self.payment else { return };
            match payment.state {
                State::Approved | State::CancelAsked => {
                    assert_eq!(self.money(), 900, "approved without money");
                }
                State::Declined => assert_eq!(self.money(), 0, "declined with money"),
                State::Cancelled | State::Voided => {
                    assert_eq!(self.money(), 0, "money kept");
                    let cancelled = [provider::State::Refunded, provider::State::Cancelled];
                    assert!(
                        self.charge
                            .as_ref()
                            .is_some_and(|charge| cancelled.contains(&charge.state)),
                        "the provider may charge it later"
                    );
                }
                State::Refunding | State::VoidOwed => {}
            }
            assert_eq!(
                payment.refunded_minor,
                if payment.state == State::Cancelled { 900 } else { 0 }
            );
        }
    }

    fn allowed(before: Option<State>, after: State) -> bool {
        use State::{Approved, CancelAsked, Cancelled, Declined, Refunding, VoidOwed, Voided};
        before == Some(after)
            || match before {
                None => [Approved, Declined, VoidOwed].contains(&after),
                Some(Approved) => [CancelAsked, Refunding].contains(&after),
                Some(CancelAsked) => [Approved, Refunding].contains(&after),
                Some(Refunding) => after == Cancelled,
                Some(VoidOwed) => after == Voided,
                Some(Declined | Cancelled | Voided) => false,
            }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn no_order_and_no_repetition_breaks_an_invariant(steps in vec(step(), 0..40)) {
            let mut world = World::default();
            for step in &steps {
                world.takes(step);
                world.check();
            }
            // quiet: Order settles what is not recorded, all calls end, and the undoer is never gone for long
            for step in [Step::Hear(Word::Void), Step::Tell, Step::Acknowledge { lost: false }] {
                world.takes(&step);
                while !world.calls.is_empty() {
                    world.goes_on(0);
                    world.check();
                }
                world.check();
            }
            let state = world.payment.as_ref().map(|payment| payment.state);
            let kept = [Some(State::Approved), Some(State::CancelAsked)].contains(&state);
            prop_assert_eq!(world.money(), if kept { 900 } else { 0 });
            prop_assert!(!world.payment.is_some_and(|payment| payment.is_owed()));
        }
    }
}
