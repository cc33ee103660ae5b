//! The bus: how events travel from the service that publishes to all who listen. One closed enum, chosen when a process is
//! put together; a service cannot tell which it was given.

use std::sync::Arc;

use bytes::Bytes;
use prost::{Message, Name};
use uuid::Uuid;

use crate::{
    Time,
    embedded::{self, Embedded},
};

/// An event with all that is told beside it: CloudEvents 1.0, and the W3C trace it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `ce-id`: a `UUIDv7`, which orders the events of one publisher.
    pub id: Uuid,
    /// `ce-type`, and the subject it travels by: the full name of the message.
    pub kind: Arc<str>,
    /// `ce-source`: who publishes.
    pub source: Arc<str>,
    /// `ce-subject`: what it is about.
    pub subject: Uuid,
    /// `ce-time`: when it was stored.
    pub time: Time,
    /// `ce-correlationid`: the request that began it all.
    pub correlation_id: Uuid,
    /// `ce-causationid`: the event or request that led to this one.
    pub causation_id: Uuid,
    /// The W3C trace context it is part of.
    pub traceparent: Option<Arc<str>>,
    /// Vendors' part of the trace context.
    pub tracestate: Option<Arc<str>>,
    /// The encoded message.
    pub payload: Bytes,
    /// `ce-audience`: the one consumer it is told again for; all others have heard it, and need not read it.
    pub audience: Option<Arc<str>>,
    /// What the bus knows repeats by, if not by the id: an event that is told again on purpose is no repeat.
    pub message_id: Option<Arc<str>>,
}

impl Envelope {
    /// An event that nothing led to, as of now.
    #[must_use]
    pub fn of<E: Message + Name>(source: &str, subject: Uuid, event: &E) -> Self {
        let id = Uuid::now_v7();
        Self {
            id,
            kind: E::full_name().into(),
            source: source.into(),
            subject,
            time: Time::now(),
            correlation_id: id,
            causation_id: id,
            traceparent: None,
            tracestate: None,
            payload: event.encode_to_vec().into(),
            audience: None,
            message_id: None,
        }
    }

    /// Whether the consumer of this name is to read it.
    pub(crate) fn is_for(&self, consumer: &str) -> bool {
        self.audience.as_deref().is_none_or(|audience| audience == consumer)
    }
}

/// How events travel. A clone is the same bus.
#[derive(Clone)]
pub enum Bus {
    /// Within this process.
    Embedded(Embedded),
}

/// Why events count as unpublished: they are to be published again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A subscriber ended before it had handled them.
    #[error("a subscriber ended")]
    SubscriberGone,
    /// A subscriber takes very long.
    #[error("a subscriber is busy")]
    SubscriberBusy,
}

impl Bus {
    /// A bus within this process. It needs no store of its own: an event counts as published when every subscriber has
    /// handled it.
    #[must_use]
    pub fn embedded() -> Self {
        Self::Embedded(Embedded::default())
    }

    /// Lets publishing begin, once all who listen have subscribed: before, "every subscriber has handled it" would be true
    /// of nobody. To be called once the process is put together.
    pub fn open(&self) {
        match self {
            Self::Embedded(bus) => bus.open(),
        }
    }

    /// Publishes events, and waits until they are safe with the bus.
    ///
    /// # Errors
    /// They are not, or not all: publish them again.
    pub async fn publish(&self, events: Vec<Arc<Envelope>>) -> Result<(), Error> {
        match self {
            Self::Embedded(bus) => bus.publish(events).await,
        }
    }

    /// From now on, hears all events of these kinds.
    #[must_use]
    pub fn subscribe(&self, kinds: Vec<Arc<str>>) -> Subscription {
        match self {
            Self::Embedded(bus) => Subscription::Embedded(bus.subscribe(kinds)),
        }
    }
}

/// A place to hear events at.
pub enum Subscription {
    /// Of an embedded bus.
    Embedded(embedded::Subscription),
}

/// An event that was heard. Dropped unhandled, it comes again.
pub struct Delivery {
    /// The event.
    pub event: Arc<Envelope>,
    pub(crate) receipt: embedded::Receipt,
}

impl Subscription {
    /// Waits for events and takes what is there: about `most`. None: the bus is gone. A dropped future loses nothing.
    pub async fn next(&mut self, most: usize) -> Option<Vec<Delivery>> {
        match self {
            Self::Embedded(subscription) => subscription.next(most).await,
        }
    }

    /// Takes more of what is there now, until there are about `most`.
    pub fn more(&mut self, deliveries: &mut Vec<Delivery>, most: usize) {
        match self {
            Self::Embedded(subscription) => subscription.more(deliveries, most),
        }
    }
}

impl Delivery {
    /// It is handled, and need not come again.
    pub fn done(self) {
        self.receipt.done();
    }
}
