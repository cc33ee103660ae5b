//! The bus between processes: one stream of a NATS server with JetStream. It is never waited for when a process starts, and
//! whatever becomes of it (gone, restarted, its stream deleted or restored from an older copy), it is used again as soon as
//! it can be.

mod headers;
mod keeper;
mod publishing;
mod pull;
mod receipt;
mod settings;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use async_nats::{ConnectOptions, jetstream::Context};
use bytes::Bytes;
use chassis::Host;
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

use crate::{Time, backoff::Backoff, bus::Error};

pub(crate) use pull::Subscription;
pub(crate) use receipt::Receipt;
pub use settings::{AtomicPublish, Config, Stream, Url};

/// How long a server may take to answer. A publication that is not acknowledged by then is published again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often a silent server is asked whether it is there; after the third time it counts as gone, as a frozen one is.
const PING_EVERY: Duration = Duration::from_secs(3);
/// Between two attempts to connect: soon at first, since a server that restarts is back within seconds.
const RECONNECT: Backoff =
    Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };
/// News of the connection that may wait for the keeper. It looks for itself from time to time, so one that is lost is no harm.
const NEWS: usize = 256;
/// Publications on their way to the server at a time: as many as the relays of a process have under way.
const UNDER_WAY: usize = 64_000;

/// A bus between processes. A clone is the same bus.
#[derive(Clone)]
pub struct JetStream {
    context: Context,
    stream: Arc<Stream>,
    /// Of the stream.
    name: Arc<str>,
    atomic: AtomicPublish,
    max_age: Duration,
    pub(crate) ready: watch::Receiver<Option<Ready>>,
    /// Has the keeper look at the stream now.
    look: Arc<Notify>,
    trouble: Arc<Mutex<publishing::Trouble>>,
    acks: mpsc::UnboundedSender<Ack>,
    host: Host,
}

/// A stream that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    /// How often it became so: after each time it may have lost something.
    pub(crate) generation: u64,
    /// When the stream was created, by its server's clock.
    pub(crate) created: Time,
    /// It takes batches as a whole.
    atomic: bool,
}

/// What to tell the server about a delivery: of which stream it is, where, and what.
type Ack = (Arc<receipt::Origin>, async_nats::Subject, Bytes);

impl JetStream {
    pub(crate) async fn connect(
        host: &Host,
        config: &Config,
        stream: Stream,
        name: &str,
    ) -> anyhow::Result<Self> {
        let servers = config.url.servers()?;
        anyhow::ensure!(
            config.duplicate_window <= config.max_age,
            "--stream-duplicate-window must not be longer than --stream-max-age"
        );
        let (tell, news) = mpsc::channel(NEWS);
        let tell_failed = tell.clone();
        let options = options(config, &servers).await?.name(name);
        let options = options.event_callback(move |event| {
            let _full = tell.try_send(event);
            std::future::ready(())
        });
        // asked before each attempt which server it likes: it likes them all, and sees what is wrong with them
        let options = options.reconnect_to_server_callback(move |servers, _info| {
            let _full = keeper::failed(&servers).map(|failed| tell_failed.try_send(failed));
            std::future::ready(None)
        });
        let client = options.connect(servers).await.context("--bus-url")?;
        let context = async_nats::jetstream::context::ContextBuilder::new()
            .timeout(ANSWER_WITHIN)
            .ack_timeout(ANSWER_WITHIN)
            .max_ack_inflight(UNDER_WAY)
            .build(client.clone());
        let (tell_ready, ready) = watch::channel(None);
        let (acks, to_ack) = mpsc::unbounded_channel();
        let look = Arc::new(Notify::new());
        let stream = Arc::new(stream);
        let (kept, settings) = (stream.clone(), config.clone());
        let keeper = keeper::Keeper::new(context.clone(), kept, settings, tell_ready, look.clone());
        host.spawn_last(format!("the keeper of the stream {}", stream.name), {
            keeper.run(news, host.closing())
        });
        host.spawn_last(
            "what tells NATS what is handled",
            receipt::ack(client, to_ack, host.closing()),
        );
        let (atomic, max_age) = (config.atomic_publish, config.max_age);
        let (trouble, host) = (Arc::default(), host.clone());
        let name = Arc::from(&*stream.name);
        Ok(Self { context, stream, name, atomic, max_age, ready, look, trouble, acks, host })
    }

