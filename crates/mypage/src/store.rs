//! Where customers' orders are kept, and how they are found.

use crate::{
    my_order::{Column, Entity, Model as MyOrder},
    next,
};
use contract::{order::v1::OrderState, page::Page, status};
use journal::{Table, Time, Watched, bytes, create_clustered, create_index};
use sea_orm::{
    ColumnTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait, FromQueryResult, Iterable,
    QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
    sea_query::{self, ColumnDef, ExprTrait as _, Index},
};
use sea_orm_migration::{
    MigrationName, MigrationTrait, MigratorTrait, SchemaManager, async_trait::async_trait,
};
use uuid::Uuid;

/// The states that an order does not stay in.
const OPEN: [OrderState; 4] =
    [OrderState::Placed, OrderState::Paid, OrderState::Making, OrderState::Cancelling];

/// The index of what is shown, by whose orders they are.
pub(crate) const BY_CUSTOMER: &str = "my_orders_by_customer";

impl Table for MyOrder {
    fn find(orders: Vec<Uuid>) -> Select<Entity> {
        Entity::find().filter(Column::OrderId.is_in(orders))
    }

    /// Any part may be heard of first, so any column may come later.
    fn moving() -> Vec<Column> {
        Column::iter().filter(|column| !matches!(column, Column::OrderId)).collect()
    }
}

/// A customer watches all orders of theirs.
impl Watched for MyOrder {
    type Interest = String;

    /// Nobody's, until the order itself is heard of.
    fn interest(&self) -> Option<String> {
        (!self.customer_id.is_empty()).then(|| self.customer_id.clone())
    }

    fn revision(&self) -> i64 {
        self.revision()
    }

    fn has_ended(&self) -> bool {
        OrderState::try_from(self.state).is_ok_and(status::is_final)
    }

    fn open(customers: Vec<String>, after: Option<&Self>) -> Select<Entity> {
        journal::by_index(Entity::find(), BY_CUSTOMER)
            .filter(Column::CustomerId.is_in(customers))
            .filter(Column::State.is_in(OPEN.map(i32::from)))
            .apply_if(after, |orders, last| orders.filter(Column::OrderId.gt(last.order_id)))
            .order_by_asc(Column::OrderId)
    }
}

/// What selects the orders of a list; its `Debug` text is what a page token is bound to.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) customer_id: String,
    /// Empty: all.
    pub(crate) states: Vec<i32>,
    pub(crate) order_id: Option<Uuid>,
}

/// One row more than the page holds, newest first.
pub(crate) async fn list(
    pool: &DatabaseConnection,
    filter: &Filter,
    page: &Page,
) -> Result<Vec<MyOrder>, DbErr> {
    let mut orders = of(&filter.customer_id);
    if !filter.states.is_empty() {
        orders = orders.filter(Column::State.is_in(filter.states.iter().copied()));
    }
    orders
        .apply_if(filter.order_id, |orders, id| orders.filter(Column::OrderId.eq(id)))
        .apply_if(page.before, |orders, id| orders.filter(Column::OrderId.lt(id)))
        .order_by_desc(Column::OrderId)
        .limit(page.limit())
        .all(pool)
        .await
}

/// The newest open orders, newest first.
pub(crate) async fn open(
    pool: &DatabaseConnection,
    customer_id: &str,
    most: u64,
) -> Result<Vec<MyOrder>, DbErr> {
    open_of(customer_id).order_by_desc(Column::OrderId).limit(most).all(pool).await
}

/// The newest orders that have ended, newest first.
pub(crate) async fn ended(
    pool: &DatabaseConnection,
    customer_id: &str,
    most: u64,
) -> Result<Vec<MyOrder>, DbErr> {
    let ended = of(customer_id).filter(Column::State.is_not_in(OPEN.map(i32::from)));
    ended.order_by_desc(Column::OrderId).limit(most).all(pool).await
}

/// At most 1,000 open orders, oldest first, beginning after the one given.
pub(crate) async fn open_after(
    pool: &DatabaseConnection,
    customer_id: &str,
    after: Option<Uuid>,
) -> Result<Vec<MyOrder>, DbErr> {
    open_of(customer_id)
        .apply_if(after, |orders, id| orders.filter(Column::OrderId.gt(id)))
        .order_by_asc(Column::OrderId)
        .limit(1000)
        .all(pool)
        .await
}

