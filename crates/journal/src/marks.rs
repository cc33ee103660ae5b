//! Marks: what the relay has learnt of the events in the outbox. The writer writes them with its next transaction, so that
//! nobody else changes the database.

use std::sync::Arc;

use sea_orm::{
    ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    sea_query::{Expr, ExprTrait as _, OnConflict},
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{Time, outbox::row, rows};

pub(crate) mod stream {
    //! A row of `streams`: what we last knew of a stream of events.

    use crate::Time;
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "streams")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        /// When it was created; if that changes, it is another, and has none of our events.
        pub created: Time,
        /// The highest sequence it told us; 0: none.
        pub sequence: i64,
        /// The message that has this sequence.
        pub message_id: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Something to be written about events.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    /// The bus has it.
    Published(Uuid),
    /// The bus has it, at this place of its stream. All that are written together get the highest of their places: what the
    /// stream lost after a place is found by it all the same, and to say something else of each row would cost the database more
    /// than all the rest.
    Stored { id: Uuid, sequence: i64 },
    /// The newest message that a stream told us of.
    Newest { stream: Arc<str>, sequence: i64, message_id: String },
    /// A stream is known from now on.
    Known { stream: Arc<str>, created: Time },
    /// A stream is another than it was: what was published `since` is to be published again.
    Another { stream: Arc<str>, was: Time, created: Time, since: Time },
    /// A stream has lost what it had from here on: it is to be published again. `newest`: what we knew of it then.
    Lost { stream: Arc<str>, from: i64, newest: i64 },
    /// Tells when it is written, and with it all before.
    Fence(Arc<Notify>),
}

/// Tells those who wait for it.
pub(crate) fn written(marks: &[Mark]) {
    for mark in marks {
        if let Mark::Fence(fence) = mark {
            fence.notify_one();
        }
    }
}

pub(crate) async fn write(tx: &DatabaseTransaction, marks: &[Mark]) -> Result<(), DbErr> {
    let (mut published, mut stored) = (Vec::new(), Vec::new());
    let mut newest: Option<&Mark> = None;
    for mark in marks {
        match mark {
            Mark::Published(id) => published.push(*id),
            Mark::Stored { id, sequence } => stored.push((*id, *sequence)),
            Mark::Newest { sequence, .. } => {
                if !matches!(newest, Some(Mark::Newest { sequence: known, .. }) if known >= sequence)
                {
                    newest = Some(mark);
                }
            }
            Mark::Known { .. } | Mark::Another { .. } | Mark::Lost { .. } | Mark::Fence(_) => {}
        }
    }
    if !published.is_empty() {
        let mark = row::Entity::update_many().col_expr(row::Column::Published, Expr::val(1));
        mark.filter(row::Column::Id.is_in(published)).exec(tx).await?;
    }
    if let Some(place) = stored.iter().map(|(_, sequence)| *sequence).max() {
        row::Entity::update_many()
            .col_expr(row::Column::Published, Expr::val(1))
            .col_expr(row::Column::StreamSequence, Expr::val(place))
            .filter(row::Column::Id.is_in(stored.into_iter().map(|(id, _)| id)))
            .exec(tx)
            .await?;
    }
    if let Some(Mark::Newest { stream, sequence, message_id }) = newest {
        stream::Entity::update_many()
            .col_expr(stream::Column::Sequence, Expr::val(*sequence))
            .col_expr(stream::Column::MessageId, Expr::val(message_id.clone()))
            .filter(stream::Column::Name.eq(&**stream))
            .filter(stream::Column::Sequence.lt(*sequence))
            .exec(tx)
            .await?;
    }
    // after what was published before it was looked for
    for mark in marks {
        judge(tx, mark).await?;
    }
    Ok(())
}

/// Writes what became of a stream. Of several relays only the first has its way: the others saw what it has put right.
async fn judge(tx: &DatabaseTransaction, mark: &Mark) -> Result<(), DbErr> {
    match mark {
        Mark::Known { stream, created } => {
            let name = stream.to_string();
            let row =
                stream::Model { name, created: *created, sequence: 0, message_id: String::new() };
            let known = OnConflict::column(stream::Column::Name)
                .update_column(stream::Column::Name) // stays as it is
                .to_owned();
            rows::insert(tx, &[row], Some(&known)).await
        }
        Mark::Another { stream, was, created, since } => {
            let first = renew(stream)
                .col_expr(stream::Column::Created, Expr::val(created.micros()))
                .filter(stream::Column::Created.eq(*was));
            if first.exec(tx).await?.rows_affected > 0 {
                let lost = again().filter(row::Column::Published.eq(1));
                lost.filter(row::Column::Time.gte(*since)).exec(tx).await?;
            }
            Ok(())
        }
        Mark::Lost { stream, from, newest } => {
            let first = renew(stream).filter(stream::Column::Sequence.eq(*newest));
            if first.exec(tx).await?.rows_affected > 0 {
                again().filter(row::Column::StreamSequence.gte(*from)).exec(tx).await?;
            }
            Ok(())
        }
        Mark::Published(_) | Mark::Stored { .. } | Mark::Newest { .. } | Mark::Fence(_) => Ok(()),
    }
}

/// We know no message of it any more.
fn renew(name: &str) -> sea_orm::UpdateMany<stream::Entity> {
    stream::Entity::update_many()
        .col_expr(stream::Column::Sequence, Expr::val(0_i64))
        .col_expr(stream::Column::MessageId, Expr::val(""))
        .filter(stream::Column::Name.eq(name))
}

/// To be published again, with another message id: the server may know the first.
fn again() -> sea_orm::UpdateMany<row::Entity> {
    row::Entity::update_many()
        .col_expr(row::Column::Published, Expr::val(0))
        .col_expr(row::Column::Edition, Expr::col(row::Column::Edition).add(1))
        .col_expr(row::Column::StreamSequence, Expr::val(None::<i64>))
}
