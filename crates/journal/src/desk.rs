//! The writer's desk. It takes what waits, loads the nouns concerned with one query, lets them decide in memory, and stores
//! nouns and facts in one transaction; then it answers. A batch costs about six statements whatever its size.

use std::{collections::BTreeSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use sea_orm::{
    ConnectionTrait as _, DatabaseTransaction, DbBackend, DbErr, EntityTrait, Iterable as _,
    PrimaryKeyToColumn, QueryOrder as _, QuerySelect as _, sea_query::OnConflict,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    Cause, Database, Envelope, Noun, Outbox, Table, Time,
    backoff::{self, Backoff},
    database,
    dead_letters::{self, Model as Letter},
    fold::{self, Changes, Fold, No},
    marks::{self, Mark},
    rows,
    watch::Watches,
    writer::Error,
};

/// How often a batch is tried when other writers come in between. Each time one of them got on, so that only many of them, and
/// bad luck, can need so many.
const ATTEMPTS: u32 = 10;
/// How long the others are given: about a transaction.
const CONFLICT: Backoff =
    Backoff { first: Duration::from_millis(2), most: Duration::from_millis(50) };

/// How long a chore may take, which may lift the server's own limit: what waits for it meanwhile waits no longer than for a
/// migration.
const CHORE: Duration = Duration::from_secs(60);

pub(crate) struct Desk<N: Table> {
    pub(crate) database: Database,
    pub(crate) outbox: Option<Outbox>,
    pub(crate) watches: Watches<N>,
    pub(crate) batch: usize,
    pub(crate) commands: mpsc::Receiver<Item<N>>,
    pub(crate) facts: mpsc::Receiver<Facts<N>>,
}

/// A command that waits, and where its answer goes.
pub(crate) struct Item<N: Noun> {
    pub(crate) command: N::Command,
    pub(crate) cause: Cause,
    pub(crate) reply: Reply<N>,
}

type Outcome<T, N> = Result<T, Error<<N as Noun>::Refusal>>;

pub(crate) enum Reply<N: Noun> {
    /// Tells what the noun has become.
    State(oneshot::Sender<Outcome<N, N>>),
    /// Tells only that it is done.
    Done(oneshot::Sender<Outcome<(), N>>),
}

/// What has happened elsewhere; it comes before commands.
pub(crate) enum Facts<N: Noun> {
    Heard(Vec<Item<N>>),
    Letters(Vec<Letter>, oneshot::Sender<Outcome<(), N>>),
    Chore(Chore, oneshot::Sender<Outcome<u64, N>>),
}

/// Work on the database that is no noun's, and may be done twice; how many rows it changed.
pub(crate) type Chore = Box<
    dyn for<'a> FnOnce(&'a DatabaseTransaction) -> BoxFuture<'a, Result<u64, DbErr>> + Send + Sync,
>;

/// What one transaction stores.
struct Batch<N: Noun> {
    items: Vec<Item<N>>,
    letters: Vec<Letters<N>>,
    /// Each in a transaction of its own, after that of the others.
    chores: Vec<(Chore, oneshot::Sender<Outcome<u64, N>>)>,
}

type Letters<N> = (Vec<Letter>, oneshot::Sender<Outcome<(), N>>);

/// What one transaction stored: for each item how it ended, with the noun for those who want it.
struct Written<N: Noun> {
    outcomes: Vec<Result<Option<N>, No<N::Refusal>>>,
    new: Vec<N>,
    moved: Vec<N>,
    stored: Vec<Arc<Envelope>>,
}

impl<N: Table> Desk<N> {
    /// Works until the process closes, and then until nothing waits any more.
    pub(crate) async fn run(mut self, closing: CancellationToken) -> anyhow::Result<()> {
        let mut open = true;
        while open {
            let mut batch = Batch::new();
            tokio::select! {
                biased;
                Some(facts) = self.facts.recv() => batch.hear(facts),
                Some(item) = self.commands.recv() => batch.items.push(item),
                () = marks_due(self.outbox.as_ref()) => {}
                () = closing.cancelled() => {
                    self.facts.close();
                    self.commands.close();
                    open = false;
                }
            }
            tokio::task::yield_now().await; // whoever is ready to say something does so first
            self.fill(&mut batch);
            self.settle(batch).await;
        }
        loop {
            let mut batch = Batch::new();
            self.fill(&mut batch);
            if batch.len() == 0 {
                self.watches.close();
                return Ok(());
            }
            self.settle(batch).await;
        }
    }

