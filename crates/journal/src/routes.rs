//! Which events a service listens to, and what each tells its noun: one function for each event.

use std::{collections::HashMap, sync::Arc};

use prost::{Message, Name};

use crate::Envelope;

/// An event that cannot be read. To read it again would not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event is malformed: {0}")]
pub struct Malformed(String);

impl Malformed {
    /// For this reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// A field has no value, or none that we know.
    #[must_use]
    pub fn missing(field: &'static str) -> Self {
        Self(format!("{field} is missing"))
    }
}

impl From<uuid::Error> for Malformed {
    fn from(error: uuid::Error) -> Self {
        Self(format!("an id is no UUID: {error}"))
    }
}

type Route<C> = Arc<dyn Fn(&Envelope) -> Result<C, Malformed> + Send + Sync>;

/// What each event tells, by its kind. A clone tells the same.
pub struct Routes<C>(HashMap<Arc<str>, Route<C>>);

impl<C> Clone for Routes<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C> Routes<C> {
    /// Listens to nothing.
    #[must_use]
    #[allow(
        clippy::new_without_default,
        reason = "a service that listens to nothing has no routes"
    )]
    pub fn new() -> Self {
        Self(HashMap::new())
    }

    /// Also listens to this event. `read` is given what is told beside it, too.
    #[must_use]
    pub fn on<E: Message + Name + Default>(
        mut self,
        read: impl Fn(&Envelope, E) -> Result<C, Malformed> + Send + Sync + 'static,
    ) -> Self {
        let route = move |envelope: &Envelope| {
            let event = E::decode(envelope.payload.clone());
            read(envelope, event.map_err(|error| Malformed::new(error.to_string()))?)
        };
        self.0.insert(E::full_name().into(), Arc::new(route));
        self
    }

    pub(crate) fn kinds(&self) -> Vec<Arc<str>> {
        self.0.keys().cloned().collect()
    }

    /// What an event tells.
    ///
    /// # Errors
    /// It is malformed, or of a kind that nobody asked for.
    pub fn read(&self, envelope: &Envelope) -> Result<C, Malformed> {
        let route = self.0.get(&envelope.kind);
        route.ok_or_else(|| Malformed::new(format!("nobody asked for {}", envelope.kind)))?(
            envelope,
        )
    }
}
