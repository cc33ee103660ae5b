//! The settings of the bus: where it is, who may in, and how the stream keeps events.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// The bus, and how it keeps events.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Events")]
pub struct Config {
    /// Where events travel: NATS with JetStream, `nats://HOST:PORT` or `tls://HOST:PORT`, with `USER:PASSWORD@` before the host
    /// if need be; several servers of one cluster with commas between
    #[arg(
        long = "bus-url",
        env = "STARCOFFEE_BUS_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub url: Url,
    /// Credentials for NATS: a .creds file
    #[arg(
        long = "bus-credentials",
        env = "STARCOFFEE_BUS_CREDENTIALS",
        value_name = "FILE",
        conflicts_with = "nkey"
    )]
    pub credentials: Option<PathBuf>,
    /// Credentials for NATS: a file with the seed of an nkey
    #[arg(long = "bus-nkey", env = "STARCOFFEE_BUS_NKEY", value_name = "FILE")]
    pub nkey: Option<PathBuf>,
    /// Who may vouch for the NATS server: a file of certificates, instead of those the system trusts
    #[arg(long = "bus-tls-ca", env = "STARCOFFEE_BUS_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Our certificate, for a NATS server that asks for one
    #[arg(
        long = "bus-tls-cert",
        env = "STARCOFFEE_BUS_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The key of our certificate
    #[arg(
        long = "bus-tls-key",
        env = "STARCOFFEE_BUS_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// On how many servers of a cluster the stream is kept
    #[arg(long = "stream-replicas", env = "STARCOFFEE_STREAM_REPLICAS", value_name = "COUNT", default_value_t = REPLICAS, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,
    /// How long the stream keeps an event. The outbox keeps it longer, and a consumer that was away for longer needs a replay
    #[arg(long = "stream-max-age", env = "STARCOFFEE_STREAM_MAX_AGE", value_name = "DURATION", default_value = "24h", value_parser = chassis::args::period)]
    pub max_age: Duration,
    /// How much the stream keeps, in bytes; above it, events wait in their outboxes. Without it 10 GiB, or what a smaller server has
    #[arg(
        long = "stream-max-bytes",
        env = "STARCOFFEE_STREAM_MAX_BYTES",
        value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..=MOST_BYTES)
    )]
    pub max_bytes: Option<u64>,
    /// How long the server knows a message by its id, and takes no second one
    #[arg(long = "stream-duplicate-window", env = "STARCOFFEE_STREAM_DUPLICATE_WINDOW", value_name = "DURATION", default_value = "2m", value_parser = chassis::args::period)]
    pub duplicate_window: Duration,
    /// Whether many events are published as one: faster where the server syncs each publication to its disk
    #[arg(
        long = "atomic-publish",
        env = "STARCOFFEE_ATOMIC_PUBLISH",
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub atomic_publish: AtomicPublish,
}

/// When events are published as one batch, which the server takes whole or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AtomicPublish {
    /// When many wait, and the server can. Few are faster one by one, unless the server syncs each to its disk, which it
    /// tells only its administrators.
    #[default]
    Auto,
    /// Whenever there is more than one, and the server can.
    Always,
    /// One by one.
    Never,
}

/// The stream that keeps the events of all services: every one of them names the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its name in NATS: letters, digits, `-` and `_`.
    pub name: String,
    /// The subjects it keeps, such as `shop.>`: the kinds of all events must fit them.
    pub subjects: Vec<String>,
}

const EMBEDDED: &str = "embedded:";
const REPLICAS: u8 = 1;
/// NATS counts bytes as a signed number.
const MOST_BYTES: u64 = i64::MAX.cast_unsigned();

impl Default for Config {
    fn default() -> Self {
        Self {
            url: Url::from(EMBEDDED),
            credentials: None,
            nkey: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            replicas: REPLICAS,
            max_age: Duration::from_secs(24 * 60 * 60),
            max_bytes: None,
            duplicate_window: Duration::from_secs(2 * 60),
            atomic_publish: AtomicPublish::default(),
        }
    }
}

/// Where a bus is. May hold a password, which it never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Arc<str>);

impl From<&str> for Url {
    fn from(text: &str) -> Self {
        Self(text.trim().into())
    }
}

impl Url {
    /// Whether it is the bus within the process.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        &*self.0 == EMBEDDED || &*self.0 == "embedded"
    }

    /// Whether one of its servers is to be spoken to by TLS from the beginning.
    pub(crate) fn asks_for_tls(&self) -> bool {
        self.0.split(',').any(|server| server.trim().starts_with("tls://"))
    }

    /// The servers it names, with the passwords it holds.
    pub(crate) fn servers(&self) -> anyhow::Result<Vec<async_nats::ServerAddr>> {
        let server = |text: &str| {
            let known = ["nats://", "tls://"].iter().any(|scheme| text.starts_with(scheme));
            let address = text.parse::<async_nats::ServerAddr>().ok();
            address.filter(|address| known && !address.host().is_empty()).ok_or_else(|| {
                anyhow::anyhow!(
                    "--bus-url: {:?} is neither embedded: nor a server such as nats://HOST:4222 or tls://HOST:4222",
                    without_password(text)
                )
            })
        };
        self.0.split(',').map(|text| server(text.trim())).collect()
    }
}

/// Passwords may be anywhere before the last `@` of a server.
fn without_password(server: &str) -> String {
    match (server.split_once("://"), server.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => server.to_owned(),
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.0.split(',').map(without_password).collect();
        f.write_str(&servers.join(","))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        bus: Config,
    }

    #[test]
    fn a_program_that_is_told_only_where_the_bus_is_has_the_default_settings() {
        let line = ["program", "--bus-url", EMBEDDED];
        let program = Program::try_parse_from(line).expect("all others have defaults");
        assert_eq!(format!("{:?}", program.bus), format!("{:?}", Config::default()));
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = Url::from("nats://me:se@cret@one:4222,tls://me:secret@two");
        assert_eq!(url.to_string(), "nats://one:4222,tls://two");
        assert!(!format!("{url:?}").contains("secret"));
        for text in ["http://me:secret@host", "me:secret@host", "nats://me:secret@", "nats://"] {
            let error = Url::from(text).servers().expect_err("it is no server").to_string();
            assert!(error.starts_with("--bus-url") && !error.contains("secret"), "{error}");
        }
    }
}