/// All of a customer's orders together; what is unset needs at least one order.
#[derive(Debug, FromQueryResult)]
pub(crate) struct Sum {
    pub(crate) order_count: i64,
    pub(crate) spent_minor: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) as_of_time: Option<Time>,
}

pub(crate) async fn sum(pool: &DatabaseConnection, customer_id: &str) -> Result<Sum, DbErr> {
    // other databases sum BIGINT to a decimal
    let integer = match pool.get_database_backend() {
        DbBackend::MySql => "SIGNED",
        _ => "BIGINT",
    };
    of(customer_id)
        .select_only()
        .column_as(Column::OrderId.count(), "order_count")
        .column_as(Column::ChargedMinor.sum().cast_as(integer), "spent_minor")
        .column_as(Column::Currency.max(), "currency")
        .column_as(Column::AsOfTime.max(), "as_of_time")
        .into_model()
        .one(pool)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("a sum over no rows is a row".to_owned()))
}

fn of(customer_id: &str) -> Select<Entity> {
    journal::by_index(Entity::find(), BY_CUSTOMER).filter(Column::CustomerId.eq(customer_id))
}

fn open_of(customer_id: &str) -> Select<Entity> {
    debug_assert!(!OPEN.into_iter().any(status::is_final));
    of(customer_id).filter(Column::State.is_in(OPEN.map(i32::from)))
}

pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let own = [Step::MyOrders, Step::ByCustomer, Step::Rebuilds];
        let own = own.into_iter().map(|step| -> Box<dyn MigrationTrait> { Box::new(step) });
        journal::migrations().into_iter().chain(own).collect()
    }
}

/// Each is one statement, which may run twice: not every database can undo half of a change to its tables.
enum Step {
    MyOrders,
    ByCustomer,
    Rebuilds,
}

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::MyOrders => "mypage_0001_my_orders",
            Self::ByCustomer => "mypage_0002_my_orders_by_customer",
            Self::Rebuilds => "mypage_0003_rebuilds",
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
        match self {
            Self::MyOrders => create(manager, "my_orders").await,
            Self::ByCustomer => index(manager, "my_orders", BY_CUSTOMER).await,
            Self::Rebuilds => {
                let rebuilds = sea_query::Table::create()
                    .if_not_exists()
                    .table(next::REBUILDS)
                    .col(ColumnDef::new("id").uuid().not_null().primary_key())
                    .take();
                create_clustered(manager, rebuilds).await
            }
        }
    }
}

/// Creates a table of customers' orders: that which is shown, or the next.
pub(crate) async fn create(manager: &SchemaManager<'_>, table: &'static str) -> Result<(), DbErr> {
    create_clustered(manager, my_orders_table(manager, table)).await
}

/// Creates the index of such a table, by whose orders they are.
pub(crate) async fn index(
    manager: &SchemaManager<'_>,
    table: &'static str,
    name: &str,
) -> Result<(), DbErr> {
    let index = Index::create()
        .if_not_exists()
        .name(name)
        .table(table)
        .col(Column::CustomerId)
        .col(Column::OrderId)
        .take();
    create_index(manager, index).await
}

fn my_orders_table(
    manager: &SchemaManager<'_>,
    table: &'static str,
) -> sea_query::TableCreateStatement {
    let column = |column| ColumnDef::new(column).not_null().take();
    sea_query::Table::create()
        .if_not_exists()
        .table(table)
        .col(column(Column::OrderId).uuid().primary_key())
        .col(column(Column::CustomerId).string_len(64))
        .col(bytes(manager, &mut column(Column::Lines)))
        .col(column(Column::Currency).string_len(3))
        .col(column(Column::TotalMinor).big_integer())
        .col(column(Column::ChargedMinor).big_integer())
        .col(column(Column::Number).integer())
        .col(column(Column::State).integer())
        .col(column(Column::OrderNote).string_len(200))
        .col(column(Column::PaymentNote).string_len(200))
        .col(column(Column::TicketNote).string_len(200))
        .col(column(Column::CreateTime).big_integer())
        .col(column(Column::AsOfTime).big_integer())
        .col(bytes(manager, &mut column(Column::History)))
        .take()
}
