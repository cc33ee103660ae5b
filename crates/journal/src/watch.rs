//! Watching a writer's changes: the newest state of each noun, as soon as it is stored.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::Notify;

use crate::Noun;

/// Nouns that may wait for one watcher. Above it the watcher is told that it fell behind; it should read the table and watch anew.
const PENDING: usize = 10_000;

/// Why a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More nouns changed than may wait for one watcher.
    #[error("the watcher fell behind")]
    Behind,
    /// The process is stopping.
    #[error("the writer is gone")]
    Gone,
}

/// Hears of each noun that changes and is wanted: its newest state. States in between may be skipped, never reordered.
pub struct Watcher<N: Noun>(Arc<Watch<N>>);

/// What one watcher is to be told.
pub(crate) struct Watch<N: Noun> {
    pending: Mutex<Pending<N>>,
    changed: Notify,
}

struct Pending<N: Noun> {
    order: VecDeque<N::Key>,
    newest: HashMap<N::Key, N>,
    ended: Option<Error>,
}

/// Those who are told what a writer changed.
pub(crate) trait Tell<N: Noun>: Send + Sync {
    /// Called after the commit, so that who subscribes before reading misses nothing.
    fn tell(&self, changed: &[&[N]]);

    /// The writer is stopping.
    fn close(&self);
}

impl<N: Noun> Watcher<N> {
    /// One that hears what the other half is told, as long as it lives; `ended` if that is nothing any more.
    pub(crate) fn new(ended: Option<Error>) -> (Self, Weak<Watch<N>>) {
        let pending = Mutex::new(Pending { order: VecDeque::new(), newest: HashMap::new(), ended });
        let watch = Arc::new(Watch { pending, changed: Notify::new() });
        let told = Arc::downgrade(&watch);
        (Self(watch), told)
    }

    /// Waits for the next noun that changed. A dropped future loses nothing.
    ///
    /// # Errors
    /// When the watch has ended.
    pub async fn next(&mut self) -> Result<N, Error> {
        self.when(|pending| {
            let key = pending.order.pop_front()?;
            pending.newest.remove(&key)
        })
        .await
    }

    /// Waits until a noun changed, and takes all that did: at least one. A dropped future loses nothing.
    ///
    /// # Errors
    /// When the watch has ended.
    pub async fn batch(&mut self) -> Result<Vec<N>, Error> {
        self.when(|pending| {
            let Pending { order, newest, .. } = pending;
            let batch: Vec<N> = order.drain(..).filter_map(|key| newest.remove(&key)).collect();
            (!batch.is_empty()).then_some(batch)
        })
        .await
    }

    async fn when<T>(&mut self, take: impl Fn(&mut Pending<N>) -> Option<T>) -> Result<T, Error> {
        loop {
            {
                let mut pending = self.0.pending.lock().expect("no panic while locked");
                if let Some(taken) = take(&mut pending) {
                    return Ok(taken);
                }
                if let Some(error) = pending.ended {
                    return Err(error);
                }
            }
            self.0.changed.notified().await; // keeps one permit, so nothing is missed in between
        }
    }
}

impl<N: Noun> Watch<N> {
    pub(crate) fn tell<'a>(&self, nouns: impl IntoIterator<Item = &'a N>) {
        self.pending.lock().expect("no panic while locked").add(nouns);
        self.changed.notify_one();
    }

    pub(crate) fn end(&self, why: Error) {
        self.pending.lock().expect("no panic while locked").ended.get_or_insert(why);
        self.changed.notify_one();
    }
}

/// All who watch one writer: a few workers of this process, each with a condition of its own, and the audience.
pub(crate) struct Watches<N: Noun>(Arc<Mutex<Registry<N>>>);

struct Registry<N: Noun> {
    workers: Vec<Worker<N>>,
    audience: Option<Arc<dyn Tell<N>>>,
    closed: bool,
}

struct Worker<N: Noun> {
    wanted: Arc<dyn Fn(&N) -> bool + Send + Sync>,
    watch: Weak<Watch<N>>,
}

impl<N: Noun> Watches<N> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Registry { workers: Vec::new(), audience: None, closed: false })))
    }

    pub(crate) fn watch(&self, wanted: impl Fn(&N) -> bool + Send + Sync + 'static) -> Watcher<N> {
        let mut registry = self.0.lock().expect("no panic while locked");
        let (watcher, watch) = Watcher::new(registry.closed.then_some(Error::Gone));
        registry.workers.retain(|worker| worker.watch.strong_count() > 0);
        registry.workers.push(Worker { wanted: Arc::new(wanted), watch });
        watcher
    }

    pub(crate) fn seat(&self, audience: Arc<dyn Tell<N>>) {
        self.0.lock().expect("no panic while locked").audience = Some(audience);
    }

    /// Tells those concerned.
    pub(crate) fn tell(&self, changed: &[&[N]]) {
        let (workers, audience) = {
            let registry = self.0.lock().expect("no panic while locked");
            let workers = registry.workers.iter();
            let workers =
                workers.filter_map(|worker| Some((worker.wanted.clone(), worker.watch.upgrade()?)));
            (workers.collect::<Vec<_>>(), registry.audience.clone())
        };
        for (wanted, watch) in workers {
            let mut wanted =
                changed.iter().copied().flatten().filter(|noun| wanted(noun)).peekable();
            if wanted.peek().is_some() {
                watch.tell(wanted);
            }
        }
        if let Some(audience) = audience {
            audience.tell(changed);
        }
    }

    /// Ends all watches: the writer is stopping.
    pub(crate) fn close(&self) {
        let mut registry = self.0.lock().expect("no panic while locked");
        registry.closed = true;
        for watch in registry.workers.drain(..).filter_map(|worker| worker.watch.upgrade()) {
            watch.end(Error::Gone);
        }
        if let Some(audience) = &registry.audience {
            audience.close();
        }
    }
}

impl<N: Noun> Clone for Watches<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<N: Noun> Pending<N> {
    fn add<'a>(&mut self, nouns: impl IntoIterator<Item = &'a N>) {
        for noun in nouns {
            if self.ended.is_some() {
                return;
            }
            let key = noun.keys().into_iter().next().expect("a noun has a key");
            if self.newest.insert(key, noun.clone()).is_none() {
                self.order.push_back(key);
            }
            if self.order.len() > PENDING {
                *self = Self {
                    order: VecDeque::new(),
                    newest: HashMap::new(),
                    ended: Some(Error::Behind),
                };
            }
        }
    }
}
