//! Dead letters, for whoever looks after them: to list, to hand to their handler again, to give up.
//!
//! A letter goes to the handler of the service that could not handle it, and not over the bus again: no window against repeats
//! can swallow it, nobody else hears it, and whoever asked is told at once how it went.

use std::sync::Arc;

use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait,
};
use uuid::Uuid;

use crate::{
    Database, Letter, Noun, Routes, Table, Writer, consumer, database,
    dead_letters::{self, Column, Entity},
    writer,
};

/// The dead letters of one service, and the handler they were for.
pub struct Letters<N: Noun> {
    pool: DatabaseConnection,
    routes: Routes<N::Command>,
    writer: Writer<N>,
}

/// Why a letter is still there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none with this id: it never was, or it is handled or given up by now.
    #[error("there is no such dead letter")]
    NotFound,
    /// It was handed over, and could not be handled: for this reason.
    #[error("it can still not be handled: {0}")]
    Unhandled(String),
    /// The database failed; if it failed while committing, the event may be handled all the same.
    #[error("dead letters cannot be read or changed")]
    Store(#[source] Arc<DbErr>),
    /// The process is stopping.
    #[error("the writer is gone")]
    Gone,
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl<N: Table> Letters<N> {
    /// Those in this database; `routes` and `writer` are those of the consumer that could not handle them.
    #[must_use]
    pub fn open(database: &Database, routes: Routes<N::Command>, writer: &Writer<N>) -> Self {
        Self { pool: database.pool.clone(), routes, writer: writer.clone() }
    }

    /// At most `most` letters, those with the newest events first, beginning before the one given.
    ///
    /// # Errors
    /// The database failed.
    pub async fn list(&self, before: Option<Uuid>, most: u64) -> Result<Vec<Letter>, DbErr> {
        Entity::find()
            .apply_if(before, |letters, id| letters.filter(Column::Id.lt(id)))
            .order_by_desc(Column::Id)
            .limit(most)
            .all(&self.pool)
            .await
    }

    /// Hands a letter to its handler again: the letter as it was, when it is handled. It goes after the change is stored, so it
    /// may be handed over twice if the process dies in between; every noun knows a repeat by its own state.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn redrive(&self, id: Uuid) -> Result<Letter, Error> {
        let letter = self.get(id).await?;
        match self.hand_over(&letter).await {
            Ok(()) => {
                self.remove(id).await?;
                Ok(letter)
            }
            Err(Error::Unhandled(why)) => {
                let attempts = u32::try_from(letter.attempts).unwrap_or(0).saturating_add(1);
                let again = dead_letters::letter(&letter.event(), &why, attempts);
                self.writer.bury(vec![again]).await.map_err(unchanged)?;
                Err(Error::Unhandled(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a letter up: as it was.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn discard(&self, id: Uuid) -> Result<Letter, Error> {
        let letter = self.get(id).await?;
        match self.remove(id).await? {
            0 => Err(Error::NotFound), // somebody was faster
            _ => Ok(letter),
        }
    }

    async fn get(&self, id: Uuid) -> Result<Letter, Error> {
        Entity::find_by_id(id).one(&self.pool).await?.ok_or(Error::NotFound)
    }

    async fn hand_over(&self, letter: &Letter) -> Result<(), Error> {
        let event = letter.event();
        let fact = self.routes.read(&event).map_err(|error| Error::Unhandled(error.to_string()))?;
        let told = self.writer.hear(vec![(fact, consumer::cause(&event))]).await;
        match told.into_iter().next() {
            Some(Err(writer::Error::Store(error))) if !database::is_away(&error) => {
                Err(Error::Unhandled(error.to_string()))
            }
            Some(Err(error @ (writer::Error::Refused(_) | writer::Error::Panicked(_)))) => {
                Err(Error::Unhandled(error.to_string()))
            }
            Some(told) => told.map_err(unchanged),
            None => Err(Error::Gone),
        }
    }

    async fn remove(&self, id: Uuid) -> Result<u64, Error> {
        let remove = self.writer.chore(move |tx| {
            Box::pin(async move { Ok(Entity::delete_by_id(id).exec(tx).await?.rows_affected) })
        });
        remove.await.map_err(unchanged)
    }
}

fn unchanged<R>(error: writer::Error<R>) -> Error {
    match error {
        writer::Error::Store(error) => Error::Store(error),
        // the last three are answers to commands, and none was given
        writer::Error::Gone
        | writer::Error::Overloaded
        | writer::Error::Refused(_)
        | writer::Error::Panicked(_) => Error::Gone,
    }
}
