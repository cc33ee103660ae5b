//! Rows into a table, many with one statement.

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityName as _, EntityTrait, Iterable,
    ModelTrait, QueryTrait, Select, StatementBuilder, Value,
    sea_query::{
        Alias, ArrayType, Expr, Func, OnConflict, Query, TableRef,
        extension::mysql::{IndexHintScope, MySqlSelectStatementExt as _},
    },
};
use uuid::Uuid;

/// Bind parameters of one statement: SQLite takes 32,766 and says "too many SQL variables" above; PostgreSQL and MySQL take 65,535.
pub(crate) const PARAMETERS: usize = 30_000;

/// Has `MariaDB` and MySQL, where an index is not partial, find rows by this one all the same. By themselves they walk the whole
/// table in the order that is asked for, until they have found enough; the others are not told anything.
#[must_use]
pub fn by_index<E: EntityTrait>(mut rows: Select<E>, index: &'static str) -> Select<E> {
    QueryTrait::query(&mut rows).force_index(Alias::new(index), IndexHintScope::All);
    rows
}

/// Inserts all rows. `conflict` says what happens to a key that exists; without it, it is an error.
pub(crate) async fn insert<M: ModelTrait>(
    db: &impl ConnectionTrait,
    rows: &[M],
    conflict: Option<&OnConflict>,
) -> Result<(), DbErr> {
    insert_into(db, &M::Entity::default().table_ref(), rows, conflict).await
}

/// Inserts all rows into a table that is like their own. `conflict` says what happens to a key that exists; without it, it is an
/// error.
///
/// # Errors
/// The database failed.
pub async fn insert_into<M: ModelTrait>(
    db: &impl ConnectionTrait,
    table: &TableRef,
    rows: &[M],
    conflict: Option<&OnConflict>,
) -> Result<(), DbErr> {
    let columns: Vec<<M::Entity as EntityTrait>::Column> =
        <M::Entity as EntityTrait>::Column::iter().collect();
    let backend = db.get_database_backend();
    for some in rows.chunks(PARAMETERS / columns.len()) {
        let mut insert = Query::insert();
        insert.into_table(table.clone()).columns(columns.iter().copied());
        if backend == DbBackend::Postgres {
            let arrays = columns.iter().map(|column| array(some, *column));
            let arrays = Query::select().exprs(arrays).take();
            insert.select_from(arrays).expect("an array for each column");
        } else {
            for row in some {
                insert.values_panic(columns.iter().map(|column| Expr::val(row.get(*column))));
            }
        }
        if let Some(conflict) = conflict {
            insert.on_conflict(conflict.clone());
        }
        db.execute_raw(StatementBuilder::build(&insert, &backend)).await?;
    }
    Ok(())
}

/// A column of rows as one parameter. A statement that has as many parameters as columns is the same for any number of rows:
/// `PostgreSQL` reads and plans it once, where one with a parameter for each value costs it more than the rows do.
fn array<M: ModelTrait>(rows: &[M], column: <M::Entity as EntityTrait>::Column) -> Expr {
    let values: Vec<Value> = rows.iter().map(|row| row.get(column)).collect();
    let kind = values.first().expect("chunks are not empty").array_type();
    // the driver has no arrays with gaps: what stands for nothing is a value that none of our columns has
    let nothing = match kind {
        ArrayType::BigInt => Value::from(i64::MIN),
        ArrayType::Int => Value::from(i32::MIN),
        ArrayType::Bytes => return unnest(kind, values),
        ArrayType::Uuid => Value::from(Uuid::max()),
        _ => Value::from(""),
    };
    if !column.def().is_null() {
        return unnest(kind, values);
    }
    let some = |value: Value| if value == value.as_null() { nothing.clone() } else { value };
    let values = unnest(kind, values.into_iter().map(some).collect());
    Func::cust("NULLIF").args([values, Expr::val(nothing)]).into()
}

fn unnest(kind: ArrayType, values: Vec<Value>) -> Expr {
    Func::cust("UNNEST").arg(Expr::val(Value::Array(kind, Some(Box::new(values))))).into()
}
