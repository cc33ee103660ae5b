//! A service that answers as a test has written it down, and remembers how it was asked.

use crate::{
    house::spawn,
    probe::{Answer, DOMAIN, Question, question},
    protos,
};
use chassis::{DrainConfig, Host};
use futures::future::BoxFuture;
use http::{Request, Response};
use mesh::{Channel, Deadlines, Listener, Policies, Server, Upstream};
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::task::JoinHandle;
use tonic::{Status, body::Body, server::NamedService};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

const NAME: &str = "test.v1.Play";
/// May not be asked twice.
pub(crate) const ONCE: &str = "/test.v1.Play/Once";
/// May be.
pub(crate) const TWICE: &str = "/test.v1.Play/Twice";

/// What comes next.
pub(crate) enum Act {
    Answer,
    Fail(Status),
    /// There is no answer.
    Hang,
}

/// How it was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    /// `grpc-previous-rpc-attempts`.
    pub(crate) attempts_before: Option<String>,
    /// How much time it had.
    pub(crate) left: Duration,
}

/// The service, and what is played.
#[derive(Clone, Default)]
pub(crate) struct Play(Arc<Script>);

#[derive(Default)]
struct Script {
    acts: Mutex<VecDeque<Act>>,
    /// When there is no more act: an answer, or this error.
    then: Mutex<Option<Status>>,
    asked: Mutex<Vec<Asked>>,
}

/// It, served.
pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) play: Play,
    pub(crate) url: String,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Stage {
    pub(crate) async fn open(acts: impl IntoIterator<Item = Act>) -> Self {
        let (host, any) = (Host::new(), "127.0.0.1:0".parse().expect("an address"));
        let listener = Listener::bind(("--listen", any), ("--admin-listen", any)).await;
        let deadlines = Deadlines::new(Duration::from_secs(60));
        let play = Play::default();
        play.0.acts.lock().expect("no panic while locked").extend(acts);
        let server = Server::new(DOMAIN, descriptors(), NAME, deadlines);
        let serving = server
            .and_then(|server| server.serve(&host, listener?, play.clone()))
            .expect("it can be served");
        let ended = spawn({
            let host = host.clone();
            let drain = DrainConfig { delay: Duration::ZERO, timeout: Duration::from_secs(9) };
            async move { host.run(&drain).await }
        });
        Self { host, play, url: format!("http://{}", serving.address), ended }
    }

    /// A channel with policies of its own.
    pub(crate) fn channel(&self, policies: &str) -> Channel {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), policies).expect("it can be written");
        channel(&self.host, &self.url, file.path()).expect("it can be opened")
    }

    pub(crate) async fn close(self) {
        self.host.stop("the test is over");
        self.ended.await.expect("it does not panic").expect("it ends well");
    }
}

/// A channel to the play at a URL.
pub(crate) fn channel(host: &Host, url: &str, policies: &Path) -> anyhow::Result<Channel> {
    let policies = Policies::open(host, Some(policies), "--policies")?;
    let upstream = Upstream {
        name: "play",
        urls: url.to_owned(),
        flag: "--url",
        service: NAME,
        descriptors: descriptors(),
        policies,
        tls: None,
    };
    Channel::open(host, upstream)
}

impl Play {
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.asked.lock().expect("no panic while locked"))
    }

    /// From now on.
    pub(crate) fn then(&self, failing: Option<Status>) {
        *self.0.then.lock().expect("no panic while locked") = failing;
    }

    async fn act(
        self,
        request: tonic::Request<Question>,
    ) -> Result<tonic::Response<Answer>, Status> {
        let header = request.metadata().get("grpc-previous-rpc-attempts");
        let header = header.map(|value| value.to_str().expect("it is ASCII").to_owned());
        let left = mesh::Deadline::of(&request).expect("every call has one").left();
        let asked = Asked { attempts_before: header, left };
        self.0.asked.lock().expect("no panic while locked").push(asked);
        let act = self.0.acts.lock().expect("no panic while locked").pop_front();
        let then = self.0.then.lock().expect("no panic while locked").clone();
        match act.unwrap_or_else(|| then.map_or(Act::Answer, Act::Fail)) {
            Act::Answer => Ok(tonic::Response::new(Answer::default())),
            Act::Fail(status) => Err(status),
            Act::Hang => pending().await,
        }
    }
}

impl NamedService for Play {
    const NAME: &'static str = NAME;
}

impl Service<Request<Body>> for Play {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let play = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Answer, Question>::default());
            let act = service_fn(move |request| play.clone().act(request));
            Ok(grpc.unary(act, request).await)
        })
    }
}

/// Calls a method, with so much time.
pub(crate) async fn call(
    channel: &Channel,
    path: &'static str,
    time: Duration,
) -> Result<(), Status> {
    let mut request = tonic::Request::new(question("what comes next?"));
    request.set_timeout(time);
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = ProstCodec::<Question, Answer>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(request, path, codec).await.map(|_answer| ())
}

fn descriptors() -> &'static [u8] {
    static DESCRIPTORS: OnceLock<Vec<u8>> = OnceLock::new();
    DESCRIPTORS.get_or_init(|| {
        protos::compile(
            r#"
            service Play {
              rpc Once(Question) returns (Answer);
              rpc Twice(Question) returns (Answer) { option idempotency_level = IDEMPOTENT; }
            }
            message Question { string text = 1; }
            message Answer { string text = 1; int64 left_ms = 2; }"#,
        )
    })
}
