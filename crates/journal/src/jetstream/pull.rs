//! Hearing from the stream: a durable consumer, shared by all processes of a name, and a pull that is made anew whenever it
//! may have stalled. Pulls of the client have been seen to stall in silence after a reconnect.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    ErrorCode,
    consumer::{
        AckPolicy, DeliverPolicy, PullConsumer, StreamError,
        pull::{Config, Stream as Pull},
    },
    context::ConsumerInfoErrorKind,
    stream::ConsumerErrorKind,
};
use futures::{FutureExt as _, StreamExt as _};
use tokio::{
    sync::mpsc,
    task::unconstrained,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    JetStream, Ready, headers,
    receipt::{Origin, Receipt},
};
use crate::{
    backoff::{self, Backoff},
    bus::{self, Delivery},
};

/// Events that one pull asks for. Far more than 10: with few the client stalls for half a minute at a time.
const BATCH: usize = 500;
/// Events that may wait here; the pull keeps as many again. All are handled within a fraction of [`ACK_WAIT`].
const WAITING: usize = 500;
/// How long a delivery may take before the server gives it to another. What is tried again for longer is kept by telling so.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Deliveries of one name under way at a time, in all its processes: several times what each of some replicas holds.
const MAX_ACK_PENDING: i64 = 10_000;
/// How long a pull waits at the server before it is made anew.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often a server with nothing to say says that it is there. After two of these in silence the pull is made anew.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How often it is compared what should come with what comes.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// How soon a pull that failed is made anew.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };
/// How long a consumer without a name lives without us.
const EPHEMERAL: Duration = Duration::from_secs(300);

/// A place to hear what a stream says.
pub struct Subscription(mpsc::Receiver<Delivery>);

impl Subscription {
    pub(crate) async fn next(&mut self, most: usize) -> Option<Vec<Delivery>> {
        let mut deliveries = Vec::new();
        (self.0.recv_many(&mut deliveries, most).await > 0).then_some(deliveries)
    }

    pub(crate) fn more(&mut self, deliveries: &mut Vec<Delivery>, most: usize) {
        while deliveries.len() < most
            && let Ok(delivery) = self.0.try_recv()
        {
            deliveries.push(delivery);
        }
    }
}

impl JetStream {
    pub(crate) fn subscribe(&self, durable: Option<&str>, kinds: &[Arc<str>]) -> Subscription {
        let (deliver, deliveries) = mpsc::channel(WAITING);
        let name = durable.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned);
        let wanted = Config {
            durable_name: durable.map(str::to_owned),
            name: Some(name.clone()),
            deliver_policy: match durable {
                Some(_) => DeliverPolicy::All,
                None => DeliverPolicy::ByStartTime { start_time: async_nats::datetime::now() },
            },
            filter_subjects: kinds.iter().map(ToString::to_string).collect(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // we count for ourselves, and lay aside: the server would only fall silent about it
            max_deliver: -1,
            max_ack_pending: MAX_ACK_PENDING,
            inactive_threshold: if durable.is_some() { Duration::ZERO } else { EPHEMERAL },
            ..Config::default()
        };
        let ear =
            Ear { bus: self.clone(), name: name.clone(), wanted, deliver, drift: String::new() };
        self.host.spawn_last(format!("the ear of {name} on NATS"), ear.run(self.host.closing()));
        Subscription(deliveries)
    }
}

/// Pulls for one subscription.
struct Ear {
    bus: JetStream,
    name: String,
    wanted: Config,
    deliver: mpsc::Sender<Delivery>,
    /// What was said of the consumer last.
    drift: String,
}

/// Why a pull ended.
enum End {
    /// Nobody listens any more.
    Deaf,
    /// The stream may be another.
    Stream,
    /// It stalled, or the server ended it.
    Pull(String),
}

impl Ear {
    async fn run(mut self, closing: CancellationToken) -> anyhow::Result<()> {
        let (mut failures, mut said) = (0, None);
        let deliver = self.deliver.clone();
        loop {
            let ready = tokio::select! {
                () = closing.cancelled() => return Ok(()),
                () = deliver.closed() => break,
                ready = self.bus.ready() => ready,
            };
            let mut heard = 0;
            let end = tokio::select! {
                () = closing.cancelled() => return Ok(()),
                end = self.hear(ready, &mut heard) => end,
            };
            failures = if heard > 0 { 0 } else { failures + 1 };
            match end {
                End::Deaf => break,
                End::Stream => failures = 0,
                End::Pull(why) => {
                    if said.as_ref() != Some(&why) {
                        tracing::info!("{} pulls from NATS anew: {why}", self.name);
                        said = Some(why);
                    }
                    self.bus.look.notify_one(); // the stream may be gone
                    backoff::pause(AGAIN.after(failures)).await;
                }
            }
        }
        drop((self, deliver)); // and with them what was handed over to nobody
        closing.cancelled().await;
        Ok(())
    }

    async fn hear(&mut self, ready: Ready, heard: &mut u64) -> End {
        let consumer = match self.consumer().await {
            Ok(consumer) => consumer,
            Err(why) => return End::Pull(why),
        };
        let pull =
            consumer.stream().max_messages_per_batch(BATCH).expires(EXPIRES).heartbeat(HEARTBEAT);
        let mut pull = match pull.messages().await {
            Ok(pull) => pull,
            Err(error) => return End::Pull(StreamError::to_string(&error)),
        };
        let (now, acks) = (self.bus.ready.clone(), self.bus.acks.clone());
        let origin = Arc::new(Origin { ready, now, acks });
        let end = self.forward(&consumer, &mut pull, &origin, heard).await;
        // what was pulled and not handed over is for others
        while let Some(Some(Ok(message))) = unconstrained(pull.next()).now_or_never() {
            drop(delivery(&origin, message));
        }
        end
    }

