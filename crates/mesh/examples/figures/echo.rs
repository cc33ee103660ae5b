//! What is measured: a service that answers with what it was asked, well or badly, by the mesh's server and by tonic's alone;
//! and the ways to call it.

use anyhow::Context as _;
use chassis::Host;
use futures::future::BoxFuture;
use http::{Request, Response, uri::PathAndQuery};
use mesh::{Channel, Deadlines, Listener, Policies, Server, Upstream};
use protox::{
    Compiler, Error,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver},
};
use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc as orders},
    time::timeout,
};
use tonic::{
    Status,
    body::Body,
    client::{Grpc, GrpcService},
    server::NamedService,
    transport,
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

const NAME: &str = "example.v1.Echo";
const PROTO: &str = r#"
    syntax = "proto3";
    package example.v1;
    import "buf/validate/validate.proto";
    service Echo {
      rpc Say(Words) returns (Words) { option idempotency_level = IDEMPOTENT; }
    }
    message Words {
      string id = 1 [(buf.validate.field).string.uuid = true];
      string text = 2 [(buf.validate.field).string = {min_len: 1, max_len: 200}];
      int32 count = 3 [(buf.validate.field).int32 = {gte: 1, lte: 10}];
    }
"#;
/// As long as services give a call by default.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, prost::Message)]
struct Words {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(int32, tag = "3")]
    count: i32,
}

/// By what a call is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Bare,
    Mesh,
}

/// How the service answers.
#[derive(Clone)]
pub(crate) enum Manner {
    Well,
    /// When there is a seat; it is taken for so long. More calls queue.
    Busy(Arc<Semaphore>, Duration),
    /// Never.
    Never,
    /// Every so manieth call fails, as behind a proxy that finds nobody.
    Failing(u64, Arc<AtomicU64>),
}

#[derive(Clone)]
struct Echo(Manner);

impl Echo {
    async fn say(self, words: tonic::Request<Words>) -> Result<tonic::Response<Words>, Status> {
        match self.0 {
            Manner::Well => {}
            Manner::Busy(seats, takes) => {
                let _seat = seats.acquire().await;
                let _over = timeout(takes, pending::<()>()).await;
            }
            Manner::Never => pending().await,
            Manner::Failing(every, asked) => {
                if asked.fetch_add(1, Relaxed) % every == 0 {
                    return Err(Status::unavailable("no healthy upstream"));
                }
            }
        }
        Ok(tonic::Response::new(words.into_inner()))
    }
}

impl NamedService for Echo {
    const NAME: &'static str = NAME;
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let say = service_fn(move |words| echo.clone().say(words));
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Words, Words>::default());
            Ok(grpc.unary(say, request).await)
        })
    }
}

/// A server on a thread of its own, until it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    orders: orders::UnboundedSender<mpsc::Receiver<()>>,
}

