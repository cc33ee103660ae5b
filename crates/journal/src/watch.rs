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

struct Watch<N: Noun> {
    wanted: Box<dyn Fn(&N) -> bool + Send + Sync>,
    pending: Mutex<Pending<N>>,
    changed: Notify,
}

struct Pending<N: Noun> {
    order: VecDeque<N::Key>,
    newest: HashMap<N::Key, N>,
    ended: Option<Error>,
}

impl<N: Noun> Watcher<N> {
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

/// All who watch one writer.
pub(crate) struct Watches<N: Noun>(Arc<Mutex<Registry<N>>>);

struct Registry<N: Noun> {
    watches: Vec<Weak<Watch<N>>>,
    closed: bool,
}

impl<N: Noun> Watches<N> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Registry { watches: Vec::new(), closed: false })))
    }

    pub(crate) fn watch(&self, wanted: impl Fn(&N) -> bool + Send + Sync + 'static) -> Watcher<N> {
        let mut registry = self.0.lock().expect("no panic while locked");
        let ended = registry.closed.then_some(Error::Gone);
        let pending = Mutex::new(Pending { order: VecDeque::new(), newest: HashMap::new(), ended });
        let watch = Arc::new(Watch { wanted: Box::new(wanted), pending, changed: Notify::new() });
        registry.watches.retain(|watch| watch.strong_count() > 0);
        registry.watches.push(Arc::downgrade(&watch));
        Watcher(watch)
    }

    /// Tells those concerned. Called after the commit, so that who subscribes before reading misses nothing.
    pub(crate) fn tell(&self, changed: &[&[N]]) {
        let watches: Vec<Arc<Watch<N>>> = {
            let registry = self.0.lock().expect("no panic while locked");
            registry.watches.iter().filter_map(Weak::upgrade).collect()
        };
        for watch in watches {
            let mut wanted =
                changed.iter().copied().flatten().filter(|noun| (watch.wanted)(noun)).peekable();
            if wanted.peek().is_some() {
                watch.pending.lock().expect("no panic while locked").add(wanted);
                watch.changed.notify_one();
            }
        }
    }

    /// Ends all watches: the writer is stopping.
    pub(crate) fn close(&self) {
        let mut registry = self.0.lock().expect("no panic while locked");
        registry.closed = true;
        for watch in registry.watches.drain(..).filter_map(|watch| watch.upgrade()) {
            watch.pending.lock().expect("no panic while locked").ended.get_or_insert(Error::Gone);
            watch.changed.notify_one();
        }
    }
}

impl<N: Noun> Clone for Watches<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<N: Noun> Pending<N> {
    fn add<'a>(&mut self, nouns: impl Iterator<Item = &'a N>) {
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
