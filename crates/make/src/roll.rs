//! The roll of numbers: which is called out at the counter next. One row, which every Make on a database locks before it draws,
//! in the transaction that stores the tickets: no two processes draw the same, none that dies takes a number with it, and the
//! numbers go on where they stopped. Whoever waits here waits for one batch of another, never for a process.

use crate::{store, ticket};
use journal::create_clustered;
use sea_orm::{
    ConnectionTrait as _, DatabaseTransaction, DbErr, IntoActiveModel as _, StatementBuilder,
    entity::prelude::*,
    sea_query::{
        ColumnDef, Expr, ExprTrait as _, OnConflict, Query, TableCreateStatement, UnionType,
    },
};
use sea_orm_migration::SchemaManager;
use std::collections::HashSet;

/// 1 to 999, then 1 again: what people can call out, hear and remember.
const NUMBERS: i64 = 999;
/// Open tickets that are looked at: more than there are numbers.
const OPEN_AT_MOST: u64 = 1_000;
/// There is one roll.
const ID: i32 = 1;

/// A row of `rolls`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "rolls")]
pub struct Model {
    /// Always the same.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// How many numbers were ever drawn, or passed over.
    pub drawn: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// The next so many numbers. A number whose ticket is still open is passed over, as long as others are left.
pub(crate) async fn draw(tx: &DatabaseTransaction, count: usize) -> Result<Vec<i32>, DbErr> {
    let by = i64::try_from(count).expect("a batch is small");
    advance(tx, by).await?; // from here on it is ours until the commit
    let (drawn, open) = look(tx).await?;
    let (numbers, passed) = choose(drawn - by, count, &open);
    if passed > 0 {
        advance(tx, passed).await?;
    }
    Ok(numbers)
}

/// How many were drawn, and which are open; with one statement, because it is made for each batch.
async fn look(tx: &DatabaseTransaction) -> Result<(i64, HashSet<i64>), DbErr> {
    let mut both = Query::select()
        .expr_as(Expr::val(0).sub(Expr::col(Column::Drawn)), "number") // below 0: that is no number
        .from(Entity)
        .and_where(Column::Id.eq(ID))
        .take();
    // the limit is of the tickets alone, which not every database takes in a union
    let open = store::open_numbers().limit(OPEN_AT_MOST).take();
    let open = Query::select().column(ticket::Column::Number).from_subquery(open, "open").take();
    both.union(UnionType::All, open);
    let both = StatementBuilder::build(&both, &tx.get_database_backend());
    let rows = tx.query_all_raw(both).await?;
    let open =
        rows.iter().map(|row| row.try_get("", "number")).collect::<Result<HashSet<i64>, _>>()?;
    let roll = open.iter().find(|number| **number < 0);
    let drawn = roll.ok_or_else(|| DbErr::RecordNotFound("the roll".to_owned()))?;
    Ok((-drawn, open))
}

async fn advance(tx: &DatabaseTransaction, by: i64) -> Result<(), DbErr> {
    let further = Expr::col((Entity, Column::Drawn)).add(by);
    let roll = Entity::insert(Model { id: ID, drawn: by }.into_active_model());
    roll.on_conflict(OnConflict::column(Column::Id).value(Column::Drawn, further).to_owned())
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

/// So many numbers after the first `drawn`, and how many were passed over because they are open. Where more are open than
/// there are numbers, nobody waits for one: they are shared, those drawn longest ago first.
fn choose(drawn: i64, count: usize, open: &HashSet<i64>) -> (Vec<i32>, i64) {
    let number = |at: i64| at.rem_euclid(NUMBERS) + 1;
    let called = |at| i32::try_from(number(at)).expect("at most 999");
    let round = (drawn..drawn + NUMBERS).filter(|at| !open.contains(&number(*at)));
    let free: Vec<i64> = round.take(count).collect();
    let Some(last) = free.last().filter(|_| free.len() == count) else {
        let shared = free.into_iter().chain(drawn..).take(count);
        return (shared.map(called).collect(), 0);
    };
    let count = i64::try_from(count).expect("a batch is small");
    let passed = last + 1 - drawn - count;
    (free.into_iter().map(called).collect(), passed)
}

/// Its table; the row comes with the first number.
pub(crate) async fn create(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let column = |column| ColumnDef::new(column).not_null().take();
    let table = TableCreateStatement::new()
        .if_not_exists()
        .table(Entity)
        .col(column(Column::Id).integer().primary_key())
        .col(column(Column::Drawn).big_integer())
        .take();
    create_clustered(manager, table).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_from_1_to_999_and_begin_again() {
        let none = HashSet::new();
        assert_eq!(choose(0, 2, &none), (vec![1, 2], 0));
        assert_eq!(choose(997, 4, &none), (vec![998, 999, 1, 2], 0));
        assert_eq!(choose(3 * 999, 1, &none), (vec![1], 0));
    }

    #[test]
    fn a_number_that_is_open_is_passed_over_while_others_are_left() {
        assert_eq!(choose(998, 3, &HashSet::from([1, 2])), (vec![999, 3, 4], 2));
        let all_but_7: HashSet<i64> = (1..=999).filter(|number| *number != 7).collect();
        assert_eq!(choose(500, 1, &all_but_7), (vec![7], 505));
        assert_eq!(choose(500, 3, &all_but_7), (vec![7, 501, 502], 0), "then they are shared");
    }
}