impl Served {
    /// Serves on one thread, as the shop's services do.
    pub(crate) fn start(side: Side, manner: Manner) -> anyhow::Result<Self> {
        let (orders, mut freezes) = orders::unbounded_channel::<mpsc::Receiver<()>>();
        let (tell, told) = mpsc::channel();
        let serve = async move {
            let host = Host::new();
            let _gone = tell.send(listen(&host, side, Echo(manner)).await);
            while let Some(until_thawed) = freezes.recv().await {
                // it is the runtime's only thread: as after SIGSTOP, the kernel alone still answers
                let _thawed = until_thawed.recv();
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || runtime.block_on(serve));
        let address = told.recv().context("the server ended")??;
        Ok(Self { address, orders })
    }

    /// Stands still until what is returned is dropped.
    pub(crate) fn freeze(&self) -> mpsc::Sender<()> {
        let (thaws, until_thawed) = mpsc::channel();
        let _ended = self.orders.send(until_thawed);
        thaws
    }
}

async fn listen(host: &Host, side: Side, echo: Echo) -> anyhow::Result<SocketAddr> {
    let any = "127.0.0.1:0".parse::<SocketAddr>()?;
    if side == Side::Mesh {
        let listener = Listener::bind(("--listen", any), ("--admin-listen", any)).await?;
        let deadlines = Deadlines::new(DEADLINE);
        let server = Server::new("example.org", descriptors(), NAME, deadlines)?;
        let serving = server.serve(host, listener, echo)?;
        serving.ready();
        return Ok(serving.address);
    }
    let socket = tokio::net::TcpListener::bind(any).await?;
    let address = socket.local_addr()?;
    let incoming = transport::server::TcpIncoming::from(socket).with_nodelay(Some(true));
    let server = transport::Server::builder().add_service(echo).serve_with_incoming(incoming);
    host.spawn("tonic's server", async move { Ok(server.await?) });
    Ok(address)
}

/// A way to the service.
#[derive(Clone)]
pub(crate) enum Line {
    Bare(transport::Channel),
    Mesh(Channel),
}

impl Line {
    /// By tonic's channel: one connection.
    pub(crate) async fn bare(address: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = transport::Endpoint::from_shared(format!("http://{address}"))?;
        Ok(Self::Bare(endpoint.connect().await?))
    }

    /// By the mesh's: one connection, too.
    pub(crate) fn mesh(address: SocketAddr, policies: Policies) -> anyhow::Result<Self> {
        Ok(Self::Mesh(channel(address, policies)?))
    }

    pub(crate) async fn of(side: Side, address: SocketAddr) -> anyhow::Result<Self> {
        match side {
            Side::Bare => Self::bare(address).await,
            Side::Mesh => Self::mesh(address, Policies::default()),
        }
    }

    /// A call; with a deadline if there is one.
    pub(crate) async fn ask(&self, time: Option<Duration>) -> Result<(), Status> {
        match self {
            Self::Bare(channel) => ask(channel.clone(), time).await,
            Self::Mesh(channel) => ask(channel.clone(), time).await,
        }
    }
}

/// By the mesh, for who asks the channel more than calls. What is beside its calls ends with it.
pub(crate) fn channel(address: SocketAddr, policies: Policies) -> anyhow::Result<Channel> {
    let upstream = Upstream {
        name: "echo",
        urls: format!("http://{address}"),
        flag: "--echo-url",
        service: NAME,
        descriptors: descriptors(),
        policies,
        tls: None,
    };
    Channel::open(&Host::new(), upstream)
}

/// What generated code does.
pub(crate) async fn ask<S>(channel: S, time: Option<Duration>) -> Result<(), Status>
where
    S: GrpcService<Body, ResponseBody = Body>,
    S::Error: std::fmt::Display,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let mut words = tonic::Request::new(Words {
        id: "0b0e7a52-5c4e-7c3a-9d53-1d2f3c4b5a69".to_owned(),
        text: "a message as small as most of them are".to_owned(),
        count: 3,
    });
    if let Some(time) = time {
        words.set_timeout(time);
    }
    let path = PathAndQuery::from_static("/example.v1.Echo/Say");
    grpc.unary(words, path, ProstCodec::<Words, Words>::default()).await.map(drop)
}

/// The proto as an encoded `FileDescriptorSet`, which a build script would have written.
fn descriptors() -> &'static [u8] {
    struct Source;
    impl FileResolver for Source {
        fn open_file(&self, name: &str) -> Result<File, Error> {
            match name {
                "echo.proto" => File::from_source(name, PROTO),
                _ => Err(Error::file_not_found(name)),
            }
        }
    }
    static COMPILED: OnceLock<Vec<u8>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let third_party = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../third_party");
        let mut files = ChainFileResolver::new();
        files.add(Source);
        files.add(IncludeFileResolver::new(third_party));
        files.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(files);
        compiler.include_imports(true).open_file("echo.proto").expect("it is well-formed");
        compiler.encode_file_descriptor_set()
    })
}
