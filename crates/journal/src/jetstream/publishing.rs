//! Publishing to the stream: one by one, all on their way at once, or many as one batch.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    ErrorCode,
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
};
use futures::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::{AtomicPublish, JetStream, headers};
use crate::{
    Envelope,
    backoff::{self, Backoff},
    bus::{Error, Published},
};

/// From so many on, one batch costs the server no more than one by one, also where it does not sync each to its disk: it
/// makes files for a batch and deletes them, which at 100 events took 8 % of two cores and a sixth of the shop's rate.
const MANY: usize = 400;
/// What the server takes in one batch.
const ATOMIC_MOST: usize = 1_000;
/// How long to wait when the server takes nothing, for whatever reason.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(5) };
/// How long to wait when the stream is full: a person must give it room, or events grow old.
const AGAIN_FULL: Backoff =
    Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };

/// What the server has not taken lately.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// How often in a row.
    rounds: u32,
    /// When it is tried again.
    until: Option<Instant>,
    /// It was told of.
    told: bool,
    /// The stream is full, and that was told.
    full: bool,
}

impl JetStream {
    /// Waits until there is a stream, publishes, and waits until the server has said what became of each. After a failure it
    /// waits a while more: who publishes again at once would only fail again.
    ///
    /// `generation`: publishes nothing to a stream of another; it may have lost events that come before these.
    pub(crate) async fn publish(
        &self,
        events: &[Arc<Envelope>],
        generation: Option<u64>,
    ) -> Published {
        let begun = self.ready().await;
        if generation.is_some_and(|generation| generation != begun.generation) {
            return events.iter().map(|_| Err(Error::Unknown)).collect();
        }
        let many = match self.atomic {
            AtomicPublish::Auto => MANY,
            AtomicPublish::Always => 2,
            AtomicPublish::Never => usize::MAX,
        };
        let mut published = Published::new();
        for events in events.chunks(ATOMIC_MOST) {
            let batch = match begun.atomic && events.len() >= many {
                true => self.publish_batch(events).await,
                false => None,
            };
            published.extend(match batch {
                Some(published) => published,
                None => self.publish_singly(events).await,
            });
        }
        // Sent before the connection was lost, or after it came back, to a stream that may have lost others before them:
        // as long as nobody has looked, they do not count.
        if *self.ready.borrow() != Some(begun) {
            for published in published.iter_mut().filter(|published| published.is_ok()) {
                *published = Err(Error::Unknown);
            }
        }
        self.wait_after(&published).await;
        published
    }

    async fn publish_singly(&self, events: &[Arc<Envelope>]) -> Published {
        let mut acks = Vec::with_capacity(events.len());
        for event in events {
            let message = PublishMessage::build()
                .headers(headers::write(event))
                .payload(event.payload.clone());
            acks.push(self.context.send_publish(event.kind.to_string(), message).await);
        }
        let acknowledged = acks.into_iter().map(async |ack| match ack {
            // that the server knows the message already is as good
            Ok(ack) => ack.await.map(|ack| Some(ack.sequence)),
            Err(error) => Err(error),
        });
        join_all(acknowledged)
            .await
            .into_iter()
            .map(|ack| ack.map_err(|error| meaning(&error)))
            .collect()
    }

    /// None: it has to be done one by one. The server takes no batch with a message that it knows, and when its answer is
    /// lost, nobody knows which it knows.
    async fn publish_batch(&self, events: &[Arc<Envelope>]) -> Option<Published> {
        let client = self.context.client();
        let batch_id = Uuid::now_v7().to_string();
        let mut last = None;
        for (event, number) in events.iter().zip(1_usize..) {
            let mut headers = headers::write(event);
            headers.insert("Nats-Batch-Id", batch_id.as_str());
            headers.insert("Nats-Batch-Sequence", number.to_string());
            let (subject, payload) = (event.kind.to_string(), event.payload.clone());
            if number < events.len() {
                client.publish_with_headers(subject, headers, payload).await.ok()?;
                continue;
            }
            headers.insert("Nats-Batch-Commit", "1");
            let message = PublishMessage::build().headers(headers).payload(payload);
            last = self.context.send_publish(subject, message).await.ok()?.await.ok();
        }
        let ack = last?;
        let count = u64::try_from(events.len()).ok()?;
        let first = (ack.sequence + 1).checked_sub(count)?;
        (ack.batch_size == Some(count))
            .then(|| (first..=ack.sequence).map(|sequence| Ok(Some(sequence))).collect())
    }

    async fn wait_after(&self, published: &Published) {
        let failed = |error: &&Error| !matches!(error, Error::TooLarge);
        let error = published.iter().filter_map(|one| one.as_ref().err()).find(failed);
        let until = {
            let mut trouble = self.trouble.lock().expect("no panic while locked");
            match error {
                None if trouble.rounds > 0 => {
                    *trouble = Trouble::default();
                    tracing::info!("NATS takes events again");
                    return;
                }
                None => return,
                Some(error) => trouble.add(error),
            }
        };
        self.look.notify_one();
        backoff::pause(until.saturating_duration_since(Instant::now())).await;
    }
}

impl Trouble {
    /// When to try again. Those that fail at the same time are one round, and try again at the same time.
    fn add(&mut self, error: &Error) -> Instant {
        let now = Instant::now();
        if self.until.is_none_or(|until| until <= now) {
            let again = if matches!(error, Error::Full(_)) { AGAIN_FULL } else { AGAIN };
            self.rounds += 1;
            self.until = Some(now + again.after(self.rounds));
        }
        let full = matches!(error, Error::Full(_));
        if (full && !self.full) || self.rounds == 1 && !self.told {
            (self.told, self.full) = (true, full);
            let error: &(dyn std::error::Error + 'static) = error;
            if full {
                tracing::error!(error, "NATS takes no more events: they wait in the outbox");
            } else {
                tracing::warn!(error, "events wait in the outbox to be published again");
            }
        }
        self.until.unwrap_or(now)
    }
}

fn meaning(error: &PublishError) -> Error {
    use std::error::Error as _;
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Error::TooLarge,
        PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending => Error::Unknown,
        PublishErrorKind::StreamNotFound => {
            Error::Refused("there is no stream for them".to_owned())
        }
        PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::WrongLastSequence
        | PublishErrorKind::Other => {
            let refusal = error
                .source()
                .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
            let text = refusal.map_or_else(|| error.to_string(), ToString::to_string);
            match refusal.map(async_nats::jetstream::Error::error_code) {
                Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) => Error::TooLarge,
                Some(ErrorCode::STREAM_STORE_FAILED) if text.contains("maximum") => {
                    Error::Full(text)
                }
                Some(
                    ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                    | ErrorCode::STORAGE_RESOURCES_EXCEEDED
                    | ErrorCode::INSUFFICIENT_RESOURCES,
                ) => Error::Full(text),
                _ => Error::Refused(text),
            }
        }
    }
}
