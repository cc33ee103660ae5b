//! A service that does what it is asked to do, as a generated one would look.

use crate::protos;
use bytes::Bytes;
use chassis::Host;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::{
    convert::Infallible,
    future::{Ready, pending, ready},
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};
use tonic::{Status, body::Body, server::NamedService};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

pub(crate) const DOMAIN: &str = "example.org";
pub(crate) const NAME: &str = "test.v1.Probe";
pub(crate) const ASK: &str = "/test.v1.Probe/Ask";
pub(crate) const FOLLOW: &str = "/test.v1.Probe/Follow";
/// Of [`Beside`].
pub(crate) const TELL: &str = "/test.v1.Beside/Tell";

/// Several windows of HTTP/2, and less than the largest answer.
pub(crate) const LARGE: usize = 3 * 1024 * 1024;

pub(crate) fn descriptors() -> &'static [u8] {
    static DESCRIPTORS: OnceLock<Vec<u8>> = OnceLock::new();
    DESCRIPTORS.get_or_init(|| {
        protos::compile(
            r#"
            service Probe {
              rpc Ask(Question) returns (Answer);
              rpc Follow(Question) returns (stream Answer);
            }
            service Beside {
              rpc Tell(Question) returns (Answer);
            }
            message Question {
              string text = 1 [(buf.validate.field).string.max_len = 200];
              int32 count = 2 [(buf.validate.field).int32 = {gte: 0, lte: 100}];
              repeated Part parts = 3 [(buf.validate.field).repeated.max_items = 20];
            }
            message Part {
              string id = 1 [(buf.validate.field).string.uuid = true];
              Part under = 2;
            }
            message Answer {
              string text = 1;
              int64 left_ms = 2;
            }"#,
        )
    })
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Question {
    /// What to do: see [`Probe::ask`] and [`Probe::follow`].
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(int32, tag = "2")]
    pub(crate) count: i32,
    #[prost(message, repeated, tag = "3")]
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Part {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, boxed, tag = "2")]
    pub(crate) under: Option<Box<Part>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answer {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    /// Of the call's deadline.
    #[prost(int64, tag = "2")]
    pub(crate) left_ms: i64,
}

pub(crate) fn question(text: &str) -> Question {
    Question { text: text.to_owned(), ..Default::default() }
}

#[derive(Clone)]
pub(crate) struct Probe(Arc<Inner>);

struct Inner {
    host: Host,
    asked: Mutex<Vec<Question>>,
    /// Work that waits for its release, and work that was dropped instead.
    waiting: watch::Sender<usize>,
    dropped: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Probe {
    pub(crate) fn new(host: &Host) -> Self {
        Self(Arc::new(Inner {
            host: host.clone(),
            asked: Mutex::default(),
            waiting: watch::Sender::default(),
            dropped: watch::Sender::default(),
            released: watch::Sender::default(),
        }))
    }

    /// All that a handler has seen.
    pub(crate) fn asked(&self) -> Vec<Question> {
        self.0.asked.lock().expect("no panic while locked").clone()
    }

    /// Until so much work waits.
    pub(crate) async fn waits(&self, count: usize) {
        reaches(&self.0.waiting, count).await;
    }

    /// Until so much work was dropped while it waited.
    pub(crate) async fn dropped(&self, count: usize) {
        reaches(&self.0.dropped, count).await;
    }

    pub(crate) fn release(&self) {
        self.0.released.send_replace(true);
    }

    async fn wait(&self) {
        struct Dropped<'a>(&'a watch::Sender<usize>, bool);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|dropped| *dropped += usize::from(!self.1));
            }
        }
        let mut dropped = Dropped(&self.0.dropped, false);
        self.0.waiting.send_modify(|waiting| *waiting += 1);
        let mut released = self.0.released.subscribe();
        released.wait_for(|released| *released).await.expect("the sender lives");
        dropped.1 = true;
    }

    async fn ask(self, request: tonic::Request<Question>) -> Result<Answer, Status> {
        let deadline = mesh::Deadline::of(&request).expect("every call has one");
        let question = request.into_inner();
        self.0.asked.lock().expect("no panic while locked").push(question.clone());
        let mut text = question.text;
        match &*text {
            "wait" => self.wait().await,
            "panic" => panic!("the teapot broke"),
            "be too large" => text = "a".repeat(4 * 1024 * 1024),
            "wait, then be large" => {
                self.wait().await;
                text = "a".repeat(LARGE);
            }
            _ => {}
        }
        let left_ms = i64::try_from(deadline.left().as_millis()).expect("it is short");
        Ok(Answer { text, left_ms })
    }

    async fn follow(
        self,
        request: tonic::Request<Question>,
    ) -> Result<tonic::Response<mesh::stream::Watch<Answer>>, Status> {
        let deadline = mesh::Deadline::of(&request).expect("every call has one");
        let question = request.into_inner();
        self.0.asked.lock().expect("no panic while locked").push(question.clone());
        if question.text == "never begin" {
            self.wait().await;
        }
        let host = self.0.host.clone();
        Ok(mesh::stream::watch(&host, DOMAIN, move |mut feed| async move {
            let answer = |text: &str| Answer { text: text.to_owned(), left_ms: 0 };
            feed.send(answer("first")).await?;
            match &*question.text {
                "wait" => self.wait().await,
                "outlive" => {
                    while !deadline.left().is_zero() {
                        let _later = timeout(Duration::from_millis(1), pending::<()>()).await;
                    }
                }
                "panic" => panic!("the kettle broke"),
                "fail" => return Err(Status::not_found("there is nothing to follow")),
                _ => {}
            }
            feed.send(answer("last")).await
        }))
    }
}

async fn reaches(counter: &watch::Sender<usize>, count: usize) {
    let mut counter = counter.subscribe();
    let reached = timeout(Duration::from_secs(10), counter.wait_for(|seen| *seen >= count)).await;
    reached.expect("it comes to that in time").expect("the sender lives");
}

impl NamedService for Probe {
    const NAME: &'static str = NAME;
}

impl Service<Request<Body>> for Probe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let probe = self.clone();
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Answer, Question>::default());
        Box::pin(async move {
            Ok(match request.uri().path() {
                ASK => {
                    let ask = service_fn(move |request| {
                        let answer = probe.clone().ask(request);
                        async { answer.await.map(tonic::Response::new) }
                    });
                    grpc.unary(ask, request).await
                }
                FOLLOW => {
                    let follow = service_fn(move |request| probe.clone().follow(request));
                    grpc.server_streaming(follow, request).await
                }
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let len = u32::try_from(message.len()).expect("it is short");
    [&[0], len.to_be_bytes().as_slice(), message].concat().into()
}

/// A service on the same port, which answers with OK and nothing else.
#[derive(Clone)]
pub(crate) struct Beside;

impl NamedService for Beside {
    const NAME: &'static str = "test.v1.Beside";
}

impl Service<Request<Body>> for Beside {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<Body>) -> Self::Future {
        ready(Ok(Status::ok("").into_http()))
    }
}