    async fn forward(
        &self,
        consumer: &PullConsumer,
        pull: &mut Pull,
        origin: &Arc<Origin>,
        heard: &mut u64,
    ) -> End {
        let mut stream = self.bus.ready.clone();
        let mut watch = interval_at(Instant::now() + WATCH_EVERY, WATCH_EVERY);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at_last_look = *heard;
        loop {
            let changed = async {
                let _the_process_ends =
                    stream.wait_for(|now| *now != Some(origin.ready)).await.map(drop);
            };
            let next = async {
                let Ok(place) = self.deliver.reserve().await else { return Err(End::Deaf) };
                match pull.next().await {
                    Some(Ok(message)) => {
                        place.send(delivery(origin, message));
                        Ok(())
                    }
                    Some(Err(error)) => Err(End::Pull(error.to_string())),
                    None => Err(End::Pull("the pull ended".to_owned())),
                }
            };
            tokio::select! {
                next = next => match next {
                    Ok(()) => *heard += 1,
                    Err(end) => return end,
                },
                () = changed => return End::Stream,
                () = self.deliver.closed() => return End::Deaf,
                _ = watch.tick() => {
                    let idle = *heard == heard_at_last_look && self.deliver.capacity() > 0;
                    heard_at_last_look = *heard;
                    if idle && let Some(why) = stalled(consumer).await {
                        return End::Pull(why);
                    }
                }
            }
        }
    }

    /// The consumer at the server: made if it is not there, and made as it should be if it is not so.
    async fn consumer(&mut self) -> Result<PullConsumer, String> {
        let stream = self.bus.context.get_stream_no_info(&self.bus.stream.name).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let failed = |error: &dyn std::error::Error| {
            format!("NATS does not give us the consumer {}: {error}", self.name)
        };
        let found = match stream.consumer_info(&self.name).await {
            Ok(info) => Some(info),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
            Err(error) => return Err(failed(&error)),
        };
        if let Some(info) = found {
            let drift = drift(&self.wanted, &info.config);
            if drift.is_empty() {
                let consumer = stream.get_consumer(&self.name).await;
                return consumer.map_err(|error| {
                    format!("NATS does not give us the consumer {}: {error}", self.name)
                });
            }
            if self.drift != drift {
                tracing::warn!("the consumer {} in NATS is changed: {drift}", self.name);
                self.drift = drift;
            }
        }
        match stream.create_consumer(self.wanted.clone()).await {
            Ok(consumer) => Ok(consumer),
            Err(error) => match error.kind() {
                // deleted since, or it is what it is: the next pull shows
                ConsumerErrorKind::JetStream(refusal)
                    if refusal.error_code() != ErrorCode::STREAM_NOT_FOUND =>
                {
                    let consumer = stream.get_consumer(&self.name).await;
                    consumer.map_err(|_none| {
                        format!("NATS does not give us the consumer {}: {error}", self.name)
                    })
                }
                _ => Err(format!("NATS does not give us the consumer {}: {error}", self.name)),
            },
        }
    }
}

fn delivery(origin: &Arc<Origin>, message: async_nats::jetstream::Message) -> Delivery {
    let sequence = message.info().map_or(0, |info| info.stream_sequence);
    let message = message.message;
    let created = origin.ready.created.micros().unsigned_abs();
    let (event, read) = headers::read(&message, super::nameless(created, sequence));
    let receipt = Receipt { reply: message.reply, origin: origin.clone() };
    Delivery {
        event: Arc::new(event),
        unreadable: read.err(),
        receipt: bus::Receipt::JetStream(receipt),
    }
}

/// Why a pull that brings nothing should be made anew.
async fn stalled(consumer: &PullConsumer) -> Option<String> {
    match consumer.get_info().await {
        Ok(info) if info.num_pending > 0 => {
            Some(format!("{} events wait, and none comes", info.num_pending))
        }
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn drift(wanted: &Config, found: &async_nats::jetstream::consumer::Config) -> String {
    let mut drift = Vec::new();
    let sorted = |subjects: &[String]| {
        let mut subjects = subjects.to_vec();
        subjects.sort_unstable();
        subjects
    };
    let filter = match found.filter_subject.is_empty() {
        true => sorted(&found.filter_subjects),
        false => vec![found.filter_subject.clone()],
    };
    if sorted(&wanted.filter_subjects) != filter {
        drift.push(format!("filter_subjects are {}", filter.join(", ")));
    }
    if wanted.ack_policy != found.ack_policy {
        drift.push(format!("ack_policy is {:?}", found.ack_policy));
    }
    if wanted.ack_wait != found.ack_wait {
        drift.push(format!("ack_wait is {:?}, not {:?}", found.ack_wait, wanted.ack_wait));
    }
    if wanted.max_deliver != found.max_deliver {
        drift.push(format!("max_deliver is {}, not {}", found.max_deliver, wanted.max_deliver));
    }
    if wanted.max_ack_pending != found.max_ack_pending {
        drift.push(format!(
            "max_ack_pending is {}, not {}",
            found.max_ack_pending, wanted.max_ack_pending
        ));
    }
    drift.join("; ")
}
