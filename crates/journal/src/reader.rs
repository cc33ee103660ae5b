//! The reader: nouns by their keys, many with one query. What is asked while one query runs is the next, so that the busier a
//! service is, the less each look costs; a query of its own for each would cost more than all the rest of a call.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use chassis::Host;
use sea_orm::{DbErr, EntityName as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{Database, Noun, Table};

/// Looks that may wait; above it, who asks waits.
const WAITING: usize = 1024;
/// Keys of one query.
const BATCH: usize = 256;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("the database cannot be read")]
    Store(#[source] Arc<DbErr>),
    /// The process is stopping.
    #[error("the reader is gone")]
    Gone,
}

/// Finds nouns by their keys. A clone is the same reader.
pub struct Reader<N: Noun>(mpsc::Sender<Look<N>>);

struct Look<N: Noun> {
    key: N::Key,
    reply: oneshot::Sender<Result<Option<N>, Error>>,
}

impl<N: Noun> Clone for Reader<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<N: Table> Reader<N> {
    /// Begins to work.
    #[must_use]
    pub fn open(host: &Host, database: &Database) -> Self {
        let (looks, waiting) = mpsc::channel(WAITING);
        let name = format!("the reader of {}", N::Entity::default().table_name());
        host.spawn_last(name, work(database.clone(), waiting, host.closing()));
        Self(looks)
    }

    /// The noun as it is stored, if there is one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: N::Key) -> Result<Option<N>, Error> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Look { key, reply }).await.map_err(|_gone| Error::Gone)?;
        answer.await.unwrap_or(Err(Error::Gone))
    }
}

async fn work<N: Table>(
    database: Database,
    mut waiting: mpsc::Receiver<Look<N>>,
    closing: CancellationToken,
) -> anyhow::Result<()> {
    let mut looks = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            _some = waiting.recv_many(&mut looks, BATCH) => {}
            () = closing.cancelled() => return Ok(()),
        }
        if looks.is_empty() {
            closing.cancelled().await; // nobody is left who could ask
            return Ok(());
        }
        let keys: BTreeSet<N::Key> = looks.iter().map(|look| look.key).collect();
        let find = N::find(keys.into_iter().collect());
        match database.look(find.all(&database.pool)).await {
            Ok(found) => answer(looks.drain(..), &found),
            Err(error) => {
                let error = Error::Store(Arc::new(error));
                for look in looks.drain(..) {
                    let _nobody_waits = look.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

fn answer<N: Noun>(looks: impl Iterator<Item = Look<N>>, found: &[N]) {
    let keys = |noun: &N| noun.keys().into_iter().collect::<Vec<_>>();
    let found: HashMap<N::Key, &N> =
        found.iter().flat_map(|noun| keys(noun).into_iter().map(move |key| (key, noun))).collect();
    for look in looks {
        let _nobody_waits = look.reply.send(Ok(found.get(&look.key).map(|&noun| noun.clone())));
    }
}
