//! The statuses of calls that had no answer, and what they know of whether anything was sent.

use crate::tls;
use std::{error::Error, iter::successors, sync::Arc};
use tonic::{Code, ConnectError, Status, TimeoutExpired};

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The mark of a call that was not sent.
#[derive(Debug, thiserror::Error)]
#[error("nothing was sent")]
pub(super) struct NotSent(#[source] Option<BoxError>);

/// Why nobody can be connected to, as it is told to all who want to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{told}")]
pub(crate) struct Unreached {
    told: Arc<str>,
    /// Somebody is there, and would not have this client, or is not to be believed.
    pub(crate) refused: Option<Arc<str>>,
}

impl Unreached {
    pub(super) fn told(told: &str) -> Self {
        Self { told: told.into(), refused: None }
    }

    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let tls = chain(error).find_map(|error| error.downcast_ref::<tls::Unconnected>());
        let refused = tls.filter(|why| matches!(why, tls::Unconnected::Refused { .. }));
        let refused = refused.map(|why| why.to_string().into());
        Self { told: line(error).into(), refused }
    }
}

/// The whole of an error in one line.
fn line(error: &(dyn Error + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    for error in chain(error) {
        let text = error.to_string();
        // some say what their source says
        if !told.iter().any(|said| said.contains(&text)) {
            told.push(text);
        }
    }
    told.join(": ")
}

/// Marks the status of a call that was not sent.
pub(super) fn unsent(mut status: Status, why: Option<BoxError>) -> Status {
    status.set_source(Arc::new(NotSent(why)));
    status
}

pub(super) fn unconnected(why: impl Into<BoxError>) -> Status {
    unsent(Status::unavailable("the service cannot be connected to"), Some(why.into()))
}

pub(super) fn expired() -> Status {
    Status::new(Code::DeadlineExceeded, "there was no answer within the call's deadline")
}

/// The status of a failed call: hyper's error, or one of tonic's channel.
pub(super) fn failed(error: impl Error + Send + Sync + 'static) -> Status {
    if chain(&error).any(<dyn Error>::is::<ConnectError>) {
        return unconnected(error);
    }
    // tonic keeps the deadline, too, and says CANCELLED
    if chain(&error).any(<dyn Error>::is::<TimeoutExpired>) {
        return expired();
    }
    let farewell = chain(&error).find_map(|error| error.downcast_ref()).map(Farewell::of);
    match farewell {
        Some(Farewell::Refused) => {
            return unsent(
                Status::unavailable("the server took no more calls"),
                Some(error.into()),
            );
        }
        Some(Farewell::Gone) => {
            return broken("the server goes away", Status::from_error(error.into()));
        }
        Some(Farewell::Other) | None => {}
    }
    // tonic says CANCELLED for a connection that was closed under the call, and UNKNOWN for one that broke
    let closed = |error: &hyper::Error| error.is_canceled();
    let closed = chain(&error).filter_map(|error| error.downcast_ref()).any(closed);
    let status = Status::from_error(error.into());
    if !closed && status.code() != Code::Unknown {
        return status;
    }
    broken("the connection broke", status)
}

/// Of a call that may have been sent.
pub(super) fn broken(how: &str, status: Status) -> Status {
    let mut broken = Status::unavailable(how);
    broken.set_source(Arc::new(status));
    broken
}

/// How a server ended a stream before its time.
enum Farewell {
    /// It did nothing, and says so: `REFUSED_STREAM` (RFC 9113, 8.7).
    Refused,
    /// It takes no more. By the RFC a stream that is after the last one it names was not begun; but hyper 1.12 gives this
    /// error also to a call whose stream had just been opened when the GOAWAY came, and which was carried out.
    Gone,
    Other,
}

impl Farewell {
    fn of(error: &h2::Error) -> Self {
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) if error.is_reset() && error.is_remote() => {
                Self::Refused
            }
            Some(h2::Reason::NO_ERROR) if error.is_go_away() => Self::Gone,
            _ => Self::Other,
        }
    }
}

pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}