    /// Facts first: they are true already, and others wait for them to be handled. But not facts alone, or people would wait
    /// as long as there is a backlog.
    fn fill(&mut self, batch: &mut Batch<N>) {
        while batch.len() < self.batch
            && let Ok(facts) = self.facts.try_recv()
        {
            batch.hear(facts);
        }
        let most = self.batch.max(batch.len() + self.batch / 4);
        while batch.len() < most
            && let Ok(item) = self.commands.try_recv()
        {
            batch.items.push(item);
        }
    }

    async fn settle(&self, mut batch: Batch<N>) {
        let chores = std::mem::take(&mut batch.chores);
        self.store(batch).await;
        for (chore, reply) in chores {
            let done = self.chore(chore).await;
            let _nobody_waits = reply.send(done.map_err(|error| Error::Store(Arc::new(error))));
        }
    }

    async fn chore(&self, chore: Chore) -> Result<u64, DbErr> {
        self.database.change(Some(CHORE), self.work(chore)).await
    }

    async fn work(&self, chore: Chore) -> Result<u64, DbErr> {
        let tx = self.database.begin().await?;
        // its bug is its caller's error, and nobody else's
        let rows = AssertUnwindSafe(chore(&tx)).catch_unwind().await;
        let rows = rows.map_err(|panic| DbErr::Custom(fold::panic_message(&*panic)))??;
        tx.commit().await?;
        Ok(rows)
    }

    /// A batch that cannot be stored is done one by one, so that one bad item never fails its neighbours; one that the database
    /// cannot store in time, half by half, or it would be brought again for ever.
    async fn store(&self, mut batch: Batch<N>) {
        let mut attempt = 1;
        let failure = loop {
            match self.write(&mut batch).await {
                Ok(written) => return self.answer(batch, written),
                Err(error) if attempt < ATTEMPTS && database::is_conflict(&error) => {
                    tracing::debug!(%error, "a batch of {} is tried again", batch.len());
                }
                Err(error) => break error,
            }
            backoff::pause(CONFLICT.after(attempt)).await;
            attempt += 1;
        };
        let late = database::is_late(&failure);
        if batch.parts() > 1 && late {
            for half in batch.halves() {
                Box::pin(self.store(half)).await;
            }
        } else if batch.parts() > 1 && !database::is_away(&failure) {
            for one in batch.split() {
                Box::pin(self.store(one)).await;
            }
        } else {
            batch.fail(&Arc::new(failure));
        }
    }

    async fn write(&self, batch: &mut Batch<N>) -> Result<Written<N>, DbErr> {
        let marks = self.outbox.as_ref().map(Outbox::marks).unwrap_or_default();
        let mut of_marks = false;
        let written = self.transact(batch, &marks, &mut of_marks);
        let written = self.database.change(None, written).await;
        let Some(outbox) = &self.outbox else { return written };
        match written {
            Ok(written) => {
                outbox.written(&marks);
                Ok(written)
            }
            // nobody's command fails for the sake of marks
            Err(error) if of_marks && !database::is_conflict(&error) => {
                let written = self.transact(batch, &[], &mut of_marks);
                let written = self.database.change(None, written).await;
                if written.is_ok() {
                    tracing::warn!(%error, "what is published cannot be marked so");
                    outbox.unwritable(marks);
                } else {
                    outbox.unwritten(marks);
                }
                written
            }
            Err(error) => {
                outbox.unwritten(marks);
                Err(error)
            }
        }
    }

    /// `of_marks`: whether it was the marks that could not be written.
    async fn transact(
        &self,
        batch: &mut Batch<N>,
        marks: &[Mark],
        of_marks: &mut bool,
    ) -> Result<Written<N>, DbErr> {
        let now = Time::now();
        let tx = self.database.begin().await?;
        N::prepare(&tx, batch.items.iter_mut().map(|item| &mut item.command).collect()).await?;
        let keys: BTreeSet<N::Key> = batch.items.iter().map(|item| N::key(&item.command)).collect();
        let mut fold: Fold<N> = Fold::new(load(&tx, keys).await?);
        let tell = |item: &Item<N>| {
            let noun = fold.tell(&item.command, &item.cause, now)?;
            Ok(matches!(item.reply, Reply::State(_)).then(|| noun.clone()))
        };
        let outcomes = batch.items.iter().map(tell).collect();
        let Changes { mut new, moved, news } = fold.changes();
        // another writer who inserts some of them does so in the same order: one of us waits, and not each for the other
        new.sort_by_key(|noun| noun.keys().into_iter().next());
        // a key that exists by now is a conflict: load again
        rows::insert(&tx, &new, None).await?;
        // an upsert, because it is the one update of many rows that all databases have
        let update = OnConflict::columns(identity::<N>()).update_columns(N::moving()).to_owned();
        rows::insert(&tx, &moved, Some(&update)).await?;
        let stored = match &self.outbox {
            Some(outbox) => outbox.append(&tx, news, now).await?,
            None => Vec::new(),
        };
        let marked = marks::write(&tx, marks).await;
        *of_marks = marked.is_err();
        marked?;
        for (letters, _) in &batch.letters {
            dead_letters::put(&tx, letters).await?;
        }
        tx.commit().await?;
        Ok(Written { outcomes, new, moved, stored })
    }

