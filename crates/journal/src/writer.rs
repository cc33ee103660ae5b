//! The writer: the only one who changes a service's database. All commands and all events go through it, in batches.

use std::sync::Arc;

use chassis::Host;
use futures::future::BoxFuture;
use sea_orm::{DatabaseTransaction, DbErr, EntityName as _};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{
    Cause, Database, Noun, Outbox, Table, Watcher,
    dead_letters::Model as Letter,
    desk::{Desk, Facts, Item, Reply},
    watch::{Tell, Watches},
};

/// Batches of facts that may wait; whoever brings more waits. Each batch is a consumer's, and there are few of those.
const FACTS_WAITING: usize = 64;
/// Facts of one batch; more are split, so that no transaction grows without bound.
const FACTS_AT_ONCE: usize = 500;

/// The bounds of a writer.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Rows that one transaction touches, give or take a consumer's batch. A few hundred make a commit cheap; more only make
    /// those wait who come later.
    pub batch: usize,
    /// Commands that may wait for the next transactions. Above it callers are told at once, instead of too late.
    pub queue: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { batch: 256, queue: 4096 }
    }
}

/// Why a command changed nothing, or is not known to have.
#[derive(Debug, thiserror::Error)]
pub enum Error<R> {
    /// The noun said no.
    #[error(transparent)]
    Refused(R),
    /// Too many commands wait; nothing happened.
    #[error("too many commands wait to be stored")]
    Overloaded,
    /// The database failed; if it failed while committing, the change may be stored all the same.
    #[error("the change could not be stored")]
    Store(#[source] Arc<DbErr>),
    /// The process is stopping; nothing happened.
    #[error("the writer is gone")]
    Gone,
    /// The noun has a bug; nothing happened.
    #[error("a command made its noun panic: {0}")]
    Panicked(String),
}

/// The only one who changes a service's database. A clone is the same writer.
pub struct Writer<N: Noun> {
    commands: mpsc::Sender<Item<N>>,
    facts: mpsc::Sender<Facts<N>>,
    watches: Watches<N>,
}

impl<N: Noun> Clone for Writer<N> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            facts: self.facts.clone(),
            watches: self.watches.clone(),
        }
    }
}

impl<N: Table> Writer<N> {
    /// Begins to work; without an outbox for nouns that publish nothing.
    #[must_use]
    pub fn open(host: &Host, database: &Database, outbox: Option<Outbox>, config: Config) -> Self {
        let (commands, commands_waiting) = mpsc::channel(config.queue);
        let (facts, facts_waiting) = mpsc::channel(FACTS_WAITING);
        let watches = Watches::new();
        let desk = Desk {
            database: database.clone(),
            outbox,
            watches: watches.clone(),
            batch: config.batch,
            commands: commands_waiting,
            facts: facts_waiting,
        };
        let table = N::Entity::default();
        host.spawn_last(format!("the writer of {}", table.table_name()), desk.run(host.closing()));
        Self { commands, facts, watches }
    }
}

impl<N: Noun> Writer<N> {
    /// Tells a noun something, and what it has become once that is stored. To drop the future changes nothing: the command
    /// was handed over.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn act(&self, command: N::Command, cause: Cause) -> Result<N, Error<N::Refusal>> {
        let (reply, answer) = oneshot::channel();
        let item = Item { command, cause, reply: Reply::State(reply) };
        self.commands.try_send(item).map_err(|error| match error {
            TrySendError::Full(_) => Error::Overloaded,
            TrySendError::Closed(_) => Error::Gone,
        })?;
        answer.await.unwrap_or(Err(Error::Gone))
    }

    /// As [`Self::act`], for what has happened already and must not be refused for want of room: it waits for its turn.
    ///
    /// # Errors
    /// See [`Error`], but for [`Error::Overloaded`].
    pub async fn record(&self, command: N::Command, cause: Cause) -> Result<N, Error<N::Refusal>> {
        let (reply, answer) = oneshot::channel();
        let item = Item { command, cause, reply: Reply::State(reply) };
        self.commands.send(item).await.map_err(|_gone| Error::Gone)?;
        answer.await.unwrap_or(Err(Error::Gone))
    }

    /// Tells nouns what has happened; one outcome for each, in this order. Facts come before commands, and wait for their
    /// turn where commands are refused: they are true already.
    pub async fn hear(
        &self,
        facts: Vec<(N::Command, Cause)>,
    ) -> Vec<Result<(), Error<N::Refusal>>> {
        let mut answers = Vec::with_capacity(facts.len());
        let mut facts = facts.into_iter().peekable();
        while facts.peek().is_some() {
            let item = |(command, cause)| {
                let (reply, answer) = oneshot::channel();
                answers.push(answer);
                Item { command, cause, reply: Reply::Done(reply) }
            };
            let some = facts.by_ref().take(FACTS_AT_ONCE).map(item).collect();
            // the writer is gone: the replies are dropped with it, which is what the answers will tell
            let _gone = self.facts.send(Facts::Heard(some)).await;
        }
        let mut outcomes = Vec::with_capacity(answers.len());
        for answer in answers {
            outcomes.push(answer.await.unwrap_or(Err(Error::Gone)));
        }
        outcomes
    }

    /// Keeps events that could not be handled.
    pub(crate) async fn bury(&self, letters: Vec<Letter>) -> Result<(), Error<N::Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.facts.send(Facts::Letters(letters, reply)).await.map_err(|_gone| Error::Gone)?;
        answer.await.unwrap_or(Err(Error::Gone))
    }

    /// Does work on the database that is no noun's, such as to delete what nobody needs any more, in a transaction of its own
    /// between two batches; how many rows it changed. It should be short: all who have something to say wait.
    ///
    /// # Errors
    /// The database failed, or the process is stopping.
    pub async fn chore(
        &self,
        work: impl for<'a> FnOnce(&'a DatabaseTransaction) -> BoxFuture<'a, Result<u64, DbErr>>
        + Send
        + Sync
        + 'static,
    ) -> Result<u64, Error<N::Refusal>> {
        let (reply, answer) = oneshot::channel();
        let chore = Facts::Chore(Box::new(work), reply);
        self.facts.send(chore).await.map_err(|_gone| Error::Gone)?;
        answer.await.unwrap_or(Err(Error::Gone))
    }

    /// Watches what this process does to the nouns that are wanted, from now on: for its own workers, who look into the table
    /// for what others did. People watch with an [`Audience`](crate::Audience).
    #[must_use]
    pub fn watch(&self, wanted: impl Fn(&N) -> bool + Send + Sync + 'static) -> Watcher<N> {
        self.watches.watch(wanted)
    }

    /// Tells an audience what is changed from now on.
    pub(crate) fn tells(&self, audience: Arc<dyn Tell<N>>) {
        self.watches.seat(audience);
    }
}
