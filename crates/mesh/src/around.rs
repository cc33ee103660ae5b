//! A layer of the server, written as one function: what happens before a call and after it.

use crate::Problem;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::{
    convert::Infallible,
    mem,
    task::{Context, Poll},
};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

/// What a layer does around a call.
pub(crate) trait Around: Clone + Send + Sync + 'static {
    /// Answers a call, mostly by what is next.
    fn around(
        self,
        request: Request<Body>,
        next: impl Next,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// With another one inside. Together they are one: a call is boxed once for both, and what is inside is cloned once.
    fn then<B: Around>(self, inner: B) -> (Self, B) {
        (self, inner)
    }
}

impl<A: Around, B: Around> Around for (A, B) {
    async fn around(self, request: Request<Body>, next: impl Next) -> Response<Body> {
        let (outer, inner) = self;
        outer.around(request, Then { inner, next }).await
    }
}

/// What is inside of a layer: the next layer or the service.
pub(crate) trait Next: Send {
    fn call(&mut self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

impl<S> Next for S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    async fn call(&mut self, request: Request<Body>) -> Response<Body> {
        match Service::call(self, request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// What is inside of the outer one of two.
struct Then<B, N> {
    inner: B,
    next: N,
}

/// What is next, lent.
struct Lent<'a, N>(&'a mut N);

impl<B: Around, N: Next> Next for Then<B, N> {
    async fn call(&mut self, request: Request<Body>) -> Response<Body> {
        self.inner.clone().around(request, Lent(&mut self.next)).await
    }
}

impl<N: Next> Next for Lent<'_, N> {
    async fn call(&mut self, request: Request<Body>) -> Response<Body> {
        self.0.call(request).await
    }
}

/// An error as an answer: HTTP 200, everything in the headers.
pub(crate) fn refuse(problem: Problem) -> Response<Body> {
    Status::from(problem).into_http()
}

/// Puts an [`Around`] around services.
#[derive(Clone)]
pub(crate) struct AroundLayer<A>(pub(crate) A);

#[derive(Clone)]
pub(crate) struct Arounded<A, S> {
    around: A,
    next: S,
}

impl<A: Clone, S> Layer<S> for AroundLayer<A> {
    type Service = Arounded<A, S>;

    fn layer(&self, next: S) -> Self::Service {
        Arounded { around: self.0.clone(), next }
    }
}

impl<A, S> Service<Request<Body>> for Arounded<A, S>
where
    A: Around,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.next.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // the one that was asked whether it is ready is the one that is called
        let clone = self.next.clone();
        let next = mem::replace(&mut self.next, clone);
        let around = self.around.clone();
        Box::pin(async move { Ok(around.around(request, next).await) })
    }
}
