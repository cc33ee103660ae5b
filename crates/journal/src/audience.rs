//! The audience: all who watch a service's nouns, by what they are interested in. What this process changes they hear at
//! once. What another replica changed is found by looking: one query for all of them together, only while somebody watches,
//! and only where there can be another replica.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use chassis::Host;
use sea_orm::{
    DatabaseConnection, DbBackend, DbErr, EntityName as _, ModelTrait, QuerySelect as _, Select,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    Database, Table, Watcher, Writer, backoff, database,
    watch::{Error, Tell, Watch},
};

/// Interests of one query.
const INTERESTS: usize = 500;
/// Nouns of one look. Where more are open they are walked through, so many at a time: a watch comes later then, and the
/// database has no more to do.
const NOUNS: usize = 1_000;

/// A noun that people watch.
pub trait Watched: Table {
    /// What somebody watches: one noun, all of an owner's, all that wait.
    type Interest: Clone + Eq + Hash + Send + Sync + 'static;

    /// Whose interest it is. It never changes, but for nouns that are nobody's at first.
    fn interest(&self) -> Option<Self::Interest>;

    /// Grows with each change.
    fn revision(&self) -> i64;

    /// It will never change again: nobody need look for it.
    fn has_ended(&self) -> bool;

    /// One query for the nouns of these interests that may still change, in an order of its own, beginning after the one
    /// given. It may find others as well. The limit is added to it.
    fn open(
        interests: Vec<Self::Interest>,
        after: Option<&Self>,
    ) -> Select<<Self as ModelTrait>::Entity>;
}

/// How changes of other replicas are found.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How often they are looked for: twice a second tells everybody within one.
    pub every: Duration,
    /// Whether to look in a file, too. A file is one process's, unless somebody gives it to two.
    pub in_files: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { every: Duration::from_millis(500), in_files: false }
    }
}

/// All who watch. A clone is the same audience.
pub struct Audience<N: Watched>(Arc<Inner<N>>);

struct Inner<N: Watched> {
    seats: Mutex<Seats<N>>,
    /// Somebody came, where nobody was.
    came: Notify,
}

struct Seats<N: Watched> {
    groups: HashMap<N::Interest, Group<N>>,
    /// Whether what was told is remembered: where nobody looks, there is one who tells, and in the right order.
    looks: bool,
    /// The walk that is under way, or was last.
    walk: u64,
    closed: bool,
}

/// Those with one interest.
struct Group<N: Watched> {
    watches: Vec<Weak<Watch<N>>>,
    /// What they were told, so that they are told nothing twice and nothing older.
    told: BTreeMap<N::Key, Told>,
}

#[derive(Clone, Copy)]
struct Told {
    revision: i64,
    /// In which walk it was last seen.
    walk: u64,
    ended: bool,
}

impl<N: Watched> Clone for Audience<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<N: Watched> Audience<N> {
    /// Lets people watch what `writer` changes, and what others change in the same database.
    #[must_use]
    pub fn open(host: &Host, database: &Database, writer: &Writer<N>, config: Config) -> Self {
        let looks = config.in_files || database.pool.get_database_backend() != DbBackend::Sqlite;
        let seats = Seats { groups: HashMap::new(), looks, walk: 0, closed: false };
        let audience = Self(Arc::new(Inner { seats: Mutex::new(seats), came: Notify::new() }));
        writer.tells(audience.0.clone());
        if looks {
            let name = format!("the look at {}", N::Entity::default().table_name());
            let (pool, every) = (database.pool.clone(), config.every);
            host.spawn(name, audience.clone().look(pool, every, host.draining()));
        }
        audience
    }

    /// Watches the nouns of an interest, from now on.
    #[must_use]
    pub fn watch(&self, interest: N::Interest) -> Watcher<N> {
        let mut seats = self.0.seats.lock().expect("no panic while locked");
        let (watcher, watch) = Watcher::new(seats.closed.then_some(Error::Gone));
        if seats.closed {
            return watcher;
        }
        let new = || Group { watches: Vec::new(), told: BTreeMap::new() };
        let group = seats.groups.entry(interest).or_insert_with(new);
        group.watches.retain(|watch| watch.strong_count() > 0);
        group.watches.push(watch);
        drop(seats);
        self.0.came.notify_one();
        watcher
    }

