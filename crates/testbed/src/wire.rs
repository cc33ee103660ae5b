//! What the processes of one test hear each other by: the bus of this run. It outlives each of them, as their databases do.

use crate::{
    Nats,
    matrix::{self, BusKind},
    until,
};
use async_nats::jetstream::{self, Context, consumer::Info, stream::Stream};
use chassis::Host;
use journal::{Bus, Envelope, bus};
use std::{fmt, sync::Arc, time::Duration};
use uuid::Uuid;

/// As in a shop: publishers and consumers name the same.
const STREAM: &str = "STARCOFFEE";
/// What a stream may keep: many times what a test says, so that many tests at once have room.
const MAX_BYTES: u64 = 64 << 20;
/// Long enough for a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The bus of this run, between the processes of one test. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Wire(Option<Server>);

/// A nats-server that the test has for itself.
#[derive(Clone)]
struct Server {
    nats: Arc<Nats>,
    /// As an administrator sees it.
    look: Context,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.nats.fmt(f)
    }
}

impl Wire {
    /// A new one, with a nats-server if this run's bus needs one.
    ///
    /// # Panics
    /// The server cannot be started: what to install.
    pub async fn open() -> Self {
        if matrix::bus() == BusKind::Embedded {
            return Self(None);
        }
        let nats = Nats::start().await.expect("a nats-server");
        let client = async_nats::connect(nats.url()).await.expect("it runs");
        Self(Some(Server { nats: Arc::new(nats), look: jetstream::new(client) }))
    }

    /// The bus of a process called `name`; an embedded one is the process's own.
    ///
    /// # Panics
    /// Our own settings make no sense.
    pub async fn bus(&self, host: &Host, name: &str) -> Bus {
        let Some(Server { nats, .. }) = &self.0 else { return Bus::embedded() };
        let (url, max_bytes) = (bus::Url::from(&*nats.url()), Some(MAX_BYTES));
        let config = bus::Config { url, max_bytes, ..bus::Config::default() };
        let subjects = vec!["starcoffee.>".to_owned()];
        let stream = bus::Stream { name: STREAM.to_owned(), subjects };
        Bus::connect(host, &config, stream, name).await.expect("its settings make sense")
    }

    /// Events, until the consumer of this name has handled all that it listens to. Told twice, they come twice.
    ///
    /// # Panics
    /// They are not published, or not handled in time.
    pub async fn tell(&self, bus: &Bus, consumer: &str, events: Vec<Envelope>) {
        let Some(Server { look, .. }) = &self.0 else {
            let events = events.into_iter().map(Arc::new).collect();
            return bus.publish(events).await.expect("the bus is open");
        };
        let mut kinds: Vec<_> = events.iter().map(|event| event.kind.clone()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        // or the server would take a second one for the first
        let edition = || Some(Uuid::now_v7().to_string().into());
        let events = events.into_iter().map(|event| Envelope { edition: edition(), ..event });
        bus.publish(events.map(Arc::new).collect()).await.expect("the server has them");
        let stream = look.get_stream_no_info(STREAM).await.expect("it has events");
        let mut last = Vec::new();
        for kind in kinds {
            let event = stream.get_last_raw_message_by_subject(&kind).await;
            last.push((kind, event.expect("one was just published").sequence));
        }
        let handled = async || handled(&stream, consumer, &last).await.then_some(());
        until("what was told to be handled", SOON, handled).await.expect("it is in time");
    }
}

/// Whether the consumer has handled all events of some kinds up to these sequences, as far as it listens to them.
async fn handled(stream: &Stream<()>, consumer: &str, last: &[(Arc<str>, u64)]) -> bool {
    let Ok(Info { config, delivered, num_ack_pending, .. }) = stream.consumer_info(consumer).await
    else {
        return false; // it is not yet made
    };
    let wanted = |kind: &str| {
        config.filter_subject == kind || config.filter_subjects.iter().any(|one| one == kind)
    };
    let mut wanted = last.iter().filter(|(kind, _sequence)| wanted(kind));
    num_ack_pending == 0 && wanted.all(|(_kind, last)| delivered.stream_sequence >= *last)
}
