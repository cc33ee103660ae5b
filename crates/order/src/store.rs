//! Where orders are kept, and how they are found.

use crate::order::{Column, Entity, Key, Model as Order};
use contract::{order::v1::OrderState, page::Page, status};
use journal::{Table, Time, Watched, bytes, create_clustered, create_index, create_partial_index};
use sea_orm::{
    ColumnTrait, Condition, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, Select,
    sea_query::{self, ColumnDef, Expr, Index},
};
use sea_orm_migration::{
    MigrationName, MigrationTrait, MigratorTrait, SchemaManager, async_trait::async_trait,
};
use uuid::Uuid;

/// PLACED, or CANCELLING while no payment is known. Written out and not bound, or a partial index is not found by it.
const UNSETTLED: &str = "(state = 1 OR (state = 5 AND payment_state = 0))";

impl Table for Order {
    fn find(keys: Vec<Key>) -> Select<Entity> {
        let (mut orders, mut requests) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                Key::Order(id) => orders.push(id),
                Key::Request(key) => requests.push(key),
            }
        }
        // a batch often knows its orders by only one of the two: no OR then
        let mut any = Condition::any();
        if !orders.is_empty() {
            any = any.add(Column::OrderId.is_in(orders));
        }
        if !requests.is_empty() {
            any = any.add(Column::RequestKey.is_in(requests));
        }
        Entity::find().filter(any)
    }

    fn moving() -> Vec<Column> {
        vec![
            Column::CancelRequestedTime,
            Column::CancelNote,
            Column::PaymentState,
            Column::PaymentRevision,
            Column::PaymentNote,
            Column::TicketState,
            Column::TicketRevision,
            Column::TicketNote,
            Column::State,
            Column::UpdateTime,
            Column::Revision,
        ]
    }
}

/// One order is watched by its id, and looked for to its end.
impl Watched for Order {
    type Interest = Uuid;

    fn interest(&self) -> Option<Uuid> {
        Some(self.order_id)
    }

    fn revision(&self) -> i64 {
        self.revision
    }

    fn has_ended(&self) -> bool {
        status::is_final(self.known().state())
    }

    fn open(orders: Vec<Uuid>, after: Option<&Self>) -> Select<Entity> {
        Entity::find()
            .filter(Column::OrderId.is_in(orders))
            .apply_if(after, |orders, last| orders.filter(Column::OrderId.gt(last.order_id)))
            .order_by_asc(Column::OrderId)
    }
}

/// What selects the orders of a list; its `Debug` text is what a page token is bound to.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// Empty: all.
    pub(crate) states: Vec<i32>,
    /// Empty: everybody's.
    pub(crate) customer_id: String,
    pub(crate) order_id: Option<Uuid>,
}

/// One row more than the page holds, newest first.
pub(crate) async fn list(
    pool: &DatabaseConnection,
    filter: &Filter,
    page: &Page,
) -> Result<Vec<Order>, DbErr> {
    let mut orders = Entity::find();
    if !filter.states.is_empty() {
        orders = orders.filter(Column::State.is_in(filter.states.iter().copied()));
    }
    if !filter.customer_id.is_empty() {
        orders = orders.filter(Column::CustomerId.eq(&filter.customer_id));
    }
    orders
        .apply_if(filter.order_id, |orders, id| orders.filter(Column::OrderId.eq(id)))
        .apply_if(page.before, |orders, id| orders.filter(Column::OrderId.lt(id)))
        .order_by_desc(Column::OrderId)
        .limit(page.limit())
        .all(pool)
        .await
}

pub(crate) async fn get(pool: &DatabaseConnection, id: Uuid) -> Result<Option<Order>, DbErr> {
    Entity::find_by_id(id).one(pool).await
}

pub(crate) async fn by_request(
    pool: &DatabaseConnection,
    request_key: Uuid,
) -> Result<Option<Order>, DbErr> {
    Entity::find().filter(Column::RequestKey.eq(request_key)).one(pool).await
}

