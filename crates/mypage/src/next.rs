//! The next generation of what is shown: a table beside the one that serves, filled from events, which takes its place at once.
//!
//! What is heard meanwhile goes to the table that serves, as ever; in the end all it knows is joined into the next. A row joins
//! as its events merge, in any order and any number of times, so nothing that was ever shown is lost, whenever it was heard.
//! Names are what makes the change safe: a writer that runs in another process finds the table by its name, and waits for the
//! change or comes before it.

use crate::{
    my_order::{Column, Heard, Model as MyOrder},
    store,
};
use journal::{Noun as _, Time, Writer, writer};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, FromQueryResult, Iterable as _,
    Statement, StatementBuilder,
    sea_query::{
        Condition, Expr, ExprTrait as _, Func, IntoTableRef as _, JoinType, LockType, OnConflict,
        Order, Query,
    },
};
use sea_orm_migration::SchemaManager;
use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
};
use uuid::Uuid;

/// Which rebuild is under way: at most one row.
pub(crate) const REBUILDS: &str = "my_orders_rebuilds";
/// What is shown.
pub(crate) const SHOWN: &str = "my_orders";
/// What is built.
pub(crate) const NEXT: &str = "my_orders_next";
/// What was shown before, for the moment in which it is replaced.
const OLD: &str = "my_orders_old";
/// Orders looked at in one step: some milliseconds, in which nobody else can write.
const STEP: u64 = 5_000;
/// How often what was shown before is joined, when other writers come in between: each time one of them got on.
const MEND_ATTEMPTS: u32 = 10;
/// The name of the lock is the server's, which may have several databases; names are 64 characters at most.
const LOCK_NAME: &str = "SHA1(CONCAT('the generations of ', DATABASE()))";
/// Seconds to wait for it: less than a statement may take, because waiting for a lock is one.
const LOCK_WAIT: u32 = 4;

/// Begins an empty next generation; what another rebuild has made is gone.
pub(crate) async fn begin(tx: &DatabaseTransaction, rebuild: Uuid) -> Result<(), DbErr> {
    lock(tx).await?;
    let begun = begin_alone(tx, rebuild).await;
    unlock(tx).await;
    begun
}

async fn begin_alone(tx: &DatabaseTransaction, rebuild: Uuid) -> Result<(), DbErr> {
    mend_alone(tx).await?;
    let manager = SchemaManager::new(tx);
    tx.execute(&Query::delete().from_table(REBUILDS).take()).await?;
    let mut insert = Query::insert();
    insert.into_table(REBUILDS).columns(["id"]).values_panic([rebuild.into()]);
    tx.execute(&insert).await?;
    drop_table(tx, NEXT).await?;
    store::create(&manager, NEXT).await?;
    let name = match tx.get_database_backend() {
        // an index's name is its table's own, and orders are found by it
        DbBackend::MySql => store::BY_CUSTOMER.to_owned(),
        // an index keeps its name when its table gets another, so each has a name of its own
        _ => format!("{}_{}", store::BY_CUSTOMER, rebuild.simple()),
    };
    store::index(&manager, NEXT, &name).await
}

/// Whether this rebuild is the one under way.
pub(crate) async fn is_current(db: &impl ConnectionTrait, rebuild: Uuid) -> Result<bool, DbErr> {
    let mut query = Query::select();
    query.column("id").from(REBUILDS).and_where(Expr::col("id").eq(rebuild));
    Ok(db.query_one(&query).await?.is_some())
}

/// Merges what was heard into a generation.
pub(crate) async fn merge(
    tx: &DatabaseTransaction,
    table: &'static str,
    heard: &[Heard],
) -> Result<(), DbErr> {
    let ids: BTreeSet<Uuid> = heard.iter().map(|heard| heard.order_id).collect();
    let mut orders = load(tx, table, ids).await?;
    for heard in heard {
        let current = orders.remove(&heard.order_id);
        let Ok(decision) = MyOrder::decide(current, heard, Time::now());
        orders.insert(heard.order_id, decision.state);
    }
    save(tx, table, orders.into_values().collect()).await
}

/// The end of the step that begins after this order, none if all that is left fits into it.
pub(crate) async fn bound(
    db: &impl ConnectionTrait,
    table: &'static str,
    after: Option<Uuid>,
) -> Result<Option<Uuid>, DbErr> {
    let mut query = Query::select();
    query.column(Column::OrderId).from(table).order_by(Column::OrderId, Order::Asc);
    query.limit(1).offset(STEP - 1);
    if let Some(after) = after {
        query.and_where(Expr::col(Column::OrderId).gt(after));
    }
    let row = db.query_one(&query).await?;
    row.map(|row| row.try_get("", "order_id")).transpose()
}

