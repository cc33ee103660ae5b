//! The bus: how events travel from the service that publishes to all who listen. One closed enum, chosen when a process is
//! put together; a service cannot tell which it was given.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use prost::{Message, Name};
use uuid::Uuid;

use crate::{
    Malformed, Time,
    embedded::{self, Embedded},
    jetstream::{self, JetStream},
};

pub use crate::jetstream::{AtomicPublish, Config, Stream, Url};

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
    /// None the first time it is published; else which publication this is. A server that has seen a message's id lately
    /// takes no second one, so each publication has an id of its own.
    pub edition: Option<Arc<str>>,
    /// The one consumer it is meant for; all others take it as handled, unread. None: for all.
    pub audience: Option<Arc<str>>,
    /// The encoded message.
    pub payload: Bytes,
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
            edition: None,
            audience: None,
            payload: event.encode_to_vec().into(),
        }
    }

    /// What the message is called that carries it: never the same for two publications.
    #[must_use]
    pub fn message_id(&self) -> String {
        message_id(self.id, self.edition.as_deref())
    }

    /// Whether the consumer of this name is to read it.
    pub(crate) fn is_for(&self, consumer: &str) -> bool {
        self.audience.as_deref().is_none_or(|audience| audience == consumer)
    }
}

pub(crate) fn message_id(id: Uuid, edition: Option<&str>) -> String {
    match edition {
        None => id.to_string(),
        Some(edition) => format!("{id}.{edition}"),
    }
}

/// How events travel. A clone is the same bus.
#[derive(Clone)]
pub enum Bus {
    /// Within this process.
    Embedded(Embedded),
    /// Between processes, by a NATS server.
    JetStream(Arc<JetStream>),
}

/// Why events count as unpublished: they are to be published again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A subscriber ended before it had handled them.
    #[error("a subscriber ended")]
    SubscriberGone,
    /// A subscriber takes very long.
    #[error("a subscriber is busy")]
    SubscriberBusy,
    /// The server did not say that it has them; it may have.
    #[error("NATS did not say in time that it has the events")]
    Unknown,
    /// The stream takes no more until it has been given more room, or until events have grown old.
    #[error("the stream is full (--stream-max-bytes): {0}")]
    Full(String),
    /// The event is larger than the server takes.
    #[error("the event is larger than NATS takes (max_payload)")]
    TooLarge,
    /// The server refused them.
    #[error("NATS refuses the events: {0}")]
    Refused(String),
}

/// What became of each event, in their order: its sequence in the stream, where there is one.
pub(crate) type Published = Vec<Result<Option<u64>, Error>>;

impl Bus {
    /// A bus within this process. It needs no store of its own: an event counts as published when every subscriber has
    /// handled it.
    #[must_use]
    pub fn embedded() -> Self {
        Self::Embedded(Embedded::default())
    }

    /// The bus that `config` names, for a process called `name`. Never waits for a server: while there is none, events wait
    /// in their outboxes.
    ///
    /// # Errors
    /// A setting makes no sense, or names a file that cannot be read: which.
    pub async fn connect(
        host: &chassis::Host,
        config: &Config,
        stream: Stream,
        name: &str,
    ) -> anyhow::Result<Self> {
        if config.url.is_embedded() {
            return Ok(Self::embedded());
        }
        let bus = JetStream::connect(host, config, stream, name).await;
        bus.map(|bus| Self::JetStream(Arc::new(bus))).context("cannot use the bus")
    }

    /// Lets publishing begin, once all who listen have subscribed: before, "every subscriber has handled it" would be true
    /// of nobody. To be called once the process is put together. A server keeps events for who comes later.
    pub fn open(&self) {
        match self {
            Self::Embedded(bus) => bus.open(),
            Self::JetStream(_) => {}
        }
    }

    /// Publishes events, and waits until they are safe with the bus.
    ///
    /// # Errors
    /// They are not, or not all: publish them again.
    pub async fn publish(&self, events: Vec<Arc<Envelope>>) -> Result<(), Error> {
        self.publish_each(&events, None)
            .await
            .into_iter()
            .try_for_each(|published| published.map(drop))
    }

    /// As [`Self::publish`]: what became of each. `generation`: of the stream that they are meant for, if there is one.
    pub(crate) async fn publish_each(
        &self,
        events: &[Arc<Envelope>],
        generation: Option<u64>,
    ) -> Published {
        match self {
            Self::Embedded(bus) => {
                let published = bus.publish(events).await;
                events.iter().map(|_| published.clone().map(|()| None)).collect()
            }
            Self::JetStream(bus) => bus.publish(events, generation).await,
        }
    }

    /// Hears all events of these kinds. Who has a name (`durable`) shares them with all of this name, and finds what was said
    /// while it was away; who has none hears all from now on. An embedded bus keeps nothing: there, all hear all from now on.
    #[must_use]
    pub fn subscribe(&self, durable: Option<&str>, kinds: Vec<Arc<str>>) -> Subscription {
        match self {
            Self::Embedded(bus) => Subscription::Embedded(bus.subscribe(kinds)),
            Self::JetStream(bus) => Subscription::JetStream(bus.subscribe(durable, &kinds)),
        }
    }
}

/// A place to hear events at.
pub enum Subscription {
    /// Of an embedded bus.
    Embedded(embedded::Subscription),
    /// Of a NATS server.
    JetStream(jetstream::Subscription),
}

/// An event that was heard. Dropped unhandled, it comes again.
pub struct Delivery {
    /// The event; of one that cannot be read, what could be.
    pub event: Arc<Envelope>,
    /// Why it cannot be read.
    pub(crate) unreadable: Option<Malformed>,
    pub(crate) receipt: Receipt,
}

/// How to tell the bus what became of a delivery.
pub(crate) enum Receipt {
    Embedded(embedded::Receipt),
    JetStream(jetstream::Receipt),
}

impl Subscription {
    /// Waits for events and takes what is there: about `most`. None: the bus is gone. A dropped future loses nothing.
    pub async fn next(&mut self, most: usize) -> Option<Vec<Delivery>> {
        match self {
            Self::Embedded(subscription) => subscription.next(most).await,
            Self::JetStream(subscription) => subscription.next(most).await,
        }
    }

    /// Takes more of what is there now, until there are about `most`.
    pub fn more(&mut self, deliveries: &mut Vec<Delivery>, most: usize) {
        match self {
            Self::Embedded(subscription) => subscription.more(deliveries, most),
            Self::JetStream(subscription) => subscription.more(deliveries, most),
        }
    }
}

impl Delivery {
    /// It is handled, and need not come again.
    pub fn done(self) {
        match self.receipt {
            Receipt::Embedded(receipt) => receipt.done(),
            Receipt::JetStream(receipt) => receipt.done(),
        }
    }

    /// It is laid aside, and shall not come again.
    pub(crate) fn laid_aside(self) {
        match self.receipt {
            Receipt::Embedded(receipt) => receipt.done(),
            Receipt::JetStream(receipt) => receipt.laid_aside(),
        }
    }

    /// It is still being worked at: it need not come to another yet.
    pub(crate) fn keep(&self) {
        match &self.receipt {
            Receipt::Embedded(_) => {}
            Receipt::JetStream(receipt) => receipt.keep(),
        }
    }
}
