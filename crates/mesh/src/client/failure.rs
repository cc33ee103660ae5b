//! The statuses of calls that had no answer, and what they know of whether anything was sent.

use std::{error::Error, iter::successors, sync::Arc};
use tonic::{Code, ConnectError, Status, TimeoutExpired};

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The mark of a call that was not sent.
#[derive(Debug, thiserror::Error)]
#[error("nothing was sent")]
pub(super) struct NotSent(#[source] Option<BoxError>);

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
    if chain(&error).filter_map(|error| error.downcast_ref()).any(was_not_processed) {
        return unsent(Status::unavailable("the server took no more calls"), Some(error.into()));
    }
    // tonic says CANCELLED for a connection that was closed under the call, and UNKNOWN for one that broke
    let closed = |error: &hyper::Error| error.is_canceled();
    let closed = chain(&error).filter_map(|error| error.downcast_ref()).any(closed);
    let status = Status::from_error(error.into());
    if !closed && status.code() != Code::Unknown {
        return status;
    }
    let mut broken = Status::unavailable("the connection broke");
    broken.set_source(Arc::new(status));
    broken
}

/// Whether the server says that it did nothing: `REFUSED_STREAM`, or a GOAWAY whose last stream is before ours (RFC 9113, 8.7).
/// An older stream hears of a GOAWAY without an error only by being answered.
fn was_not_processed(error: &h2::Error) -> bool {
    let reason = if error.is_reset() {
        h2::Reason::REFUSED_STREAM
    } else if error.is_go_away() {
        h2::Reason::NO_ERROR
    } else {
        return false;
    };
    error.is_remote() && error.reason() == Some(reason)
}

pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}
