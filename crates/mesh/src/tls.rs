//! TLS between services: who listens shows a certificate, and who calls does too, each signed by an authority that the other
//! believes. The files can be replaced while calls run: connections that are made from then on use the new ones.
//!
//! TLS 1.3 and nothing older: all that speaks gRPC has known it for years, and both sides of a mesh are ours to choose.
//! No session is resumed: a connection lives for minutes, and a resumed one would not be asked for its certificate again.

mod files;

pub use files::{Certificates, Files};

use crate::{client::Unreached, identity::Peer};
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use std::{
    error::Error,
    fmt, io,
    iter::successors,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{io::AsyncBufReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, client, rustls, rustls::pki_types::ServerName, server,
};
use tonic::Status;
use tower::Service;

/// How long a peer may take to say who it is. In one house that is milliseconds; a machine with too much to do may need a
/// second, and whoever needs longer holds a socket and asks for nothing.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// All that is spoken: HTTP/2, as ALPN names it.
const H2: &[u8] = b"h2";

/// What a listener shows to those who connect, and whom it lets in. A clone is the same.
#[derive(Clone)]
pub struct Server(files::Held);

/// How a client knows whom it calls, and what it shows. A clone is the same.
#[derive(Clone)]
pub struct Client(files::Held);

/// Connects to a server that proves to be the one of a name: for [`tonic::transport::Endpoint`].
#[derive(Clone)]
pub struct Connector {
    client: Client,
    name: ServerName<'static>,
}

impl Server {
    /// Whether nobody is let in who shows no certificate, so that each peer has an identity.
    #[must_use]
    pub fn knows_its_peers(&self) -> bool {
        self.0.borrow().knows_peers
    }

    /// Shakes hands. None: the peer is gone, or is none of ours; the connection is closed then.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Option<(server::TlsStream<TcpStream>, Option<Peer>)> {
        let (config, knows_peers) = {
            let held = self.0.borrow();
            (held.server.clone()?, held.knows_peers)
        };
        let accepted = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await;
        match accepted.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let peer = knows_peers.then(|| Peer::of_certificate(chain.first()));
                Some((stream, peer))
            }
            Err(error) => {
                let why = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
                // a certificate that is refused is somebody's mistake, and here it is said which; all else is noise
                match why {
                    Some(
                        rustls::Error::InvalidCertificate(_)
                        | rustls::Error::NoCertificatesPresented,
                    ) => tracing::info!(peer = %address, "a peer was not let in: {error}"),
                    _ => tracing::debug!(peer = %address, "a handshake failed: {error}"),
                }
                None
            }
        }
    }
}

impl Client {
    /// Connects to servers whose certificate is for `host`, the host of the URL that leads to them, wherever that is: one name
    /// may have many addresses.
    ///
    /// # Errors
    /// It is neither a name nor an address.
    pub fn connector(&self, host: &str) -> anyhow::Result<Connector> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_invalid| {
            anyhow::anyhow!("{host} is no name that a certificate can be for")
        })?;
        Ok(Connector { client: self.clone(), name })
    }
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<client::TlsStream<TcpStream>, Unconnected> {
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
        // messages are small: waiting for more to send with them costs up to 40 ms
        stream.set_nodelay(true)?;
        self.secure(stream).await
    }

    /// Shakes hands over a connection that is there.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
    ) -> Result<client::TlsStream<TcpStream>, Unconnected> {
        let config = self.client.0.borrow().client.clone();
        let config = config.ok_or_else(|| io::Error::other("no authority to believe is known"))?;
        let mut stream = TlsConnector::from(config).connect(self.name.clone(), stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            return Err(io::Error::other("the server does not speak HTTP/2").into());
        }
        // In TLS 1.3 the client is done before the server has seen its certificate. The first word of an HTTP/2 server (RFC
        // 9113, 3.4) says that it is content; a refusal comes instead of it. So it shows here, where it is certain that
        // nothing of a call was sent, and not in the midst of the first call.
        stream.fill_buf().await?;
        Ok(stream)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<client::TlsStream<TcpStream>>;
    type Error = Unconnected;
    type Future = BoxFuture<'static, Result<Self::Response, Unconnected>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Unconnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { Ok(TokioIo::new(connector.connect(uri).await?)) })
    }
}

/// Why there is no connection over TLS.
#[derive(Debug, thiserror::Error)]
pub enum Unconnected {
    /// Somebody is there, and it is none of those who belong together.
    #[error("{why}: {error}")]
    Refused {
        /// Who refuses whom.
        why: &'static str,
        /// What TLS calls it.
        error: rustls::Error,
    },
    /// Nobody is there, or they went away.
    #[error("cannot connect")]
    Network(#[source] io::Error),
}

impl From<io::Error> for Unconnected {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let Some(tls) = tls.cloned() else { return Self::Network(error) };
        let why = match tls {
            rustls::Error::InvalidCertificate(_) => "its certificate is not believed",
            rustls::Error::AlertReceived(_) => "it does not let this client in",
            rustls::Error::InvalidMessage(_) => "it does not speak TLS",
            _ => "there is no way to speak TLS with it",
        };
        Self::Refused { why, error: tls }
    }
}

/// Why a call was not sent, if the peer and this client would not have each other.
#[must_use]
pub fn refusal(status: &Status) -> Option<String> {
    let first: &(dyn Error + 'static) = status;
    let mut chain = successors(Some(first), |&error| error.source());
    chain.find_map(|error| {
        if let Some(unreached) = error.downcast_ref::<Unreached>() {
            return unreached.refused.as_deref().map(str::to_owned);
        }
        let refused = error.downcast_ref::<Unconnected>();
        let refused = refused.filter(|why| matches!(why, Unconnected::Refused { .. }));
        refused.map(ToString::to_string)
    })
}

// what they hold is secret
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}