    /// Works until the process drains.
    async fn look(
        self,
        pool: DatabaseConnection,
        every: Duration,
        draining: CancellationToken,
    ) -> anyhow::Result<()> {
        let work = async {
            let mut failed = false;
            loop {
                backoff::pause(every).await;
                let interests = self.interests();
                if interests.is_empty() {
                    self.0.came.notified().await;
                    continue;
                }
                let walked = self.walk(&pool, every, &interests).await;
                if let (Err(error), false) = (&walked, failed) {
                    let error: &(dyn std::error::Error + 'static) = error;
                    tracing::warn!(error, "cannot look for what other replicas changed");
                }
                failed = walked.is_err();
            }
        };
        tokio::select! {
            () = draining.cancelled() => Ok(()),
            never = work => never,
        }
    }

    /// What is watched now; a new walk begins.
    fn interests(&self) -> Vec<N::Interest> {
        let mut seats = self.0.seats.lock().expect("no panic while locked");
        let last = seats.walk;
        seats.walk += 1;
        seats.groups.retain(|_interest, group| {
            group.watches.retain(|watch| watch.strong_count() > 0);
            // no query finds it any more, least of all an older state of it
            group.told.retain(|_key, told| !told.ended || told.walk == last);
            !group.watches.is_empty()
        });
        seats.groups.keys().cloned().collect()
    }

    async fn walk(
        &self,
        pool: &DatabaseConnection,
        every: Duration,
        interests: &[N::Interest],
    ) -> Result<(), DbErr> {
        let most = u64::try_from(NOUNS).expect("a small number");
        for some in interests.chunks(INTERESTS) {
            let mut last = None;
            loop {
                let open = N::open(some.to_vec(), last.as_ref()).limit(most);
                let mut found = database::patiently(open.all(pool)).await?;
                self.0.tell(&[&found]);
                if found.len() < NOUNS {
                    break;
                }
                last = found.pop();
                backoff::pause(every).await;
            }
            // what was open and is so no more; if there is more of it than this, the next walk comes to it
            let gone = self.gone(some);
            if !gone.is_empty() {
                let found = database::patiently(N::find(gone).all(pool)).await?;
                self.0.tell(&[&found]);
            }
        }
        Ok(())
    }

    /// Nouns that were told of and that this walk has not come across.
    fn gone(&self, interests: &[N::Interest]) -> Vec<N::Key> {
        let seats = self.0.seats.lock().expect("no panic while locked");
        let groups = interests.iter().filter_map(|interest| seats.groups.get(interest));
        let gone = groups.flat_map(|group| &group.told);
        let gone = gone.filter(|(_key, told)| !told.ended && told.walk < seats.walk);
        gone.map(|(key, _told)| *key).take(NOUNS).collect()
    }
}

impl<N: Watched> Tell<N> for Inner<N> {
    fn tell(&self, changed: &[&[N]]) {
        let mut seats = self.seats.lock().expect("no panic while locked");
        if seats.groups.is_empty() {
            return;
        }
        let (looks, walk) = (seats.looks, seats.walk);
        for noun in changed.iter().copied().flatten() {
            let group = noun.interest().and_then(|interest| seats.groups.get_mut(&interest));
            let Some(group) = group else { continue };
            if looks && !group.is_news(noun, walk) {
                continue;
            }
            for watch in group.watches.iter().filter_map(Weak::upgrade) {
                watch.tell([noun]);
            }
        }
    }

    fn close(&self) {
        let mut seats = self.seats.lock().expect("no panic while locked");
        seats.closed = true;
        for (_interest, group) in seats.groups.drain() {
            for watch in group.watches.iter().filter_map(Weak::upgrade) {
                watch.end(Error::Gone);
            }
        }
    }
}

impl<N: Watched> Group<N> {
    /// Remembers what is told now, unless the same or something newer was told before.
    fn is_news(&mut self, noun: &N, walk: u64) -> bool {
        let key = noun.keys().into_iter().next().expect("a noun has a key");
        let now = Told { revision: noun.revision(), walk, ended: noun.has_ended() };
        match self.told.get_mut(&key) {
            Some(told) if told.revision >= now.revision => {
                told.walk = walk;
                false
            }
            Some(told) => {
                *told = now;
                true
            }
            None => {
                self.told.insert(key, now);
                true
            }
        }
    }
}
