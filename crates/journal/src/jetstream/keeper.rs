//! The keeper: sees to it that the stream is there, whoever deletes it, and tells when it can be used; says once what is wrong.

use std::{collections::BTreeSet, error::Error as _, sync::Arc, time::Duration};

use async_nats::{
    ClientError, Event, Server, ServerError,
    jetstream::{
        Context, ErrorCode,
        context::{
            CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, RequestError,
            RequestErrorKind,
        },
        stream::{self, DiscardPolicy, Info, RetentionPolicy, StorageType},
    },
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Config, Ready, Stream};
use crate::{Time, backoff::Backoff};

/// How often a stream that is well is looked at: often enough to warn before it is full.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How soon a stream that is not is looked at again.
const LOOK_AGAIN: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };
/// What a stream may keep when nobody says so: some 10 million events.
const MAX_BYTES: i64 = 10 << 30;
/// A server that has no room for so little is full.
const LEAST_BYTES: i64 = 64 << 20;
/// Above so much of what it may keep, a person should look.
const ALARM_PERCENT: u64 = 70;

/// What the client says of a connection that failed. It says no more: the cause comes with [`failed`], at once.
const KINDS: [&str; 3] = ["IO error", "TLS error", "DNS error"];

pub(super) struct Keeper {
    context: Context,
    stream: Arc<Stream>,
    config: Config,
    ready: watch::Sender<Option<Ready>>,
    look: Arc<Notify>,
    generation: u64,
    connected: bool,
    /// What was said last, so as to say it once.
    said: Said,
}

#[derive(Default)]
struct Said {
    problem: Option<String>,
    drift: Vec<String>,
    old_server: bool,
    little_room: bool,
}

/// A setting of the stream that somebody changed.
struct Drift {
    /// It may lose events.
    loses: bool,
    text: String,
}

impl Keeper {
    pub(super) fn new(
        context: Context,
        stream: Arc<Stream>,
        config: Config,
        ready: watch::Sender<Option<Ready>>,
        look: Arc<Notify>,
    ) -> Self {
        let said = Said::default();
        Self { context, stream, config, ready, look, generation: 0, connected: false, said }
    }

    pub(super) async fn run(
        mut self,
        mut news: mpsc::Receiver<Event>,
        closing: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut failures = 0;
        let mut next = Instant::now() + LOOK_EVERY;
        loop {
            tokio::select! {
                () = closing.cancelled() => return Ok(()),
                Some(event) = news.recv() => {
                    if !self.hear(&event) {
                        continue;
                    }
                }
                () = self.look.notified(), if self.connected => {}
                () = sleep_until(next), if self.connected => {}
            }
            match self.check().await {
                Ok(()) => {
                    failures = 0;
                    next = Instant::now() + LOOK_EVERY;
                }
                Err(problem) => {
                    failures += 1;
                    self.unusable(problem);
                    next = Instant::now() + LOOK_AGAIN.after(failures);
                }
            }
        }
    }

