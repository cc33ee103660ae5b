//! Panics of handlers: the caller is told that something is broken, the log what, and the process lives on.

use crate::{
    Problem,
    around::{Around, Next, refuse},
};
use futures::FutureExt as _;
use http::{Request, Response};
use std::{any::Any, panic::AssertUnwindSafe};
use tonic::{Code, body::Body};

/// Turns a panic into an answer.
#[derive(Clone)]
pub(crate) struct Panics {
    pub(crate) domain: &'static str,
}

impl Around for Panics {
    async fn around(self, request: Request<Body>, mut next: impl Next) -> Response<Body> {
        let uri = request.uri().clone();
        // nothing of the call is looked at again, so nothing half done can be seen
        let answer = AssertUnwindSafe(async { next.call(request).await }).catch_unwind().await;
        answer.unwrap_or_else(|panic| {
            log(uri.path(), &*panic);
            refuse(internal(self.domain))
        })
    }
}

/// Whoever called can do nothing about it, and learns nothing of it.
pub(crate) fn internal(domain: &'static str) -> Problem {
    Problem::new(domain, Code::Internal, "INTERNAL", "internal error")
}

pub(crate) fn log(what: &str, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("without words"), "{what} panicked");
}
