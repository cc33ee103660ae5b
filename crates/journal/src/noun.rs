//! What a service decides about. Pure and synchronous: no I/O, no clock, no ids of its own, so that a table of cases tests it all.

use std::{fmt::Debug, future::Future, hash::Hash, sync::Arc};

use bytes::Bytes;
use prost::{Message, Name};
use sea_orm::{DatabaseTransaction, DbErr, EntityTrait, FromQueryResult, ModelTrait, Select};
use uuid::Uuid;

use crate::Time;

/// A noun of the domain: from what it is and what it is told, what it becomes.
pub trait Noun: Clone + PartialEq + Send + Sync + 'static {
    /// Names one noun. A noun may answer to several keys (its id, its caller's request id); they never change.
    type Key: Copy + Eq + Ord + Hash + Debug + Send + Sync + 'static;
    /// All it can be told, by a caller or by an event.
    type Command: Send + Sync + 'static;
    /// Why it said no; one variant for each reason a caller can act on.
    type Refusal: std::error::Error + Send + Sync + 'static;

    /// Which noun a command is for.
    fn key(command: &Self::Command) -> Self::Key;

    /// All keys it answers to. The first is its identity.
    fn keys(&self) -> impl IntoIterator<Item = Self::Key>;

    /// The request that began it; copied into every fact about it.
    fn correlation_id(&self) -> Uuid;

    /// What it becomes. To stay as it is, in silence, is a decision too.
    ///
    /// # Errors
    /// A refusal is an answer, not a failure: nothing changes, and the caller is told why.
    fn decide(
        current: Option<Self>,
        command: &Self::Command,
        now: Time,
    ) -> Result<Decision<Self>, Self::Refusal>;
}

/// What a noun becomes, and the facts to be published about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<N> {
    /// What it is from now on.
    pub state: N,
    /// What others shall hear of it, in this order.
    pub facts: Vec<Fact>,
}

impl<N> From<N> for Decision<N> {
    fn from(state: N) -> Self {
        Self { state, facts: Vec::new() }
    }
}

impl<N> Decision<N> {
    /// Adds a fact: the event itself, whose full message name is its type. `subject` is what it is about.
    #[must_use]
    pub fn and<E: Message + Name>(mut self, subject: Uuid, event: &E) -> Self {
        let payload = event.encode_to_vec().into();
        self.facts.push(Fact { package: E::PACKAGE, name: E::NAME, subject, payload });
        self
    }
}

/// An event before it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The protobuf package of the event.
    pub package: &'static str,
    /// The message name within the package.
    pub name: &'static str,
    /// What it is about.
    pub subject: Uuid,
    /// The encoded event.
    pub payload: Bytes,
}

/// What led to a command; it goes into the metadata of the command's facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// The event that led here; nil for a request, which is known by the request that began it all.
    pub causation_id: Uuid,
    /// W3C trace context of the request or event.
    pub traceparent: Option<Arc<str>>,
    /// Vendors' part of the trace context.
    pub tracestate: Option<Arc<str>>,
}

/// Where a noun is kept: its own struct is the row.
pub trait Table: Noun + FromQueryResult + ModelTrait<Entity: EntityTrait<Model = Self>> {
    /// One query for all of them. The writer adds the locks that a database needs.
    fn find(keys: Vec<Self::Key>) -> Select<Self::Entity>;

    /// The columns that a move may change; all others are written once.
    fn moving() -> Vec<<Self::Entity as EntityTrait>::Column>;

    /// Completes the commands of a batch with what all writers of a database draw from together, such as the next numbers of a
    /// roll. It runs within the batch's transaction, again whenever that is tried again, and before the nouns are loaded: what it
    /// locks is locked before them by every writer, and none waits for another in a circle.
    ///
    /// # Errors
    /// The database failed; the batch is then tried again, as after any failure.
    fn prepare(
        _tx: &DatabaseTransaction,
        _commands: Vec<&mut Self::Command>,
    ) -> impl Future<Output = Result<(), DbErr>> + Send {
        std::future::ready(Ok(()))
    }
}