/// Orders whose payment nobody has told us of: those PLACED before `placed`, and those CANCELLING and unchanged since
/// `cancelled`. Oldest first, at most `most`, without `except`.
pub(crate) async fn unsettled(
    pool: &DatabaseConnection,
    placed: Time,
    cancelled: Time,
    except: Vec<Uuid>,
    most: u64,
) -> Result<Vec<Order>, DbErr> {
    let of = |state: OrderState| Condition::all().add(Column::State.eq(i32::from(state)));
    let placed = of(OrderState::Placed).add(Column::CreateTime.lte(placed));
    let cancelled = of(OrderState::Cancelling).add(Column::UpdateTime.lte(cancelled));
    journal::by_index(Entity::find(), "orders_unsettled")
        .filter(Expr::cust(UNSETTLED))
        .filter(Condition::any().add(placed).add(cancelled))
        .apply_if((!except.is_empty()).then_some(except), |orders, except| {
            orders.filter(Column::OrderId.is_not_in(except))
        })
        .order_by_asc(Column::CreateTime)
        .limit(most)
        .all(pool)
        .await
}

/// Of these orders, those that have ended.
pub(crate) async fn settled(
    pool: DatabaseConnection,
    orders: Vec<Uuid>,
) -> Result<Vec<Uuid>, DbErr> {
    let ended = [OrderState::Ready, OrderState::Cancelled, OrderState::Rejected].map(i32::from);
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
        let own = [Step::Orders, Step::ByRequest, Step::ByCustomer, Step::Unsettled];
        let own = own.into_iter().map(|step| -> Box<dyn MigrationTrait> { Box::new(step) });
        journal::migrations().into_iter().chain(own).collect()
    }
}

/// Each is one statement, which may run twice: not every database can undo half of a change to its tables.
enum Step {
    Orders,
    ByRequest,
    ByCustomer,
    Unsettled,
}

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Orders => "order_0001_orders",
            Self::ByRequest => "order_0002_orders_by_request",
            Self::ByCustomer => "order_0003_orders_by_customer",
            Self::Unsettled => "order_0004_unsettled_orders",
        }
    }
}

#[async_trait]
#[allow(
    elided_lifetimes_in_paths,
    reason = "async_trait makes it another signature than the trait's"
)]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let index = |name: &str| Index::create().if_not_exists().name(name).table(Entity).take();
        match self {
            Self::Orders => create_clustered(manager, orders_table(manager)).await,
            Self::ByRequest => {
                let mut index = index("orders_by_request");
                create_index(manager, index.unique().col(Column::RequestKey).take()).await
            }
            Self::ByCustomer => {
                let mut index = index("orders_by_customer");
                index.col(Column::CustomerId).col(Column::OrderId);
                create_index(manager, index).await
            }
            Self::Unsettled => {
                // as small as the number of orders being paid, where it can be
                let (index, state) = (index("orders_unsettled"), Column::State);
                create_partial_index(manager, index, state, Column::CreateTime, UNSETTLED).await
            }
        }
    }
}

fn orders_table(manager: &SchemaManager<'_>) -> sea_query::TableCreateStatement {
    let column = |column| ColumnDef::new(column).not_null().take();
    sea_query::Table::create()
        .if_not_exists()
        .table(Entity)
        .col(column(Column::OrderId).uuid().primary_key())
        .col(column(Column::RequestKey).uuid())
        .col(column(Column::CorrelationId).uuid())
        .col(column(Column::BodyHash).binary_len(32))
        .col(column(Column::CustomerId).string_len(64))
        .col(bytes(manager, &mut column(Column::Lines)))
        .col(column(Column::TotalMinor).big_integer())
        .col(column(Column::Currency).string_len(3))
        .col(column(Column::CreateTime).big_integer())
        .col(ColumnDef::new(Column::CancelRequestedTime).big_integer().null())
        .col(column(Column::CancelNote).string_len(200))
        .col(column(Column::PaymentState).integer())
        .col(column(Column::PaymentRevision).big_integer())
        .col(column(Column::PaymentNote).string_len(200))
        .col(column(Column::TicketState).integer())
        .col(column(Column::TicketRevision).big_integer())
        .col(column(Column::TicketNote).string_len(200))
        .col(column(Column::State).integer())
        .col(column(Column::UpdateTime).big_integer())
        .col(column(Column::Revision).big_integer())
        .take()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::payment::v1::PaymentState;

    #[test]
    fn the_index_of_unsettled_orders_holds_what_the_settler_wants() {
        let [placed, cancelling] = [OrderState::Placed, OrderState::Cancelling].map(i32::from);
        let unknown = i32::from(PaymentState::Unspecified);
        assert_eq!(
            UNSETTLED,
            format!("(state = {placed} OR (state = {cancelling} AND payment_state = {unknown}))")
        );
    }
}
