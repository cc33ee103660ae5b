//! A service on its ports: the API with health and reflection, and health alone for those who run it.

use crate::{
    Deadlines, Listener,
    around::{Around as _, AroundLayer},
    calls::Calls,
    connection::{self, Door},
    deadline::{Bound, Limits},
    health::Health,
    identity::Only,
    listener::Port,
    panics::Panics,
    protocol::Protocol,
    reflection::Conversation,
    shed::{Gate, Load, Method, Shed},
    tls,
    validation::{MOST, Schema, Validation},
};
use anyhow::{Context as _, ensure};
use chassis::Host;
use http::{Request, Response};
use prost_reflect::DescriptorPool;
use std::{
    collections::HashMap, convert::Infallible, fmt, iter, net::SocketAddr, sync::Arc,
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    body::Body,
    server::NamedService,
    service::{LayerExt as _, Routes},
};
use tonic_health::pb::health_server::{HealthServer, SERVICE_NAME as HEALTH};
use tonic_reflection::server::Builder as Reflection;
use tower::{Service, ServiceBuilder};

/// Health is told at once; what takes longer is the sending of the question.
const HEALTH_DEADLINE: Duration = Duration::from_secs(2);
const HEALTH_PATHS: [&str; 2] = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];

/// What is needed to serve a service, beside the service: read from its protos, before anything listens.
#[derive(Debug)]
pub struct Server {
    domain: &'static str,
    descriptors: &'static [u8],
    rules: Rules,
    beside: Vec<Beside>,
}

/// What the protos say of a service.
#[derive(Debug)]
struct Rules {
    service: &'static str,
    limits: HashMap<String, Limits>,
    schema: Schema,
    /// Who alone may call, by path.
    callers: HashMap<String, &'static [&'static str]>,
    /// For [`Shed`].
    methods: HashMap<String, Method>,
}

/// A service that is served on the same port.
struct Beside {
    service: &'static str,
    add: Box<dyn FnOnce(Routes, Around) -> Routes + Send>,
}

/// What is around every service of a server.
#[derive(Clone)]
struct Around {
    domain: &'static str,
    draining: CancellationToken,
    under_way: TaskTracker,
    /// Whether each connection comes with its peer's identity.
    peers_are_known: bool,
    load: Arc<Load>,
}

/// A service that is served.
#[derive(Debug)]
pub struct Serving {
    /// Where the API is.
    pub address: SocketAddr,
    /// Where health is told to those who run it.
    pub admin_address: SocketAddr,
    health: Health,
}

impl Server {
    /// Reads what the requests of a service must be. `domain` is that of the errors, `descriptors` an encoded
    /// `FileDescriptorSet` with all options kept, `service` the full name.
    ///
    /// # Errors
    /// The service or a method is not in the descriptors, or a request has something that this crate cannot check, such as a
    /// rule that it does not know.
    pub fn new(
        domain: &'static str,
        descriptors: &'static [u8],
        service: &'static str,
        deadlines: Deadlines,
    ) -> anyhow::Result<Self> {
        let rules = Rules::read(descriptors, service, deadlines)?;
        Ok(Self { domain, descriptors, rules, beside: Vec::new() })
    }

