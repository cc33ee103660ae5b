//! The provider's ledger: what became of each key. The provider's promises are kept here and nowhere else: the same key
//! gets the same answer, and after a cancel it is never charged. Pure, and its table.

use contract::{
    money::{Currency, Money},
    page::Page,
    payment::v1 as wire,
};
use journal::{Decision, Noun, Table, Time};
use sea_orm::{
    QueryOrder, QuerySelect, QueryTrait, Select,
    entity::prelude::*,
    sea_query::{ColumnDef, TableCreateStatement},
};
use sea_orm_migration::{
    MigrationName, MigrationTrait, MigratorTrait, SchemaManager, async_trait::async_trait,
};

/// The currency of a cancel that came before its charge: ISO 4217's "no currency".
const NO_CURRENCY: &str = "XXX";

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i32", db_type = "Integer")]
pub enum State {
    /// The money was taken.
    Charged = 1,
    /// The card was declined.
    Declined = 2,
    /// The money was taken and given back.
    Refunded = 3,
    /// It was cancelled before any money was taken.
    Cancelled = 4,
}

/// A line of the ledger, which is a row of `charges`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "charges")]
pub struct Model {
    /// The key, by which lists are ordered, too: orders have a `UUIDv7`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub order_id: Uuid,
    /// What was, or was to be, taken, in minor units.
    pub amount_minor: i64,
    /// What was given back of it.
    pub refunded_minor: i64,
    /// The currency of both.
    pub currency: String,
    /// What became of it.
    pub state: State,
    /// When the provider first heard of the key.
    pub create_time: Time,
}

impl ActiveModelBehavior for ActiveModel {}

/// All that the ledger can be told.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Take money.
    Charge {
        /// The key.
        order_id: Uuid,
        /// How much.
        amount: Money,
        /// Whether the card is good for it; asked only once for each key.
        approved: bool,
    },
    /// Give back what was taken, and never take any.
    Cancel {
        /// The key.
        order_id: Uuid,
    },
}

/// Why the provider said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key was cancelled.
    #[error("the charge was cancelled before")]
    Cancelled,
    /// The key was used with another amount.
    #[error("the key was used with another amount")]
    OtherAmount,
}

impl Noun for Model {
    type Key = Uuid;
    type Command = Command;
    type Refusal = Refusal;

    fn key(command: &Command) -> Uuid {
        match command {
            Command::Charge { order_id, .. } | Command::Cancel { order_id } => *order_id,
        }
    }

    fn keys(&self) -> impl IntoIterator<Item = Uuid> {
        [self.order_id]
    }

    fn correlation_id(&self) -> Uuid {
        self.order_id
    }

    fn decide(
        current: Option<Self>,
        command: &Command,
        now: Time,
    ) -> Result<Decision<Self>, Refusal> {
        match *command {
            Command::Charge { order_id, amount, approved } => match current {
                None => {
                    let state = if approved { State::Charged } else { State::Declined };
                    Ok(Self::new(order_id, amount.minor, amount.currency.code(), state, now).into())
                }
                Some(charge) => charge.repeated(amount).map(Decision::from),
            },
            Command::Cancel { order_id } => {
                let unheard_of = || Self::new(order_id, 0, NO_CURRENCY, State::Cancelled, now);
                Ok(current.map_or_else(unheard_of, Self::cancelled).into())
            }
        }
    }
}

impl Model {
    fn new(order_id: Uuid, amount_minor: i64, currency: &str, state: State, now: Time) -> Self {
        let currency = currency.to_owned();
        Self { order_id, amount_minor, refunded_minor: 0, currency, state, create_time: now }
    }

    fn repeated(self, amount: Money) -> Result<Self, Refusal> {
        match self.state {
            State::Refunded | State::Cancelled => Err(Refusal::Cancelled),
            State::Charged | State::Declined
                if self.amount_minor == amount.minor && self.currency == amount.currency.code() =>
            {
                Ok(self)
            }
            State::Charged | State::Declined => Err(Refusal::OtherAmount),
        }
    }

    fn cancelled(self) -> Self {
        match self.state {
            State::Charged => {
                Self { state: State::Refunded, refunded_minor: self.amount_minor, ..self }
            }
            State::Declined => Self { state: State::Cancelled, ..self },
            State::Refunded | State::Cancelled => self,
        }
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_wire(&self) -> wire::Charge {
        let currency: Currency =
            self.currency.parse().expect("the row's currency is our own spelling");
        let money = |minor| Some(Money { minor, currency }.to_wire());
        wire::Charge {
            order_id: self.order_id.to_string(),
            amount: money(self.amount_minor),
            refunded: money(self.refunded_minor),
            create_time: Some(self.create_time.into()),
        }
    }
}

impl Table for Model {
    fn find(orders: Vec<Uuid>) -> Select<Entity> {
        Entity::find().filter(Column::OrderId.is_in(orders))
    }

