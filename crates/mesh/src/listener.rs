//! Where a service listens: its API, and beside it a plaintext port for those who run it.

use crate::{limits::Limits, tls};
use anyhow::Context as _;
use std::{io, net::SocketAddr};
use tokio::net::TcpListener;

/// Two bound ports. Bound first and served later, so that a taken port is known before anything is changed.
#[derive(Debug)]
pub struct Listener {
    pub(crate) api: Port,
    pub(crate) admin: Port,
}

#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) flag: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) socket: TcpListener,
    /// None: plaintext.
    pub(crate) tls: Option<tls::Server>,
    pub(crate) limits: Limits,
}

impl Listener {
    /// Listens; each address comes with the flag that sets it. Port 0 takes a free one.
    ///
    /// # Errors
    /// An address is taken or not ours: which one, and the flag that sets it.
    pub async fn bind(
        api: (&'static str, SocketAddr),
        admin: (&'static str, SocketAddr),
    ) -> anyhow::Result<Self> {
        Ok(Self { api: Port::bind(api).await?, admin: Port::bind(admin).await? })
    }

    /// The API is spoken to over TLS, if there is one. Health stays plaintext: those who probe have no certificates, and learn
    /// nothing there that anybody may not know.
    #[must_use]
    pub fn secure(mut self, tls: Option<tls::Server>) -> Self {
        self.api.tls = tls;
        self
    }

    /// Other limits than the usual ones, for the connections of each of the two.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        (self.api.limits, self.admin.limits) = (limits, limits);
        self
    }

    /// Where the API is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.api.address
    }

    /// Where health is told to those who run it.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address
    }
}

impl Port {
    async fn bind((flag, address): (&'static str, SocketAddr)) -> anyhow::Result<Self> {
        let bound = async {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            io::Result::Ok(Self { flag, address, socket, tls: None, limits: Limits::default() })
        };
        bound.await.with_context(|| format!("cannot listen on {address} ({flag})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_flag() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let first = Listener::bind(("--listen", any), ("--admin-listen", any)).await;
        let first = first.expect("there are free ports");
        let taken = first.admin_address();
        let refused = Listener::bind(("--listen", any), ("--admin-listen", taken)).await;
        let error = format!("{:#}", refused.expect_err("it is taken"));
        let begin = format!("cannot listen on {taken} (--admin-listen): ");
        assert!(error.starts_with(&begin) && !error.contains('\n'), "{error}");
    }
}
