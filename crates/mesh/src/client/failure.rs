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

pub(super) fn expired() -> Status {
    Status::new(Code::DeadlineExceeded, "there was no answer within the call's deadline")
}

/// The status of a failed call.
pub(super) fn failed(error: impl Error + Send + Sync + 'static) -> Status {
    if chain(&error).any(<dyn Error>::is::<ConnectError>) {
        let status = Status::unavailable("the service cannot be connected to");
        return unsent(status, Some(error.into()));
    }
    // tonic keeps the deadline, too, and says CANCELLED
    if chain(&error).any(<dyn Error>::is::<TimeoutExpired>) {
        return expired();
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

pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}