    fn moving() -> Vec<Column> {
        vec![Column::RefundedMinor, Column::State]
    }
}

/// The charges that took money, newest first, one more than the page holds; of one order, or of all.
pub(crate) async fn list(
    pool: &DatabaseConnection,
    order_id: Option<Uuid>,
    page: &Page,
) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::State.is_in([State::Charged, State::Refunded]))
        .apply_if(order_id, |charges, id| charges.filter(Column::OrderId.eq(id)))
        .apply_if(page.before, |charges, id| charges.filter(Column::OrderId.lt(id)))
        .order_by_desc(Column::OrderId)
        .limit(page.limit())
        .all(pool)
        .await
}

pub(crate) async fn find(
    pool: &DatabaseConnection,
    order_id: Uuid,
) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(order_id).one(pool).await
}

pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Charges)] // it publishes nothing: no outbox
    }
}

struct Charges;

impl MigrationName for Charges {
    fn name(&self) -> &'static str {
        "provider_0001_charges"
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "async_trait cannot match the trait otherwise")]
impl MigrationTrait for Charges {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = |column| ColumnDef::new(column).not_null().take();
        let table = TableCreateStatement::new()
            .if_not_exists()
            .table(Entity)
            .col(column(Column::OrderId).uuid().primary_key())
            .col(column(Column::AmountMinor).big_integer())
            .col(column(Column::RefundedMinor).big_integer())
            .col(column(Column::Currency).string_len(3))
            .col(column(Column::State).integer())
            .col(column(Column::CreateTime).big_integer())
            .take();
        journal::create_clustered(manager, table).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: Uuid = Uuid::from_u128(1);

    fn usd(minor: i64) -> Money {
        Money { minor, currency: "USD".parse().expect("a currency") }
    }

    fn charge(minor: i64, approved: bool) -> Command {
        Command::Charge { order_id: ORDER, amount: usd(minor), approved }
    }

    fn cancel() -> Command {
        Command::Cancel { order_id: ORDER }
    }

    /// Tells a key one thing after the other: what became of it, and what the last answer was.
    fn told(commands: &[Command]) -> (Model, Result<(), Refusal>) {
        let (mut charge, mut answer) = (None, Ok(()));
        for (at, command) in (1..).zip(commands) {
            match Model::decide(charge.clone(), command, Time::from_micros(at)) {
                Ok(decision) => (charge, answer) = (Some(decision.state), Ok(())),
                Err(refusal) => answer = Err(refusal),
            }
        }
        (charge.expect("a line of the ledger"), answer)
    }

    #[test]
    fn the_same_key_gets_the_same_answer() {
        let (line, answer) = told(&[charge(450, true), charge(450, false)]);
        assert_eq!((line.state, answer), (State::Charged, Ok(())));
        let (line, answer) = told(&[charge(450, false), charge(450, true)]);
        assert_eq!((line.state, answer), (State::Declined, Ok(())));
    }

    #[test]
    fn a_key_is_bound_to_its_amount() {
        let (line, answer) = told(&[charge(450, true), charge(451, true)]);
        assert_eq!((line.amount_minor, answer), (450, Err(Refusal::OtherAmount)));
    }

    #[test]
    fn a_charge_after_a_cancel_fails() {
        let (line, answer) = told(&[cancel(), charge(450, true)]);
        assert_eq!(
            (line.state, line.amount_minor, answer),
            (State::Cancelled, 0, Err(Refusal::Cancelled))
        );
        let (line, answer) = told(&[charge(450, false), cancel(), charge(450, true)]);
        assert_eq!((line.state, answer), (State::Cancelled, Err(Refusal::Cancelled)));
    }

    #[test]
    fn a_cancel_gives_back_what_was_taken_once() {
        let (line, answer) = told(&[charge(450, true), cancel(), cancel(), charge(450, true)]);
        assert_eq!((line.state, answer), (State::Refunded, Err(Refusal::Cancelled)));
        assert_eq!((line.amount_minor, line.refunded_minor), (450, 450));
        assert_eq!(line.to_wire().refunded, line.to_wire().amount);
    }
}
