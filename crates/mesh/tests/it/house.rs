//! A process with one service, as far as a test can tell.

use crate::probe::{self, Answer, Beside, Probe, Question};
use chassis::{DrainConfig, Host};
use mesh::{
    Deadlines, Limits, Listener, Server, Serving,
    tls::{Certificates, Files},
};
use std::time::Duration;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::{Code, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

/// A call's time when its caller sets none, and at most.
pub(crate) const DEFAULT: Duration = Duration::from_secs(20);
pub(crate) const MOST: Duration = Duration::from_secs(60);
/// A drain with nothing to wait for; the process has 10 s.
const SOON: Duration = Duration::from_secs(2);

pub(crate) struct House {
    pub(crate) host: Host,
    pub(crate) probe: Probe,
    pub(crate) serving: Serving,
    delay: Duration,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::open_with(DEFAULT, MOST, Duration::ZERO).await
    }

    pub(crate) async fn open_with(default: Duration, most: Duration, delay: Duration) -> Self {
        let deadlines = Deadlines::new(default).method("Ask", default, most);
        let server = Server::new(probe::DOMAIN, probe::descriptors(), probe::NAME, deadlines);
        Self::serve(server, Host::new(), Self::listener().await, delay)
    }

    pub(crate) async fn open_to(limits: Limits) -> Self {
        let deadlines = Deadlines::new(DEFAULT).method("Ask", DEFAULT, MOST);
        let server = Server::new(probe::DOMAIN, probe::descriptors(), probe::NAME, deadlines);
        let listener = Self::listener().await.limits(limits);
        Self::serve(server, Host::new(), listener, Duration::ZERO)
    }

    async fn listener() -> Listener {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind(("--listen", any), ("--admin-listen", any)).await;
        listener.expect("there are free ports")
    }

    /// Over TLS, and only the till may `Ask`.
    pub(crate) async fn open_secure(files: Files, every: Duration) -> Self {
        let (host, deadlines) = (Host::new(), Deadlines::new(DEFAULT));
        let server = Server::new(probe::DOMAIN, probe::descriptors(), probe::NAME, deadlines);
        let certificates = Certificates::open(&host, files, every).expect("they are well-formed");
        let server = server.and_then(|server| server.only("Ask", &["till"]));
        let listener = Self::listener().await.secure(certificates.server());
        Self::serve(server, host, listener, Duration::ZERO)
    }

    fn serve(
        server: anyhow::Result<Server>,
        host: Host,
        listener: Listener,
        delay: Duration,
    ) -> Self {
        let probe = Probe::new(&host);
        let serving = server
            .and_then(|server| server.first(["Follow"]))
            .and_then(|server| server.beside(Beside, Deadlines::new(DEFAULT)))
            .and_then(|server| server.serve(&host, listener, probe.clone()))
            .expect("it can be served");
        let drain = DrainConfig { delay, timeout: Duration::from_secs(9) };
        let ended = spawn({
            let host = host.clone();
            async move { host.run(&drain).await }
        });
        Self { host, probe, serving, delay, ended }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.serving.address)
    }

    pub(crate) fn channel(&self) -> mesh::Channel {
        mesh::client::connect(&self.url(), "--url").expect("it is a URL")
    }

    /// It ends, soon and well, whoever is connected.
    pub(crate) async fn close(self) {
        self.host.stop("the test is over");
        self.ends().await;
    }

    /// As [`Self::close`], once it was stopped.
    pub(crate) async fn ends(self) {
        let begun = Instant::now();
        let ended = timeout(Duration::from_secs(20), self.ended).await;
        let ended = ended.expect("it ends").expect("it does not panic");
        assert!(ended.is_ok(), "{ended:?}");
        assert!(begun.elapsed() < self.delay + SOON, "{:?}", begun.elapsed());
    }
}

#[allow(clippy::disallowed_methods, reason = "it ends with its test")]
pub(crate) fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(work)
}

/// As a generated client calls.
pub(crate) async fn ask(
    channel: &mesh::Channel,
    request: impl tonic::IntoRequest<Question>,
) -> Result<Answer, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static(probe::ASK);
    let codec = ProstCodec::<Question, Answer>::default();
    grpc.unary(request.into_request(), path, codec).await.map(Response::into_inner)
}

pub(crate) async fn follow(
    channel: &mesh::Channel,
    request: impl tonic::IntoRequest<Question>,
) -> Result<Streaming<Answer>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static(probe::FOLLOW);
    let codec = ProstCodec::<Question, Answer>::default();
    grpc.server_streaming(request.into_request(), path, codec).await.map(Response::into_inner)
}

/// An error's code and its reason, which came with its domain.
pub(crate) fn reason(status: &Status) -> (Code, String) {
    let info =
        status.get_details_error_info().unwrap_or_else(|| panic!("without reason: {status}"));
    assert_eq!(info.domain, probe::DOMAIN);
    (status.code(), info.reason)
}

pub(crate) fn violations(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request();
    let violations = details.map(|details| details.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}