    fn answer(&self, batch: Batch<N>, written: Written<N>) {
        let Written { outcomes, new, moved, stored } = written;
        for (item, outcome) in batch.items.into_iter().zip(outcomes) {
            item.reply.tell(outcome.map_err(|no| match no {
                No::Refused(refusal) => Error::Refused(refusal),
                No::Panicked(message) => Error::Panicked(message),
            }));
        }
        for (_, reply) in batch.letters {
            let _nobody_waits = reply.send(Ok(()));
        }
        if let Some(outbox) = &self.outbox {
            outbox.hint(stored);
        }
        self.watches.tell(&[&new, &moved]);
    }
}

/// The nouns with these keys, kept from other writers where a database has several, in the order of their identity: writers who
/// want the same rows wait for each other, and never in a circle.
async fn load<N: Table>(tx: &DatabaseTransaction, keys: BTreeSet<N::Key>) -> Result<Vec<N>, DbErr> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = N::find(keys.into_iter().collect());
    if tx.get_database_backend() != DbBackend::Sqlite {
        for column in identity::<N>() {
            rows = rows.order_by_asc(column);
        }
        rows = rows.lock_exclusive();
    }
    rows.all(tx).await
}

/// The columns that tell rows apart.
fn identity<N: Table>() -> impl Iterator<Item = <N::Entity as EntityTrait>::Column> {
    <N::Entity as EntityTrait>::PrimaryKey::iter().map(PrimaryKeyToColumn::into_column)
}

async fn marks_due(outbox: Option<&Outbox>) {
    match outbox {
        Some(outbox) => outbox.marks_due().await,
        None => std::future::pending().await,
    }
}

impl<N: Noun> Batch<N> {
    fn new() -> Self {
        Self { items: Vec::new(), letters: Vec::new(), chores: Vec::new() }
    }

    fn hear(&mut self, facts: Facts<N>) {
        match facts {
            Facts::Heard(items) => self.items.extend(items),
            Facts::Letters(letters, reply) => self.letters.push((letters, reply)),
            Facts::Chore(chore, reply) => self.chores.push((chore, reply)),
        }
    }

    fn len(&self) -> usize {
        let letters = self.letters.iter().map(|(letters, _)| letters.len()).sum::<usize>();
        self.items.len() + letters + self.chores.len()
    }

    /// What [`Self::split`] makes of it.
    fn parts(&self) -> usize {
        self.items.len() + self.letters.len()
    }

    fn halves(mut self) -> [Self; 2] {
        let items = self.items.split_off(self.items.len() / 2);
        let letters = self.letters.split_off(self.letters.len().div_ceil(2));
        [self, Self { items, letters, ..Self::new() }]
    }

    fn split(self) -> impl Iterator<Item = Self> {
        let items = self.items.into_iter().map(|item| Self { items: vec![item], ..Self::new() });
        let letters =
            self.letters.into_iter().map(|letters| Self { letters: vec![letters], ..Self::new() });
        items.chain(letters)
    }

    fn fail(self, error: &Arc<DbErr>) {
        for item in self.items {
            item.reply.tell(Err(Error::Store(error.clone())));
        }
        for (_, reply) in self.letters {
            let _nobody_waits = reply.send(Err(Error::Store(error.clone())));
        }
    }
}

impl<N: Noun> Reply<N> {
    /// Whoever asked may have gone: what was decided stays decided.
    fn tell(self, outcome: Outcome<Option<N>, N>) {
        match self {
            Self::State(reply) => {
                let state = outcome.map(|noun| noun.expect("the noun was kept for who wants it"));
                let _nobody_waits = reply.send(state);
            }
            Self::Done(reply) => {
                let _nobody_waits = reply.send(outcome.map(drop));
            }
        }
    }
}
