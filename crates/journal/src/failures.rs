//! How often events could not be handled, for reasons of their own and not the database's. Kept in the database, so that
//! another process goes on counting where this one ended, and a bad event does not begin anew with each.

use sea_orm::{DatabaseTransaction, DbErr, entity::prelude::*, sea_query::OnConflict};

use crate::{dead_letters, rows};

/// A row of `event_failures`.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "event_failures")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub attempts: i32,
}

impl ActiveModelBehavior for ActiveModel {}

/// Counts one more, and how often it is by now. None: it is laid aside already, and counts as handled.
pub(crate) async fn count(tx: &DatabaseTransaction, id: Uuid) -> Result<Option<i32>, DbErr> {
    if dead_letters::Entity::find_by_id(id).one(tx).await?.is_some() {
        return Ok(None);
    }
    let before = Entity::find_by_id(id).one(tx).await?.map_or(0, |row| row.attempts);
    let attempts = before.saturating_add(1);
    let known = OnConflict::column(Column::Id).update_column(Column::Attempts).to_owned();
    rows::insert(tx, &[Model { id, attempts }], Some(&known)).await?;
    Ok(Some(attempts))
}

/// These are handled, or laid aside.
pub(crate) async fn forget(tx: &DatabaseTransaction, ids: Vec<Uuid>) -> Result<u64, DbErr> {
    if ids.is_empty() {
        return Ok(0);
    }
    Ok(Entity::delete_many().filter(Column::Id.is_in(ids)).exec(tx).await?.rows_affected)
}
