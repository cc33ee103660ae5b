//! Panics of handlers: the caller is told that something is broken, and the process lives on. What it was, and where, the
//! process's panic hook has logged by then; it is not logged again.

use crate::{
    Problem,
    around::{Around, Next, refuse},
};
use futures::FutureExt as _;
use http::{Request, Response};
use std::panic::AssertUnwindSafe;
use tonic::body::Body;

/// Turns a panic into an answer.
#[derive(Clone)]
pub(crate) struct Panics {
    pub(crate) domain: &'static str,
}

impl Around for Panics {
    async fn around(self, request: Request<Body>, mut next: impl Next) -> Response<Body> {
        // nothing of the call is looked at again, so nothing half done can be seen
        let answer = AssertUnwindSafe(async { next.call(request).await }).catch_unwind().await;
        answer.unwrap_or_else(|_logged| refuse(Problem::internal(self.domain)))
    }
}
