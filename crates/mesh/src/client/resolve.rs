//! Where a service is: the addresses behind its URLs, looked up again and again, for the replicas behind a name come and go.

use super::endpoint::Origin;
use crate::tls;
use anyhow::{Context as _, bail};
use futures::future::{BoxFuture, join_all};
use http::{Uri, uri::Scheme};
use rand::Rng as _;
use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::lookup_host, time::timeout};
use tokio_util::sync::CancellationToken;

/// How often a name is looked up. A new replica gets calls within 5 s: after this, a lookup and a connection.
const EVERY: Duration = Duration::from_secs(3);
/// As long as nothing is known calls wait for it.
const UNKNOWN: Duration = Duration::from_millis(250);
/// How long a lookup may take: less than it takes until the next. A resolver asks again by itself only after 5 s.
const LOOKUP: Duration = Duration::from_secs(2);

/// A URL of a service: a place, or a name of places.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) origin: Origin,
    host: String,
    port: u16,
}

/// Where a service is, as its requests name it.
pub(super) type Place = (SocketAddr, Origin);

/// Finds the addresses of a name; tests bring their own.
pub(super) type Lookup =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// As the system does it: the resolver's configuration, the hosts file.
pub(super) fn system() -> Lookup {
    Arc::new(|host, port| Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) }))
}

impl Target {
    /// Of a URL, `http://HOST:PORT` or `https://HOST:PORT`.
    ///
    /// # Errors
    /// It is no such URL, or an `https` one without `tls`; the error names the flag that sets it.
    pub(super) fn read(
        url: &str,
        flag: &'static str,
        tls: Option<&tls::Client>,
    ) -> anyhow::Result<Self> {
        let target = || {
            let uri: Uri = url.parse()?;
            let scheme = uri.scheme().filter(|it| [Scheme::HTTP, Scheme::HTTPS].contains(it));
            let (scheme, secure) = (scheme.cloned(), scheme == Some(&Scheme::HTTPS));
            let bare = uri.path() == "/" && uri.query().is_none();
            // a port that is none is no part of these, nor is a user
            let host = uri.host().unwrap_or_default();
            let whole = uri.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
            let authority = uri.authority().filter(|authority| authority.as_str() == whole);
            let (Some(scheme), true, Some(authority)) = (scheme, bare, authority.cloned()) else {
                bail!("it is http://HOST:PORT or https://HOST:PORT");
            };
            let tls = match tls {
                Some(tls) if secure => Some(tls.connector(host)?),
                None if secure => bail!("https:// needs an authority to believe (--tls-ca)"),
                _ => None,
            };
            let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            Ok(Self { origin: Origin { scheme, authority, tls }, host, port })
        };
        target().with_context(|| format!("{url} is no URL of a service ({flag})"))
    }

    /// The address, if the URL has it.
    pub(super) fn place(&self) -> Option<Place> {
        let address = SocketAddr::new(self.host.parse().ok()?, self.port);
        Some((address, self.origin.clone()))
    }
}

/// What is known of a target that is a name.
struct Known {
    target: Target,
    addresses: Vec<SocketAddr>,
    /// Whether the last lookup failed: said once.
    failing: bool,
}

/// Looks the names among the targets up until `ended`, and tells all addresses of all of them whenever it has.
pub(super) async fn follow(
    targets: Vec<Target>,
    lookup: Lookup,
    ended: CancellationToken,
    tell: impl Fn(Vec<Place>),
) {
    let known = |target| Known { target, addresses: Vec::new(), failing: false };
    let mut known: Vec<_> = targets.into_iter().map(known).collect();
    loop {
        let looks = known.iter_mut().map(|known| known.look(&lookup));
        tokio::select! {
            _all = join_all(looks) => {}
            () = ended.cancelled() => return,
        }
        tell(known.iter().flat_map(Known::places).collect());
        let all_known = known.iter().all(|known| !known.addresses.is_empty());
        let pause = if all_known { EVERY } else { UNKNOWN };
        // with jitter, so that clients that began together do not ask together
        let pause = pause.mul_f64(rand::rng().random_range(0.7..=1.0));
        if timeout(pause, ended.cancelled()).await.is_ok() {
            return;
        }
    }
}

impl Known {
    /// What cannot be looked up stays where it was: a name server that is away moves nobody.
    async fn look(&mut self, lookup: &Lookup) {
        let Target { host, port, .. } = &self.target;
        let found = match self.target.place() {
            Some((address, _origin)) => Ok(Ok(vec![address])),
            None => timeout(LOOKUP, lookup(host.clone(), *port)).await,
        };
        let why: Box<dyn Error + Send + Sync> = match found {
            Ok(Ok(addresses)) if !addresses.is_empty() => {
                if self.failing {
                    tracing::info!("{host} has addresses again");
                }
                (self.addresses, self.failing) = (addresses, false);
                return;
            }
            Ok(Ok(_none)) => "it has no address".into(),
            Ok(Err(error)) => error.into(),
            Err(_elapsed) => "no name server answered in 2 s".into(),
        };
        if !self.failing {
            let error: &(dyn Error + 'static) = &*why;
            match self.addresses.len() {
                0 => tracing::warn!(error, "{host} has no known address: calls to it fail"),
                some => tracing::warn!(
                    error,
                    "{host} cannot be looked up: its {some} last addresses are used"
                ),
            }
        }
        self.failing = true;
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        self.addresses.iter().map(|address| (*address, self.target.origin.clone()))
    }
}