    /// Waits until there is a stream.
    async fn ready(&self) -> Ready {
        let mut ready = self.ready.clone();
        loop {
            if let Some(ready) = *ready.borrow_and_update() {
                return ready;
            }
            if ready.changed().await.is_err() {
                std::future::pending::<()>().await; // the process ends
            }
        }
    }

    /// The first and the last sequence that the stream has.
    pub(crate) async fn kept(&self) -> Result<(u64, u64), Error> {
        let stream = self.context.get_stream(&self.stream.name).await;
        let stream = stream.map_err(|error| Error::Refused(error.to_string()))?;
        let state = &stream.cached_info().state;
        Ok((state.first_sequence, state.last_sequence))
    }

    /// The id of the message with this sequence, if the stream has it.
    pub(crate) async fn message_id_at(&self, sequence: u64) -> Result<Option<String>, Error> {
        use async_nats::jetstream::stream::RawMessageErrorKind;
        let refused = |error: &dyn std::error::Error| Error::Refused(error.to_string());
        let stream = self.context.get_stream_no_info(&self.stream.name).await;
        let stream = stream.map_err(|error| refused(&error))?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => {
                let id = message.headers.get(async_nats::header::NATS_MESSAGE_ID);
                Ok(Some(id.map(ToString::to_string).unwrap_or_default()))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    /// The name of the stream.
    pub(crate) fn stream_name(&self) -> &Arc<str> {
        &self.name
    }

    /// How long the stream keeps an event.
    pub(crate) fn max_age(&self) -> Duration {
        self.max_age
    }
}

/// How to connect: for ever, and not all at once.
async fn options(
    config: &Config,
    servers: &[async_nats::ServerAddr],
) -> anyhow::Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| match u32::try_from(attempts) {
            Ok(0 | 1) => Duration::ZERO,
            Ok(attempts) => RECONNECT.after(attempts - 1),
            Err(_very_many) => RECONNECT.most,
        })
        .connection_timeout(ANSWER_WITHIN)
        .request_timeout(Some(ANSWER_WITHIN))
        .ping_interval(PING_EVERY);
    if let Some(file) = &config.credentials {
        let credentials = read(file, "--bus-credentials").await?;
        let unusable = || format!("--bus-credentials: {} holds no credentials", file.display());
        options = options.credentials(&credentials).map_err(drop_secrets).with_context(unusable)?;
    } else if let Some(file) = &config.nkey {
        let seed = read(file, "--bus-nkey").await?.trim().to_owned();
        let usable = seed.starts_with("SU") && !seed.contains(char::is_whitespace);
        anyhow::ensure!(usable, "--bus-nkey: {} holds no user's seed", file.display());
        options = options.nkey(seed);
    } else if let Some(server) = servers.iter().find(|server| server.has_user_pass()) {
        let part = |text: Option<&str>| percent_decoded(text.unwrap_or_default());
        options = options.user_and_password(part(server.username()), part(server.password()));
    }
    if let Some(file) = &config.tls_ca {
        certificate(file, "--bus-tls-ca").await?;
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    if let (Some(certificate_file), Some(key)) = (&config.tls_cert, &config.tls_key) {
        certificate(certificate_file, "--bus-tls-cert").await?;
        read(key, "--bus-tls-key").await?;
        options = options.add_client_certificate(certificate_file.clone(), key.clone());
    }
    Ok(options)
}

async fn read(file: &Path, flag: &str) -> anyhow::Result<String> {
    let text = tokio::fs::read_to_string(file).await;
    text.with_context(|| format!("{flag}: cannot read {}", file.display()))
}

async fn certificate(file: &Path, flag: &str) -> anyhow::Result<()> {
    let holds_one = read(file, flag).await?.contains("-----BEGIN CERTIFICATE-----");
    anyhow::ensure!(holds_one, "{flag}: {} holds no certificate", file.display());
    Ok(())
}

/// What a parser says may quote what it could not parse.
fn drop_secrets(_error: std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("it is no .creds file")
}

/// In a URL a user or password may be written with %XX.
fn percent_decoded(text: &str) -> String {
    headers::decode(text).unwrap_or_else(|| text.to_owned())
}

/// An id for a message that tells none: the same each time it comes.
fn nameless(created_nanos: u64, sequence: u64) -> Uuid {
    uuid::Builder::from_custom_bytes(Uuid::from_u64_pair(created_nanos, sequence).into_bytes())
        .into_uuid()
}
