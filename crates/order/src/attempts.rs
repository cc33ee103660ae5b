//! Attempts under way, which who asks for the same joins instead of beginning another. Each runs to its end, whatever
//! becomes of those who wait for it.

use chassis::Host;
use futures::{FutureExt as _, future::Shared};
use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{Arc, Mutex},
};
use tokio::sync::oneshot;

/// One attempt for each key at a time. `T` is what all who wait for it are told.
pub(crate) struct Attempts<K, T>(UnderWay<K, T>);

/// Waits for the outcome of an attempt. It has none if the attempt panicked.
pub(crate) type Outcome<T> = Shared<oneshot::Receiver<T>>;

type UnderWay<K, T> = Arc<Mutex<HashMap<K, Outcome<T>>>>;

impl<K, T> Attempts<K, T>
where
    K: Copy + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self(UnderWay::default())
    }

    /// The attempt with this key, which is begun at once if none is under way.
    pub(crate) fn join<F>(&self, host: &Host, key: K, begin: impl FnOnce() -> F) -> Outcome<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let outcome = match self.0.lock().expect("no panic while locked").entry(key) {
            Entry::Occupied(other) => return other.get().clone(),
            Entry::Vacant(vacant) => vacant.insert(told.shared()).clone(),
        };
        let (work, under_way) = (begin(), Guard { attempts: self.0.clone(), key });
        host.track(async move {
            let outcome = work.await;
            // first, so that who comes from now on begins anew, and who waits alone gets the outcome itself and no copy
            drop(under_way);
            let _nobody_waits = tell.send(outcome);
        });
        outcome
    }
}

/// Takes an attempt off the list when it ends, also when it panics.
struct Guard<K: Eq + Hash, T> {
    attempts: UnderWay<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Guard<K, T> {
    fn drop(&mut self) {
        self.attempts.lock().expect("no panic while locked").remove(&self.key);
    }
}
