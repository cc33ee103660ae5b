//! The client's side of a call: a channel that keeps the deadlines of its calls, and that knows when nothing can have been
//! sent.

mod balance;
mod endpoint;
mod failure;
mod keeper;
mod resolve;

pub use endpoint::EndpointState;

use crate::deadline::{self, RESOLUTION};
use balance::{Balance, Tried};
use chassis::Host;
use failure::{NotSent, chain, expired, unsent};
use futures::future::BoxFuture;
use http::{Request, Response};
use std::{
    error::Error,
    task::{Context, Poll},
    time::Duration,
};
use tonic::{Status, body::Body, transport};
use tower::Service;

/// The way to a service, spread over all its addresses. A clone is the same way.
///
/// It ends a call when the time is over that the request gives (`grpc-timeout`), with `DEADLINE_EXCEEDED`. That bounds the
/// time until the answer's headers come, for a channel cannot tell a unary answer from a stream, which lives as long as it
/// likes. Our servers answer all at once; whoever must not wait for the rest of an answer bounds the whole call as well.
#[derive(Clone, Debug)]
pub struct Channel {
    balance: Balance,
}

/// A channel to the service at a URL, `http://HOST:PORT`, or at several with commas between them; nothing is connected yet.
/// The flag is the one that sets the URL. The connections live on the runtime that this is called on.
///
/// # Errors
/// It is no such URL; the error names the flag.
pub fn connect(urls: &str, flag: &'static str) -> anyhow::Result<Channel> {
    // it is its own: what a command asks for ends with the command
    Ok(Channel { balance: Balance::open(&Host::new(), urls, flag)? })
}

/// Whether it is certain that nothing of the call was sent: there was no connection to send it by, or no time to begin.
#[must_use]
pub fn not_sent(status: &Status) -> bool {
    chain(status).any(<dyn Error>::is::<NotSent>)
}

impl From<transport::Channel> for Channel {
    fn from(channel: transport::Channel) -> Self {
        Self { balance: channel.into() }
    }
}

impl Channel {
    /// The service's addresses, and which of them are in.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointState> {
        self.balance.endpoints()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // waiting for the connection takes of the call's time, so the call does it
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let balance = self.balance.clone();
        Box::pin(async move {
            let time = match deadline::read(request.headers()) {
                Ok(Some(time)) if time < RESOLUTION => return Err(unsent(expired(), None)),
                Ok(Some(time)) => time,
                Ok(None) => Duration::MAX,
                Err(malformed) => {
                    return Err(unsent(Status::internal(malformed.to_string()), None));
                }
            };
            balance.send(request, time, &mut Tried::default()).await
        })
    }
}
