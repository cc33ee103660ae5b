//! Rows into a table, many with one statement.

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityName as _, EntityTrait, Iterable, ModelTrait,
    QueryTrait, Select, StatementBuilder,
    sea_query::{
        Alias, Expr, OnConflict, Query, TableRef,
        extension::mysql::{IndexHintScope, MySqlSelectStatementExt as _},
    },
};

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
    for some in rows.chunks(PARAMETERS / columns.len()) {
        let statement = {
            let mut insert = Query::insert();
            insert.into_table(table.clone()).columns(columns.iter().copied());
            for row in some {
                let value = |column: &<M::Entity as EntityTrait>::Column| {
                    column.save_as(Expr::val(row.get(*column)))
                };
                insert.values_panic(columns.iter().map(value));
            }
            if let Some(conflict) = conflict {
                insert.on_conflict(conflict.clone());
            }
            StatementBuilder::build(&insert, &db.get_database_backend())
        };
        db.execute_raw(statement).await?;
    }
    Ok(())
}