/// The orders of a step of which one generation knows something that another does not seem to.
pub(crate) async fn behind(
    db: &impl ConnectionTrait,
    (from, to): (&'static str, &'static str),
    after: Option<Uuid>,
    until: Option<Uuid>,
) -> Result<Vec<Uuid>, DbErr> {
    let of = |table: &'static str, column: Column| Expr::col((table, column));
    let same = of(to, Column::OrderId).equals((from, Column::OrderId));
    let mut query = Query::select();
    query.column((from, Column::OrderId)).from(from).join(JoinType::LeftJoin, to, same);
    query.cond_where(
        Condition::any()
            .add(of(to, Column::OrderId).is_null())
            .add(of(to, Column::History).not_equals((from, Column::History)))
            .add(Expr::col((to, Column::AsOfTime)).lt(Expr::col((from, Column::AsOfTime)))),
    );
    if let Some(after) = after {
        query.and_where(of(from, Column::OrderId).gt(after));
    }
    if let Some(until) = until {
        query.and_where(of(from, Column::OrderId).lte(until));
    }
    let rows = db.query_all(&query).await?;
    rows.into_iter().map(|row| row.try_get("", "order_id")).collect()
}

/// Joins these orders, as one generation knows them, into another; how many of them knew something more.
pub(crate) async fn join(
    tx: &DatabaseTransaction,
    (from, to): (&'static str, &'static str),
    orders: Vec<Uuid>,
) -> Result<u64, DbErr> {
    let known = load(tx, from, orders.iter().copied().collect()).await?;
    let mut built = load(tx, to, orders.into_iter().collect()).await?;
    let mut more = Vec::new();
    for (id, known) in known {
        let Some(order) = built.remove(&id) else {
            more.push(known);
            continue;
        };
        let mut joined = order.clone();
        joined.join(&known);
        if joined != order {
            more.push(joined);
        }
    }
    let joined = u64::try_from(more.len()).unwrap_or(u64::MAX);
    save(tx, to, more).await?;
    Ok(joined)
}

/// Shows the next generation instead of the one shown, with all that this one knows; how many orders it has. None: another
/// rebuild has begun.
pub(crate) async fn swap(tx: &DatabaseTransaction, rebuild: Uuid) -> Result<Option<u64>, DbErr> {
    lock(tx).await?;
    let swapped = swap_alone(tx, rebuild).await;
    unlock(tx).await;
    swapped
}

async fn swap_alone(tx: &DatabaseTransaction, rebuild: Uuid) -> Result<Option<u64>, DbErr> {
    let mut end = Query::delete();
    end.from_table(REBUILDS).and_where(Expr::col("id").eq(rebuild));
    let backend = tx.get_database_backend();
    mend_alone(tx).await?;
    if backend == DbBackend::MySql {
        if !is_current(tx, rebuild).await? {
            return Ok(None);
        }
        // it is not there if this change was cut off and has just been brought to its end
        if SchemaManager::new(tx).has_table(NEXT).await? {
            // Tables change their names in a statement that ends a transaction and takes no locks from before, so what is heard
            // in the milliseconds between the first join and it is shown after the second, which is `mend`'s.
            join_all(tx, (SHOWN, NEXT)).await?;
            let rename = format!("RENAME TABLE {SHOWN} TO {OLD}, {NEXT} TO {SHOWN}");
            tx.execute_unprepared(&rename).await?;
            mend_alone(tx).await?;
        }
        tx.execute(&end).await?;
        return count(tx).await.map(Some);
    }
    if tx.execute(&end).await?.rows_affected() == 0 {
        return Ok(None);
    }
    if backend == DbBackend::Postgres {
        // it looks at all orders, which may be longer than a statement should take, and nobody who reads waits for it
        tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        // nobody writes from here on, and everybody reads
        tx.execute_unprepared(&format!("LOCK TABLE {SHOWN} IN EXCLUSIVE MODE")).await?;
    }
    join_all(tx, (SHOWN, NEXT)).await?;
    tx.execute_unprepared(&format!("ALTER TABLE {SHOWN} RENAME TO {OLD}")).await?;
    tx.execute_unprepared(&format!("ALTER TABLE {NEXT} RENAME TO {SHOWN}")).await?;
    let orders = count(tx).await?;
    drop_table(tx, OLD).await?;
    Ok(Some(orders))
}