    /// Whether there is a new connection.
    fn hear(&mut self, event: &Event) -> bool {
        let url = &self.config.url;
        match event {
            Event::Connected => {
                self.connected = true;
                // whatever we knew of the stream, it may be another
                self.ready.send_if_modified(|ready| ready.take().is_some());
                return true;
            }
            Event::Disconnected | Event::Closed => {
                self.connected = false;
                self.unusable(format!("the connection to NATS at {url} (--bus-url) is lost"));
            }
            Event::ServerError(ServerError::AuthorizationViolation) => self.refused(),
            Event::ClientError(error) if !self.connected => {
                let error = match error {
                    ClientError::Other(error) => error.clone(),
                    other => other.to_string(),
                };
                if error.contains("authorization") || error.contains("authentication") {
                    self.refused();
                } else if !KINDS.contains(&&*error) {
                    let answered = !error.contains("refused") && !error.contains("DNS");
                    let tls =
                        if answered && url.asks_for_tls() { " (does it speak TLS?)" } else { "" };
                    self.unusable(format!(
                        "NATS at {url} cannot be reached (--bus-url): {error}{tls}"
                    ));
                }
            }
            Event::ServerError(error) => tracing::warn!("NATS says: {error}"),
            Event::ClientError(error) => tracing::debug!("NATS: {error}"),
            Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) => {
                tracing::debug!("NATS: {event}");
            }
        }
        false
    }

    fn refused(&mut self) {
        let url = &self.config.url;
        self.unusable(format!(
            "NATS at {url} refuses our credentials (--bus-url, --bus-credentials, --bus-nkey)"
        ));
    }

    /// Once for each problem: it is tried again and again.
    fn unusable(&mut self, problem: String) {
        self.ready.send_if_modified(|ready| ready.take().is_some());
        if self.said.problem.as_ref() != Some(&problem) {
            tracing::warn!("{problem}: events wait in the outbox, all else goes on");
            self.said.problem = Some(problem);
        }
    }

    async fn check(&mut self) -> Result<(), String> {
        let stream = self.stream.clone();
        let name = &stream.name;
        let info = match self.context.get_stream(name).await {
            Ok(stream) => stream.cached_info().clone(),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    self.create().await?
                }
                _ if has_no_jetstream(&error) => {
                    let url = &self.config.url;
                    return Err(format!(
                        "NATS at {url} (--bus-url) has no JetStream for us: start it with -js"
                    ));
                }
                GetStreamErrorKind::JetStream(error) => {
                    return Err(format!("NATS has no stream {name} for us: {error}"));
                }
                _ => return Err(format!("NATS does not tell of the stream {name}: {error}")),
            },
        };
        self.report(&info);
        let created = i64::try_from(info.created.unix_timestamp_nanos() / 1_000);
        let created = Time::from_micros(created.unwrap_or(i64::MAX));
        let atomic = info.config.allow_atomic_publish;
        let before = *self.ready.borrow();
        if before.is_none_or(|before| before.created != created || before.atomic != atomic) {
            self.generation += 1;
            let generation = self.generation;
            self.ready.send_replace(Some(Ready { generation, created, atomic }));
            self.said.problem = None;
            tracing::info!("NATS at {} has the stream {name}", self.config.url);
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<Info, String> {
        let mut wanted = self.wanted();
        loop {
            let error = match self.context.create_stream(wanted.clone()).await {
                Ok(stream) => {
                    tracing::info!("created the stream {} in NATS", self.stream.name);
                    return Ok(stream.cached_info().clone());
                }
                Err(error) => error,
            };
            let no_room = match error.kind() {
                CreateStreamErrorKind::JetStream(error) => [
                    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
                    ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
                    ErrorCode::INSUFFICIENT_RESOURCES,
                ]
                .contains(&error.error_code()),
                _ => false,
            };
            if !no_room || self.config.max_bytes.is_some() || wanted.max_bytes <= LEAST_BYTES {
                let cure = if no_room { " (--stream-max-bytes)" } else { "" };
                let name = &self.stream.name;
                return Err(format!("NATS does not create the stream {name}{cure}: {error}"));
            }
            // nobody said how much: what the server has
            wanted.max_bytes /= 2;
        }
    }

    fn wanted(&mut self) -> stream::Config {
        let atomic = self.context.client().is_server_compatible(2, 12, 0);
        if !atomic && !self.said.old_server {
            self.said.old_server = true;
            tracing::info!(
                "NATS is older than 2.12: events are published one by one, without atomic batches"
            );
        }
        let max_bytes = self.config.max_bytes.map(i64::try_from);
        stream::Config {
            name: self.stream.name.clone(),
            subjects: self.stream.subjects.clone(),
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            // a full stream refuses, and events wait in the outbox; the other way it would lose them
            discard: DiscardPolicy::New,
            max_bytes: max_bytes.map_or(MAX_BYTES, |bytes| bytes.unwrap_or(i64::MAX)),
            max_age: self.config.max_age,
            duplicate_window: self.config.duplicate_window,
            num_replicas: usize::from(self.config.replicas),
            allow_atomic_publish: atomic,
            ..stream::Config::default()
        }
    }

    /// What somebody changed is left as it is: there may be a reason.
    fn report(&mut self, info: &Info) {
        let wanted = self.wanted();
        let drift = drift(&wanted, &info.config, self.config.max_bytes.is_some());
        let texts: Vec<_> = drift.iter().map(|drift| drift.text.clone()).collect();
        if self.said.drift != texts {
            for Drift { loses, text } in drift {
                let name = &self.stream.name;
                if loses {
                    tracing::error!("the stream {name} in NATS may lose events: {text}");
                } else {
                    tracing::warn!("the stream {name} in NATS is not as it should be: {text}");
                }
            }
            self.said.drift = texts;
        }
        let most = u64::try_from(info.config.max_bytes).unwrap_or(0);
        let percent = info.state.bytes.saturating_mul(100).checked_div(most).unwrap_or(0);
        if percent >= ALARM_PERCENT && !self.said.little_room {
            tracing::warn!(
                "the stream {} in NATS is {percent} % full: give it more room (--stream-max-bytes)",
                self.stream.name
            );
        }
        self.said.little_room = percent >= ALARM_PERCENT;
    }
}

/// What failed, for the keeper to hear: the client's own events name the kind of a failure, and not its cause. None, as long as
/// there is a server that has not failed.
pub(super) fn failed(servers: &[Server]) -> Option<Event> {
    let errors: Option<BTreeSet<&str>> =
        servers.iter().map(|server| server.last_error.as_deref()).collect();
    let errors = Vec::from_iter(errors?).join("; ");
    Some(Event::ClientError(ClientError::Other(errors)))
}

/// Nobody answers, or the server says so.
fn has_no_jetstream(error: &GetStreamError) -> bool {
    if let GetStreamErrorKind::JetStream(error) = error.kind() {
        return [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT]
            .contains(&error.error_code());
    }
    let request = error.source().and_then(|source| source.downcast_ref::<RequestError>());
    request.is_some_and(|request| request.kind() == RequestErrorKind::NoResponders)
}

fn drift(wanted: &stream::Config, found: &stream::Config, bytes: bool) -> Vec<Drift> {
    let mut drift = Vec::new();
    let mut differ = |differs: bool, loses, field, wanted: String, found: String| {
        if differs {
            let text = format!("{field} is {found}, not {wanted}");
            drift.push(Drift { loses, text });
        }
    };
    let missing = wanted.subjects.iter().any(|subject| !found.subjects.contains(subject));
    let text = |subjects: &[String]| subjects.join(", ");
    differ(missing, true, "subjects", text(&wanted.subjects), text(&found.subjects));
    macro_rules! field {
        ($field:ident, $loses:expr, $name:expr) => {
            let (wanted, found) = (&wanted.$field, &found.$field);
            differ(wanted != found, $loses, $name, format!("{wanted:?}"), format!("{found:?}"));
        };
    }
    field!(storage, true, "storage");
    field!(retention, true, "retention");
    field!(discard, true, "discard");
    field!(max_age, false, "max_age (--stream-max-age)");
    field!(duplicate_window, false, "duplicate_window (--stream-duplicate-window)");
    field!(num_replicas, false, "replicas (--stream-replicas)");
    field!(allow_atomic_publish, false, "allow_atomic");
    if bytes {
        field!(max_bytes, false, "max_bytes (--stream-max-bytes)");
    }
    drift
}
