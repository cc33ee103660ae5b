//! Where payments are kept, and how they are found.

use crate::payment::{Column, Entity, Model as Payment, State};
use contract::{page::Page, payment::v1::PaymentState};
use journal::{Table, bytes, create_clustered, create_index, create_partial_index};
use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select,
    sea_query::{ColumnDef, Expr, Index, TableCreateStatement},
};
use sea_orm_migration::{
    MigrationName, MigrationTrait, MigratorTrait, SchemaManager, async_trait::async_trait,
};
use uuid::Uuid;

/// Payments of which the provider is still to be told. Written out and not bound, or a partial index is not found by it.
const OWED: &str = "state IN (4, 6)";

impl Table for Payment {
    fn find(orders: Vec<Uuid>) -> Select<Entity> {
        Entity::find().filter(Column::OrderId.is_in(orders))
    }

    fn moving() -> Vec<Column> {
        vec![
            Column::RefundedMinor,
            Column::State,
            Column::StateReason,
            Column::StateNote,
            Column::UpdateTime,
            Column::Revision,
        ]
    }
}

/// What selects the payments of a list; its `Debug` text is what a page token is bound to.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// Empty: all.
    pub(crate) states: Vec<PaymentState>,
    /// Empty: everybody's.
    pub(crate) customer_id: String,
    pub(crate) order_id: Option<Uuid>,
}

/// One row more than the page holds, newest first.
pub(crate) async fn list(
    pool: &DatabaseConnection,
    filter: &Filter,
    page: &Page,
) -> Result<Vec<Payment>, DbErr> {
    let mut payments = Entity::find();
    if !filter.states.is_empty() {
        let states = filter.states.iter().flat_map(|state| State::shown_as(*state)).copied();
        payments = payments.filter(Column::State.is_in(states));
    }
    if !filter.customer_id.is_empty() {
        payments = payments.filter(Column::CustomerId.eq(&filter.customer_id));
    }
    payments
        .apply_if(filter.order_id, |payments, id| payments.filter(Column::OrderId.eq(id)))
        .apply_if(page.before, |payments, id| payments.filter(Column::PaymentId.lt(id)))
        .order_by_desc(Column::PaymentId)
        .limit(page.limit())
        .all(pool)
        .await
}

pub(crate) async fn get(
    pool: &DatabaseConnection,
    payment_id: Uuid,
) -> Result<Option<Payment>, DbErr> {
    Entity::find().filter(Column::PaymentId.eq(payment_id)).one(pool).await
}

/// The orders whose charge is to be undone, those that wait longest first, at most so many.
pub(crate) async fn owed(pool: &DatabaseConnection, most: u64) -> Result<Vec<Payment>, DbErr> {
    let owed = journal::by_index(Entity::find(), "payments_owed").filter(Expr::cust(OWED));
    owed.order_by_asc(Column::UpdateTime).limit(most).all(pool).await
}

/// Of these orders, those whose money is where it belongs, as far as is known here: nobody tells Payment that a coffee is made.
pub(crate) async fn settled(
    pool: DatabaseConnection,
    orders: Vec<Uuid>,
) -> Result<Vec<Uuid>, DbErr> {
    let ended = [State::Approved, State::Declined, State::Voided, State::Cancelled];
    Entity::find()
        .select_only()
        .column(Column::OrderId)
        .filter(Column::OrderId.is_in(orders))
        .filter(Column::State.is_in(ended))
        .into_tuple()
        .all(&pool)
        .await
}

pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let own = [Step::Payments, Step::ById, Step::ByCustomer, Step::Owed];
        let own = own.into_iter().map(|step| -> Box<dyn MigrationTrait> { Box::new(step) });
        journal::migrations().into_iter().chain(own).collect()
    }
}

/// Each is one statement, which may run twice: not every database can undo half of a change to its tables.
enum Step {
    Payments,
    ById,
    ByCustomer,
    Owed,
}

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Payments => "payment_0001_payments",
            Self::ById => "payment_0002_payments_by_id",
            Self::ByCustomer => "payment_0003_payments_by_customer",
            Self::Owed => "payment_0004_owed_payments",
        }
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "async_trait cannot match the trait otherwise")]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let index = |name: &str| Index::create().if_not_exists().name(name).table(Entity).take();
        match self {
            Self::Payments => create_clustered(manager, payments_table(manager)).await,
            Self::ById => {
                let mut index = index("payments_by_id");
                create_index(manager, index.unique().col(Column::PaymentId).take()).await
            }
            Self::ByCustomer => {
                let mut index = index("payments_by_customer");
                index.col(Column::CustomerId).col(Column::PaymentId);
                create_index(manager, index).await
            }
            Self::Owed => {
                // only a payment that is undone ever enters it, where that can be said
                let (index, state) = (index("payments_owed"), Column::State);
                create_partial_index(manager, index, state, Column::UpdateTime, OWED).await
            }
        }
    }
}

fn payments_table(manager: &SchemaManager<'_>) -> TableCreateStatement {
    let column = |column| ColumnDef::new(column).not_null().take();
    TableCreateStatement::new()
        .if_not_exists()
        .table(Entity)
        .col(column(Column::OrderId).uuid().primary_key())
        .col(column(Column::PaymentId).uuid())
        .col(column(Column::CorrelationId).uuid())
        .col(column(Column::CustomerId).string_len(64))
        .col(bytes(manager, &mut column(Column::Lines)))
        .col(column(Column::AmountMinor).big_integer())
        .col(column(Column::RefundedMinor).big_integer())
        .col(column(Column::Currency).string_len(3))
        .col(column(Column::State).integer())
        .col(column(Column::StateReason).string_len(40))
        .col(column(Column::StateNote).string_len(200))
        .col(column(Column::CreateTime).big_integer())
        .col(column(Column::UpdateTime).big_integer())
        .col(column(Column::Revision).big_integer())
        .take()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sea_orm::{ActiveEnum, Iterable};

    #[test]
    fn the_index_of_owed_payments_holds_what_the_undoer_wants() {
        let owed =
            State::iter().filter(|state| [State::Refunding, State::VoidOwed].contains(state));
        let owed: Vec<_> = owed.map(|state| state.to_value().to_string()).collect();
        assert_eq!(OWED, format!("state IN ({})", owed.join(", ")));
    }
}
