//! What one batch of commands does to the nouns it touches. Pure: the database is read before it and written after it.

use std::{
    any::Any,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use uuid::Uuid;

use crate::{Cause, Fact, Noun, Time};

/// Nouns as loaded, and as decided so far.
pub(crate) struct Fold<N: Noun> {
    slots: Vec<Slot<N>>,
    index: HashMap<N::Key, usize>,
    news: Vec<News>,
}

struct Slot<N> {
    loaded: Option<N>,
    decided: Option<N>,
}

/// A fact, with what a stored event says beside it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct News {
    pub(crate) fact: Fact,
    pub(crate) correlation_id: Uuid,
    pub(crate) cause: Cause,
}

/// What a batch changes.
pub(crate) struct Changes<N> {
    /// Rows that did not exist.
    pub(crate) new: Vec<N>,
    /// Rows that did, and are different now.
    pub(crate) moved: Vec<N>,
    pub(crate) news: Vec<News>,
}

/// Why a command changed nothing.
#[derive(Debug)]
pub(crate) enum No<R> {
    Refused(R),
    /// The noun has a bug: it panicked, with this message.
    Panicked(String),
}

impl<N: Noun> Fold<N> {
    pub(crate) fn new(loaded: Vec<N>) -> Self {
        let mut index = HashMap::with_capacity(loaded.len() * 2);
        for (slot, noun) in loaded.iter().enumerate() {
            index.extend(noun.keys().into_iter().map(|key| (key, slot)));
        }
        let slots =
            loaded.into_iter().map(|noun| Slot { loaded: Some(noun), decided: None }).collect();
        Self { slots, index, news: Vec::new() }
    }

    /// Lets the noun decide, on top of what earlier commands of this batch made of it.
    pub(crate) fn tell(
        &mut self,
        command: &N::Command,
        cause: &Cause,
        now: Time,
    ) -> Result<&N, No<N::Refusal>> {
        let known = self.index.get(&N::key(command)).copied();
        let current = known.and_then(|slot| self.slots[slot].now()).cloned();
        // one command's bug is one caller's error: its neighbours never hear of it
        let decision = catch_unwind(AssertUnwindSafe(|| N::decide(current, command, now)))
            .map_err(|panic| No::Panicked(panic_message(&*panic)))?
            .map_err(No::Refused)?;
        let correlation_id = decision.state.correlation_id();
        self.news.extend(decision.facts.into_iter().map(|fact| News {
            fact,
            correlation_id,
            cause: cause.clone(),
        }));
        let slot = known.unwrap_or_else(|| {
            let slot = self.slots.len();
            self.index.extend(decision.state.keys().into_iter().map(|key| (key, slot)));
            self.slots.push(Slot { loaded: None, decided: None });
            slot
        });
        Ok(self.slots[slot].decided.insert(decision.state))
    }

    pub(crate) fn changes(self) -> Changes<N> {
        let (mut new, mut moved) = (Vec::new(), Vec::new());
        for slot in self.slots {
            match (slot.loaded, slot.decided) {
                (None, Some(now)) => new.push(now),
                (Some(before), Some(now)) if before != now => moved.push(now),
                _ => {}
            }
        }
        Changes { new, moved, news: self.news }
    }
}

impl<N> Slot<N> {
    fn now(&self) -> Option<&N> {
        self.decided.as_ref().or(self.loaded.as_ref())
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}