async fn count(tx: &DatabaseTransaction) -> Result<u64, DbErr> {
    let mut count = Query::select();
    count.expr_as(Func::count(Expr::col(Column::OrderId)), "count").from(SHOWN);
    let count: i64 = match tx.query_one(&count).await? {
        Some(row) => row.try_get("", "count")?,
        None => 0,
    };
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Ends a change from one generation to the next that did not come to its end.
///
/// # Errors
/// The database failed.
pub(crate) async fn mend(writer: &Writer<MyOrder>) -> Result<(), writer::Error<Infallible>> {
    let mend = writer.chore(|tx| {
        Box::pin(async move {
            // most often there is nothing to wait for
            if !SchemaManager::new(tx).has_table(OLD).await? {
                return Ok(0);
            }
            lock(tx).await?;
            let mended = mend_alone(tx).await;
            unlock(tx).await;
            mended
        })
    });
    let joined = mend.await?;
    if joined > 0 {
        tracing::info!("MyPage ended a rebuild that was cut off; {joined} orders knew more before");
    }
    Ok(())
}

/// Joins what is left of the generation shown before into the one that is shown; how many orders of it knew more.
async fn mend_alone(tx: &DatabaseTransaction) -> Result<u64, DbErr> {
    if !SchemaManager::new(tx).has_table(OLD).await? {
        return Ok(0);
    }
    let ends = tx.get_database_backend() == DbBackend::MySql;
    let mut attempt = 1;
    let joined = loop {
        if ends {
            // a change to tables ended the transaction, or a deadlock did: rows are kept from other writers only in one
            tx.execute_unprepared("START TRANSACTION").await?;
        }
        match join_all(tx, (OLD, SHOWN)).await {
            Ok(joined) => break joined,
            // another writer came in between
            Err(error) if ends && attempt < MEND_ATTEMPTS => {
                tracing::debug!(%error, "what was shown before is joined again");
            }
            Err(error) => return Err(error),
        }
        attempt += 1;
    };
    drop_table(tx, OLD).await?;
    Ok(joined)
}

/// Keeps other replicas from changing generations at the same time, where a transaction does not.
async fn lock(tx: &DatabaseTransaction) -> Result<(), DbErr> {
    if tx.get_database_backend() != DbBackend::MySql {
        return Ok(());
    }
    let sql = format!("SELECT CAST(GET_LOCK({LOCK_NAME}, {LOCK_WAIT}) AS SIGNED) AS locked");
    let row = tx.query_one_raw(Statement::from_string(DbBackend::MySql, sql)).await?;
    let locked = row.map(|row| row.try_get::<Option<i64>>("", "locked")).transpose()?;
    match locked.flatten() {
        Some(1) => Ok(()),
        _ => Err(DbErr::Custom("another replica shows what was rebuilt".to_owned())),
    }
}

/// What cannot be told is a connection that is lost, and its lock with it.
async fn unlock(tx: &DatabaseTransaction) {
    if tx.get_database_backend() == DbBackend::MySql {
        let sql = format!("SELECT RELEASE_LOCK({LOCK_NAME})");
        let sql = Statement::from_string(DbBackend::MySql, sql);
        let _lost = tx.query_one_raw(sql).await;
    }
}

async fn join_all(
    tx: &DatabaseTransaction,
    generations: (&'static str, &'static str),
) -> Result<u64, DbErr> {
    let (mut joined, mut after) = (0, None);
    loop {
        let until = bound(tx, generations.0, after).await?;
        let orders = behind(tx, generations, after, until).await?;
        joined += join(tx, generations, orders).await?;
        if until.is_none() {
            return Ok(joined);
        }
        after = until;
    }
}

async fn drop_table(tx: &DatabaseTransaction, table: &str) -> Result<(), DbErr> {
    tx.execute_unprepared(&format!("DROP TABLE IF EXISTS {table}")).await?;
    Ok(())
}

/// These orders, as they are in a generation. In the order of their keys, in which databases with row locks take them.
async fn load(
    tx: &DatabaseTransaction,
    table: &'static str,
    ids: BTreeSet<Uuid>,
) -> Result<HashMap<Uuid, MyOrder>, DbErr> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let mut query = Query::select();
    query.columns(Column::iter()).from(table).and_where(Expr::col(Column::OrderId).is_in(ids));
    query.order_by(Column::OrderId, Order::Asc).lock(LockType::Update);
    let statement = StatementBuilder::build(&query, &tx.get_database_backend());
    let found = MyOrder::find_by_statement(statement).all(tx).await?;
    Ok(found.into_iter().map(|order| (order.order_id, order)).collect())
}

async fn save(
    tx: &DatabaseTransaction,
    table: &'static str,
    orders: Vec<MyOrder>,
) -> Result<(), DbErr> {
    let moving = Column::iter().filter(|column| !matches!(column, Column::OrderId));
    let update = OnConflict::column(Column::OrderId).update_columns(moving).to_owned();
    journal::insert_into(tx, &table.into_table_ref(), &orders, Some(&update)).await
}
