//! What every call must be before anything else of it is looked at: gRPC, over POST, uncompressed.
//!
//! tonic takes GET and any content type for a call and answers OK. What is no gRPC is answered as the gRPC-over-HTTP/2
//! protocol has it, with a status of HTTP; whoever sent it reads no other.

use crate::{Problem, around::refuse};
use futures::future::Either;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};
use tonic::{Code, body::Body};
use tower::Service;

/// Around all that is served on a port, unknown paths as well. It never reads a body, and never waits.
#[derive(Clone)]
pub(crate) struct Protocol<S> {
    domain: &'static str,
    next: S,
}

impl<S> Protocol<S> {
    pub(crate) fn new(domain: &'static str, next: S) -> Self {
        Self { domain, next }
    }

    fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        if method != Method::POST {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED);
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Some(refused);
        }
        if !is_grpc(headers) {
            return Some(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        if is_compressed(headers) {
            let message = "requests are taken uncompressed";
            let code = Code::Unimplemented;
            let mut refused = refuse(Problem::new(self.domain, code, "VALIDATION", message));
            let accepted = HeaderValue::from_static("identity");
            refused.headers_mut().insert("grpc-accept-encoding", accepted);
            return Some(refused);
        }
        None
    }
}

/// Without a word more: it is for whoever does not speak gRPC.
fn plain(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

/// `application/grpc`, with parameters or not, or the same said at length. Other message formats are not taken.
fn is_grpc(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let essence = only.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let is = |name: &[u8]| essence.trim_ascii().eq_ignore_ascii_case(name);
    is(b"application/grpc") || is(b"application/grpc+proto")
}

/// Compressed requests are not taken: a small one may become a large one.
fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get_all("grpc-encoding").iter().any(|encoding| encoding != "identity")
}

impl<S, B> Service<Request<B>> for Protocol<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.next.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.refusal(request.method(), request.headers()) {
            Some(refused) => Either::Right(ready(Ok(refused))),
            None => Either::Left(self.next.call(request)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let is = |types: &[&'static str]| {
            let types = types.iter().map(|it| (CONTENT_TYPE, HeaderValue::from_static(it)));
            let mut headers = HeaderMap::new();
            types.for_each(|(name, value)| _ = headers.append(name, value));
            is_grpc(&headers)
        };
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "application/grpc+proto ; v=1",
            "Application/gRPC",
        ] {
            assert!(is(&[grpc]), "{grpc}");
        }
        for other in [
            "",
            "application/json",
            "text/html",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc+json",
            "application/grpcs",
            "application/x; application/grpc",
        ] {
            assert!(!is(&[other]), "{other}");
        }
        assert!(!is(&[]) && !is(&["application/grpc", "application/grpc"]));
    }
}
