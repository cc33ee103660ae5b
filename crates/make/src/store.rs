//! Where tickets are kept, and how they are found.

use crate::{
    roll,
    ticket::{Bar, Column, Command, Entity, Key, Model as Ticket, State},
};
use contract::page::Page;
use journal::{Table, Watched, bytes, create_clustered, create_index, create_partial_index};
use sea_orm::{
    ColumnTrait, Condition, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait,
    QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
    sea_query::{self, ColumnDef, Expr, Index},
};
use sea_orm_migration::{
    MigrationName, MigrationTrait, MigratorTrait, SchemaManager, async_trait::async_trait,
};
use uuid::Uuid;

/// Tickets that the bar still has to do with. Written out and not bound, or a partial index is not found by it.
const OPEN: &str = "state <= 2";

impl Table for Ticket {
    fn find(keys: Vec<Key>) -> Select<Entity> {
        let (mut orders, mut tickets) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                Key::Order(id) => orders.push(id),
                Key::Ticket(id) => tickets.push(id),
            }
        }
        // a batch often knows its tickets by only one of the two: no OR then
        let mut any = Condition::any();
        if !orders.is_empty() {
            any = any.add(Column::OrderId.is_in(orders));
        }
        if !tickets.is_empty() {
            any = any.add(Column::TicketId.is_in(tickets));
        }
        Entity::find().filter(any)
    }

    fn moving() -> Vec<Column> {
        vec![
            Column::State,
            Column::BaristaId,
            Column::StateReason,
            Column::StateNote,
            Column::UpdateTime,
            Column::Revision,
        ]
    }

    /// Each ticket to be queued draws its number.
    async fn prepare(tx: &DatabaseTransaction, commands: Vec<&mut Command>) -> Result<(), DbErr> {
        let mut numbers = Vec::new();
        for command in commands {
            if let Command::Queue { number, .. } = command {
                numbers.push(number);
            }
        }
        if !numbers.is_empty() {
            let drawn = roll::draw(tx, numbers.len()).await?;
            numbers.into_iter().zip(drawn).for_each(|(number, drawn)| *number = drawn);
        }
        Ok(())
    }
}

impl Watched for Ticket {
    type Interest = Bar;

    fn interest(&self) -> Option<Bar> {
        (!self.is_tombstone()).then_some(Bar)
    }

    fn revision(&self) -> i64 {
        self.revision
    }

    fn has_ended(&self) -> bool {
        match self.state {
            State::Queued | State::Making => false,
            State::Made | State::Rejected | State::Cancelled => true,
        }
    }

    fn open(_bar: Vec<Bar>, after: Option<&Self>) -> Select<Entity> {
        open_after(after.map(|last| last.ticket_id))
    }
}

/// What selects the tickets of a list; its `Debug` text is what a page token is bound to.
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
) -> Result<Vec<Ticket>, DbErr> {
    let mut tickets = tickets();
    if !filter.states.is_empty() {
        tickets = tickets.filter(Column::State.is_in(filter.states.iter().copied()));
        if filter.states.iter().all(|state| [1, 2].contains(state)) {
            tickets = journal::by_index(tickets, "tickets_open").filter(Expr::cust(OPEN));
        }
    }
    if !filter.customer_id.is_empty() {
        tickets = tickets.filter(Column::CustomerId.eq(&filter.customer_id));
    }
    tickets
        .apply_if(filter.order_id, |tickets, id| tickets.filter(Column::OrderId.eq(id)))
        .apply_if(page.before, |tickets, id| tickets.filter(Column::TicketId.lt(id)))
        .order_by_desc(Column::TicketId)
        .limit(page.limit())
        .all(pool)
        .await
}

pub(crate) async fn get(
    pool: &DatabaseConnection,
    ticket_id: Uuid,
) -> Result<Option<Ticket>, DbErr> {
    tickets().filter(Column::TicketId.eq(ticket_id)).one(pool).await
}

/// At most 1,000 open tickets, oldest first, beginning after the one given.
pub(crate) async fn open(
    pool: &DatabaseConnection,
    after: Option<Uuid>,
) -> Result<Vec<Ticket>, DbErr> {
    open_after(after).limit(1000).all(pool).await
}

fn open_after(after: Option<Uuid>) -> Select<Entity> {
    journal::by_index(Entity::find(), "tickets_open")
        .filter(Expr::cust(OPEN))
        .apply_if(after, |tickets, id| tickets.filter(Column::TicketId.gt(id)))
        .order_by_asc(Column::TicketId)
}

/// The numbers of open tickets, as part of a query.
pub(crate) fn open_numbers() -> sea_query::SelectStatement {
    Entity::find().select_only().column(Column::Number).filter(Expr::cust(OPEN)).into_query()
}

/// All but the tombstones.
fn tickets() -> Select<Entity> {
    Entity::find().filter(Column::Number.gt(0))
}

/// Of these orders, those that the bar has nothing to do with any more.
pub(crate) async fn settled(
    pool: DatabaseConnection,
    orders: Vec<Uuid>,
) -> Result<Vec<Uuid>, DbErr> {
    let ended = [State::Made, State::Rejected, State::Cancelled];
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
        let own = [Step::Tickets, Step::ById, Step::ByCustomer, Step::Open, Step::Roll];
        let own = own.into_iter().map(|step| -> Box<dyn MigrationTrait> { Box::new(step) });
        journal::migrations().into_iter().chain(own).collect()
    }
}

/// Each is one statement, which may run twice: not every database can undo half of a change to its tables.
enum Step {
    Tickets,
    ById,
    ByCustomer,
    Open,
    Roll,
}

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Tickets => "make_0001_tickets",
            Self::ById => "make_0002_tickets_by_id",
            Self::ByCustomer => "make_0003_tickets_by_customer",
            Self::Open => "make_0004_open_tickets",
            Self::Roll => "make_0005_roll",
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
            Self::Tickets => create_clustered(manager, tickets_table(manager)).await,
            Self::ById => {
                let mut index = index("tickets_by_id");
                create_index(manager, index.unique().col(Column::TicketId).take()).await
            }
            Self::ByCustomer => {
                let mut index = index("tickets_by_customer");
                index.col(Column::CustomerId).col(Column::TicketId);
                create_index(manager, index).await
            }
            Self::Open => {
                let (index, state) = (index("tickets_open"), Column::State);
                create_partial_index(manager, index, state, Column::TicketId, OPEN).await
            }
            Self::Roll => roll::create(manager).await,
        }
    }
}

fn tickets_table(manager: &SchemaManager<'_>) -> sea_query::TableCreateStatement {
    let column = |column| ColumnDef::new(column).not_null().take();
    sea_query::Table::create()
        .if_not_exists()
        .table(Entity)
        .col(column(Column::OrderId).uuid().primary_key())
        .col(column(Column::TicketId).uuid())
        .col(column(Column::CorrelationId).uuid())
        .col(column(Column::CustomerId).string_len(64))
        .col(column(Column::Number).integer())
        .col(bytes(manager, &mut column(Column::Lines)))
        .col(column(Column::State).integer())
        .col(column(Column::BaristaId).string_len(64))
        .col(column(Column::StateReason).string_len(40))
        .col(column(Column::StateNote).string_len(200))
        .col(column(Column::CreateTime).big_integer())
        .col(column(Column::UpdateTime).big_integer())
        .col(column(Column::Revision).big_integer())
        .take()
}
