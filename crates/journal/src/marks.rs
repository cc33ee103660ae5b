//! Marks: what the relay has learnt of the events in the outbox. The writer writes them with its next transaction, so that
//! nobody else changes the database.

use std::{collections::BTreeMap, sync::Arc};

use sea_orm::{
    ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, UpdateMany,
    sea_query::{Expr, ExprTrait as _, OnConflict},
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    Time,
    outbox::{message_id, row},
    rows,
};

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

/// A row of the outbox, as whoever marks it knew it: which event, and how often it had been lost. By now it may be another
/// publication's, which an old mark must not touch.
pub(crate) type Row = (Uuid, i32);

/// Something to be written about events. Each is one statement about rows by their keys, however large the outbox is.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    /// The bus has it.
    Published(Row),
    /// The bus has it, at this place of its stream. All that are written together get the highest of their places: what the
    /// stream lost after a place is found by it all the same, and to say something else of each row would cost the database more
    /// than all the rest. The stream's own row gets it too, in the same transaction.
    Stored { row: Row, stream: Arc<str>, sequence: i64 },
    /// A stream is known from now on.
    Known { stream: Arc<str>, created: Time },
    /// The stream has lost them: they are to be published again.
    Lost(Vec<Row>),
    /// A stream has lost what it had, and that is put right: nothing of it is known from now on, unless somebody else put it
    /// right before.
    Anew { known: stream::Model, created: Time },
    /// Tells when it is written, and with it all before.
    Fence(Arc<Notify>),
}

impl Mark {
    /// The event that the bus has.
    pub(crate) fn event(&self) -> Option<Uuid> {
        match self {
            Self::Published((id, _)) | Self::Stored { row: (id, _), .. } => Some(*id),
            _ => None,
        }
    }
}

pub(crate) async fn write(tx: &DatabaseTransaction, marks: &[Mark]) -> Result<(), DbErr> {
    let (mut published, mut stored, mut lost) = (Rows::new(), Rows::new(), Rows::new());
    let mut newest: Option<(i64, &Arc<str>, Row)> = None;
    for mark in marks {
        match mark {
            Mark::Published((id, edition)) => published.entry(*edition).or_default().push(*id),
            Mark::Stored { row, stream, sequence } => {
                stored.entry(row.1).or_default().push(row.0);
                newest = newest.max(Some((*sequence, stream, *row)));
            }
            Mark::Lost(rows) => {
                rows.iter().for_each(|(id, edition)| lost.entry(*edition).or_default().push(*id));
            }
            Mark::Known { .. } | Mark::Anew { .. } | Mark::Fence(_) => {}
        }
    }
    let mark = || row::Entity::update_many().col_expr(row::Column::Published, Expr::val(1));
    update(tx, published, mark).await?;
    if let Some((place, stream, (id, edition))) = newest {
        update(tx, stored, || mark().col_expr(row::Column::StreamSequence, Expr::val(place)))
            .await?;
        stream::Entity::update_many()
            .col_expr(stream::Column::Sequence, Expr::val(place))
            .col_expr(stream::Column::MessageId, Expr::val(message_id(id, edition)))
            .filter(stream::Column::Name.eq(&**stream))
            .filter(stream::Column::Sequence.lt(place))
            .exec(tx)
            .await?;
    }
    // with another message id: the server may know the first
    let again = || {
        row::Entity::update_many()
            .col_expr(row::Column::Published, Expr::val(0))
            .col_expr(row::Column::Edition, Expr::col(row::Column::Edition).add(1))
            .col_expr(row::Column::StreamSequence, Expr::val(None::<i64>))
    };
    update(tx, lost, again).await?;
    for mark in marks {
        judge(tx, mark).await?;
    }
    Ok(())
}

/// Rows by their edition; as a rule all have the same.
type Rows = BTreeMap<i32, Vec<Uuid>>;

async fn update(
    tx: &DatabaseTransaction,
    rows: Rows,
    change: impl Fn() -> UpdateMany<row::Entity>,
) -> Result<(), DbErr> {
    for (edition, ids) in rows {
        let rows = change().filter(row::Column::Id.is_in(ids));
        rows.filter(row::Column::Edition.eq(edition)).exec(tx).await?;
    }
    Ok(())
}

/// Writes what became of a stream.
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
        Mark::Anew { known, created } => stream::Entity::update_many()
            .col_expr(stream::Column::Created, Expr::val(created.micros()))
            .col_expr(stream::Column::Sequence, Expr::val(0_i64))
            .col_expr(stream::Column::MessageId, Expr::val(""))
            .filter(stream::Column::Name.eq(&*known.name))
            .filter(stream::Column::Created.eq(known.created))
            .filter(stream::Column::Sequence.eq(known.sequence))
            .exec(tx)
            .await
            .map(drop),
        Mark::Published(_) | Mark::Stored { .. } | Mark::Lost(_) | Mark::Fence(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Database,
        database::{Config, Source},
    };
    use sea_orm::QueryOrder as _;
    use sea_orm_migration::{MigrationTrait, MigratorTrait};

    struct Migrator;

    impl MigratorTrait for Migrator {
        fn migrations() -> Vec<Box<dyn MigrationTrait>> {
            crate::migrations()
        }
    }

    /// Of two relays one may have put right what the stream lost, while the other still knows it as published.
    #[tokio::test]
    async fn a_mark_says_nothing_of_a_later_publication() {
        let test = testbed::database().await;
        let (url, config) = (test.url.clone(), Config::default());
        let source = Source { url, flag: "--database-url", config };
        let database = Database::open(&source).await.expect("a database");
        database.migrate::<Migrator>().await.expect("it is brought up to date");
        let row = |id: u128, edition| row::Model {
            id: Uuid::from_u128(id),
            published: 0,
            edition,
            stream_sequence: None,
            kind: String::new(),
            subject: Uuid::nil(),
            time: Time::now(),
            correlation_id: Uuid::nil(),
            causation_id: Uuid::nil(),
            traceparent: None,
            tracestate: None,
            payload: Vec::new(),
        };
        let stored = |id, edition, sequence| Mark::Stored {
            row: (Uuid::from_u128(id), edition),
            stream: "S".into(),
            sequence,
        };
        let lost = |id, edition| Mark::Lost(vec![(Uuid::from_u128(id), edition)]);
        let published = Mark::Published((Uuid::from_u128(5), 0));
        let tx = database.begin().await.expect("it begins");
        let rows: Vec<_> = (1..=5).map(|id| row(id, i32::from(id > 2))).collect();
        rows::insert(&tx, &rows, None).await.expect("they are new");
        let marks = [stored(1, 0, 40), stored(3, 0, 41), stored(4, 1, 39), lost(4, 0), published];
        write(&tx, &marks).await.expect("they are written");
        write(&tx, &[lost(1, 0), lost(1, 0)]).await.expect("they are written");
        let found = row::Entity::find().order_by_asc(row::Column::Id).all(&tx).await;
        let found = found.expect("they can be read").into_iter();
        let found: Vec<_> =
            found.map(|row| (row.published, row.edition, row.stream_sequence)).collect();
        let expected = [(0, 1, None), (0, 0, None), (0, 1, None), (1, 1, Some(41)), (0, 1, None)];
        assert_eq!(found, expected);
    }
}