    /// Lets only these peers call a method, where peers are known: on a port that asks for certificates ([`Listener::secure`]).
    ///
    /// # Errors
    /// There is no such method.
    pub fn only(
        mut self,
        method: &'static str,
        callers: &'static [&'static str],
    ) -> anyhow::Result<Self> {
        let service = self.rules.service;
        let path = format!("/{service}/{method}");
        ensure!(self.rules.limits.contains_key(&path), "{service} has no {method} to guard");
        self.rules.callers.insert(path, callers);
        Ok(self)
    }

    /// Also serves another service, on the same port and by the same rules. Its calls go first ([`Self::first`]): it is asked by
    /// those who do something about a crowd, and not by the crowd.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn beside<S>(mut self, service: S, deadlines: Deadlines) -> anyhow::Result<Self>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        let mut rules = Rules::read(self.descriptors, S::NAME, deadlines)?;
        rules.methods.values_mut().for_each(|method| method.first = true);
        let add = |routes: Routes, around| routes.add_service(behind(around, rules, service));
        self.beside.push(Beside { service: S::NAME, add: Box::new(add) });
        Ok(self)
    }

    /// Takes the calls of some methods when those of others are shed already: such as leave less to do.
    ///
    /// # Errors
    /// The service has no such method.
    pub fn first(
        mut self,
        methods: impl IntoIterator<Item = &'static str>,
    ) -> anyhow::Result<Self> {
        let Rules { service, methods: known, .. } = &mut self.rules;
        for name in methods {
            let method = known.get_mut(&format!("/{service}/{name}"));
            method.with_context(|| format!("{service} has no {name} to go first"))?.first = true;
        }
        Ok(self)
    }

    /// Serves until the host drains. Health says `NOT_SERVING` until [`Serving::ready`].
    ///
    /// # Errors
    /// The service is another one than the server was made for, or reflection cannot read the descriptors.
    pub fn serve<S>(self, host: &Host, listener: Listener, service: S) -> anyhow::Result<Serving>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        ensure!(S::NAME == self.rules.service, "{} is not {}", S::NAME, self.rules.service);
        let Listener { api, admin } = listener;
        let (address, admin_address) = (api.address, admin.address);
        let health = Health::new(host, self.services().collect());
        let v1 = self.reflection().build_v1()?.max_decoding_message_size(MOST);
        let v1alpha = self.reflection().build_v1alpha()?.max_decoding_message_size(MOST);
        let Self { domain, rules, beside, .. } = self;
        let under_way = TaskTracker::new();
        let peers_are_known = api.tls.as_ref().is_some_and(tls::Server::knows_its_peers);
        let around = Around {
            domain,
            draining: host.draining(),
            under_way: under_way.clone(),
            peers_are_known,
            load: Arc::default(),
        };
        let first = Routes::new(behind(around.clone(), rules, service));
        let routes = beside.into_iter().fold(first, |routes, it| (it.add)(routes, around.clone()));
        // as small and as soon as any request, on both ports
        let limits = Arc::new(Deadlines::paths(HEALTH_DEADLINE, HEALTH_PATHS));
        let told = HealthServer::new(health.clone()).max_decoding_message_size(MOST);
        let told = AroundLayer(Bound { domain, limits }).named_layer(told);
        let conversation = AroundLayer(Conversation { draining: host.draining() });
        let routes = routes
            .add_service(told.clone())
            .add_service(conversation.named_layer(v1))
            .add_service(conversation.named_layer(v1alpha));
        spawn(host, api, Protocol::new(domain, routes.prepare()), under_way);
        // plaintext whatever the API is, and nothing that anybody may not know
        let told = Protocol::new(domain, Routes::new(told).prepare());
        spawn(host, admin, told, TaskTracker::new());
        Ok(Serving { address, admin_address, health })
    }

    fn services(&self) -> impl Iterator<Item = &'static str> {
        iter::once(self.rules.service).chain(self.beside.iter().map(|beside| beside.service))
    }

    fn reflection(&self) -> Reflection<'static> {
        let reflection = Reflection::configure()
            .register_encoded_file_descriptor_set(self.descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(HEALTH);
        self.services().fold(reflection, Reflection::with_service_name)
    }
}

impl Rules {
    fn read(
        descriptors: &[u8],
        service: &'static str,
        deadlines: Deadlines,
    ) -> anyhow::Result<Self> {
        let pool = DescriptorPool::decode(descriptors).context("the descriptors are malformed")?;
        let descriptor = pool.get_service_by_name(service);
        let descriptor =
            descriptor.with_context(|| format!("{service} is not in the descriptors"))?;
        let limits = deadlines.limits(&descriptor)?;
        let schema = Schema::of(&descriptor).context("the requests cannot be validated")?;
        let of = |(path, limits): (&String, &Limits)| (path.clone(), Method::new(*limits));
        let methods = limits.iter().map(of).collect();
        Ok(Self { service, limits, schema, callers: HashMap::new(), methods })
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service)
    }
}

/// What a call goes through. Health and reflection do not: they have no rules, and a drain does not wait for whoever watches
/// them.
fn behind<S>(
    around: Around,
    rules: Rules,
    service: S,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ NamedService
+ Clone
+ Send
+ Sync
+ 'static
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let Around { domain, draining, under_way, peers_are_known: known, load } = around;
    let (limits, schema) = (Arc::new(rules.limits), Arc::new(rules.schema));
    let callers = Arc::new(rules.callers);
    let shed = Shed { domain, load, methods: Arc::new(rules.methods) };
    // before: the limits of the connection and of HTTP/2, and what is no gRPC at all, for all that is on the port
    // first: a call counts from its first byte, and one that comes too late costs nothing
    let unread = Calls { domain, draining, under_way }
        // before what costs, and outside of what is learnt of answers: who may not call
        .then(Only { domain, known, callers })
        // around all that may go wrong inside
        .then(Panics { domain })
        // before anything is read: what is too much costs next to nothing
        .then(Gate(shed.clone()));
    // around the reading of the request: one that never comes ends with its deadline
    let read = Bound { domain, limits }
        // after it the service sees no request that breaks a rule
        .then(Validation { domain, schema })
        // last: counted is only what is worked on
        .then(shed);
    // in two, for the compiler looks only so deep into one
    ServiceBuilder::new().layer(AroundLayer(unread)).layer(AroundLayer(read)).named_layer(service)
}

impl Serving {
    /// Tells health that calls are welcome: the service has all that it needs.
    pub fn ready(&self) {
        self.health.tell(true);
    }

    /// Tells health later whether the service still has what it needs: whether calls are welcome.
    pub fn readiness(&self) -> impl Fn(bool) + Send + Sync + use<> + 'static {
        let health = self.health.clone();
        move |ready| health.tell(ready)
    }
}

/// The process cannot do without its listeners.
fn spawn(host: &Host, port: Port, routes: Protocol<Routes>, under_way: TaskTracker) {
    let name = format!("the listener of {}", port.flag);
    let door = Door { host: host.clone(), routes, under_way };
    host.spawn(name, connection::accept(door, port));
}
