//! Calls spread over all addresses of a service: each goes to one that is well and has little to do.
//!
//! The power of two choices (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001):
//! of two that are drawn, the one with fewer calls under way. That is nearly as good as to look at all, and clients that do not
//! know of each other do not run to the same one. A new endpoint has as many calls under way as the others within moments, and
//! never more.

#[cfg(test)]
mod tests;

use super::{
    endpoint::{Endpoint, EndpointState, Origin, Sent, UnderWay},
    failure::{BoxError, expired, failed, unconnected, unsent},
    keeper::CONNECT,
    resolve::{self, Lookup, Place, Target},
};
use crate::tls;
use chassis::Host;
use http::{Request, Response};
use rand::Rng as _;
use std::{fmt, future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, body::Body, transport};
use tower::Service as _;

/// How long a call waits for the first address of a service to be known: as for a connection.
const KNOWN: Duration = CONNECT;
/// How many connections may end under a call before it was sent. Each that ends so is a server that goes away in an orderly
/// way, and two in a row are many.
const CLOSED: usize = 3;

/// All addresses of a service. A clone is the same.
#[derive(Clone)]
pub(crate) struct Balance(Way);

#[derive(Clone)]
enum Way {
    Endpoints(Arc<Endpoints>),
    /// A channel of tonic's, which nothing is known of.
    Given(transport::Channel),
}

struct Endpoints {
    set: Arc<Set>,
    /// Ends all that goes on by itself.
    _ended: DropGuard,
}

struct Set {
    endpoints: watch::Sender<Arc<[Arc<Endpoint>]>>,
    ended: CancellationToken,
}

/// Where a call was tried. The next attempt goes elsewhere, if there is one who is in.
#[derive(Default)]
pub(crate) struct Tried {
    /// Nearly every call has one attempt, and nothing to allocate for it.
    first: Option<Arc<Endpoint>>,
    more: Vec<Arc<Endpoint>>,
}

/// Where an attempt is.
#[derive(Default)]
struct At {
    endpoint: Option<Arc<Endpoint>>,
    /// Something may have been sent.
    begun: bool,
}

impl Balance {
    /// Over the addresses at a URL, `http://HOST:PORT` or `https://HOST:PORT`, or at several with commas between them; of a name, over all that it
    /// has. Nothing is connected yet. The flag is the one that sets the URLs. Names are looked up until the host drains.
    ///
    /// # Errors
    /// It is no such URL; the error names the flag.
    pub(crate) fn open(
        host: &Host,
        urls: &str,
        flag: &'static str,
        tls: Option<&tls::Client>,
    ) -> anyhow::Result<Self> {
        Self::open_with(host, urls, (flag, tls), resolve::system())
    }

    fn open_with(
        host: &Host,
        urls: &str,
        (flag, tls): (&'static str, Option<&tls::Client>),
        lookup: Lookup,
    ) -> anyhow::Result<Self> {
        let targets = urls.split(',').map(|url| Target::read(url, flag, tls));
        let targets = targets.collect::<anyhow::Result<Vec<_>>>()?;
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let set = Arc::new(Set { endpoints: watch::Sender::new([].into()), ended });
        let places: Vec<_> = targets.iter().filter_map(Target::place).collect();
        if places.len() == targets.len() {
            set.become_these(places);
        } else {
            let (ended, told) = (set.ended.clone(), set.clone());
            let follow =
                resolve::follow(targets, lookup, ended, move |places| told.become_these(places));
            let draining = host.draining();
            host.track(async move {
                tokio::select! {
                    () = follow => {}
                    // calls that are under way still find what is known
                    () = draining.cancelled() => {}
                }
            });
        }
        Ok(Self(Way::Endpoints(Arc::new(Endpoints { set, _ended: guard }))))
    }

    /// One attempt at one endpoint, until the answer's headers come or `time` is over: that is `DEADLINE_EXCEEDED`, and if it
    /// is `telling`, because there was time enough, it counts against the endpoint. Where no connection is to be had it goes on to the next by itself, for nothing was sent.
    ///
    /// # Errors
    /// The status that the transport makes of a failure, marked [`super::failure::NotSent`] if nothing can have been sent.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        (time, telling): (Duration, bool),
        tried: &mut Tried,
    ) -> Result<Response<Body>, Status> {
        let endpoints = match &self.0 {
            Way::Endpoints(endpoints) => endpoints,
            Way::Given(channel) => return given(channel.clone(), request, time).await,
        };
        let mut at = At::default();
        match timeout(time, endpoints.set.send(request, tried, &mut at)).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                let At { endpoint: Some(endpoint), begun: true } = at else {
                    return Err(unsent(expired(), None));
                };
                tried.add(&endpoint);
                if telling && endpoint.is_late() {
                    endpoints.set.take_out(&endpoint);
                }
                Err(expired())
            }
        }
    }

    /// The addresses as they are now; none of a channel that was given.
    pub(crate) fn endpoints(&self) -> Vec<EndpointState> {
        match &self.0 {
            Way::Endpoints(endpoints) => {
                endpoints.set.endpoints.borrow().iter().map(|endpoint| endpoint.state()).collect()
            }
            Way::Given(_) => Vec::new(),
        }
    }
}

impl From<transport::Channel> for Balance {
    fn from(channel: transport::Channel) -> Self {
        Self(Way::Given(channel))
    }
}

impl fmt::Debug for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.endpoints()).finish()
    }
}

impl Tried {
    fn add(&mut self, endpoint: &Arc<Endpoint>) {
        if self.has(endpoint) {
            return;
        }
        match self.first {
            None => self.first = Some(endpoint.clone()),
            Some(_) => self.more.push(endpoint.clone()),
        }
    }

    fn has(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.first.iter().chain(&self.more).any(|tried| Arc::ptr_eq(tried, endpoint))
    }
}

impl Set {
    async fn send(
        &self,
        mut request: Request<Body>,
        tried: &mut Tried,
        at: &mut At,
    ) -> Result<Response<Body>, Status> {
        let (mut passed, mut closed) = (Vec::new(), 0);
        let mut why: Option<BoxError> = None;
        while let Some(endpoint) = self.choose_soon(tried).await {
            if passed.iter().any(|passed| Arc::ptr_eq(passed, &endpoint)) || closed == CLOSED {
                break;
            }
            let under_way = UnderWay::new(endpoint.clone());
            at.endpoint = Some(endpoint);
            let endpoint = &under_way.0;
            match endpoint.send(request, &mut at.begun).await {
                Sent::Answered(answer) => {
                    tried.add(endpoint);
                    return Ok(answer);
                }
                Sent::Failed(status) => {
                    tried.add(endpoint);
                    return Err(status);
                }
                Sent::Unconnected(back, error) => {
                    request = back;
                    why = Some(error.into());
                    tried.add(endpoint);
                    passed.push(endpoint.clone());
                }
                Sent::Closed(back) => {
                    request = back;
                    why = Some("the connection ended before".into());
                    closed += 1;
                }
            }
        }
        Err(unconnected(why.unwrap_or_else(|| "there is no address of it".into())))
    }

    /// The endpoint for a call. A service of which nothing is known yet is waited for.
    async fn choose_soon(&self, tried: &Tried) -> Option<Arc<Endpoint>> {
        let chosen = choose(&self.endpoints.borrow(), tried);
        if chosen.is_some() {
            return chosen;
        }
        let mut endpoints = self.endpoints.subscribe();
        let known = timeout(KNOWN, endpoints.wait_for(|endpoints| !endpoints.is_empty())).await;
        choose(&known.ok()?.ok()?, tried)
    }

    /// Unless it is the last one that is in: when all are late, something else is wrong.
    fn take_out(&self, endpoint: &Arc<Endpoint>) {
        let endpoints = self.endpoints.borrow().clone();
        let mut others = endpoints.iter().filter(|other| !Arc::ptr_eq(other, endpoint));
        if others.any(|other| other.is_in()) {
            endpoint.take_out("it did not answer three calls in a row");
        }
    }

    /// Those that stay keep their connections; those that go finish what is under way.
    fn become_these(&self, places: Vec<Place>) {
        let were = self.endpoints.borrow().clone();
        let mut are: Vec<Arc<Endpoint>> = Vec::new();
        for (address, origin) in places {
            // the same address by another name is another one: its certificate bears the name, and requests do
            let same = |endpoint: &&Arc<Endpoint>| {
                endpoint.address == address && endpoint.origin.authority == origin.authority
            };
            if are.iter().any(|endpoint| same(&endpoint)) {
                continue;
            }
            let is = were.iter().find(same).cloned();
            are.push(is.unwrap_or_else(|| self.come(address, origin, were.is_empty())));
        }
        let gone = |was: &&Arc<Endpoint>| !are.iter().any(|is| Arc::ptr_eq(is, was));
        let gone: Vec<_> = were.iter().filter(gone).cloned().collect();
        if gone.is_empty() && are.len() == were.len() {
            return;
        }
        self.endpoints.send_replace(are.into());
        for endpoint in gone {
            tracing::info!(address = %endpoint.address, "{endpoint} is no address of it any more");
            endpoint.gone.cancel();
        }
    }

    fn come(&self, address: SocketAddr, origin: Origin, first: bool) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(address, origin, &self.ended);
        if !first {
            tracing::info!(address = %address, "{endpoint} is a new address: calls go to it, too");
        }
        Arc::new(endpoint)
    }
}

/// Of those that are best, two are drawn, and the one with fewer calls under way is taken.
fn choose(endpoints: &[Arc<Endpoint>], tried: &Tried) -> Option<Arc<Endpoint>> {
    let mut drawn: [Option<&Arc<Endpoint>>; 2] = [None; 2];
    let (mut best, mut seen) = (u8::MAX, 0);
    for endpoint in endpoints {
        let reluctance = endpoint.reluctance(tried.has(endpoint));
        if reluctance < best {
            (best, seen, drawn) = (reluctance, 0, [None; 2]);
        }
        if reluctance == best {
            // two of how many there may be, in one pass: reservoir sampling (J. S. Vitter's algorithm R, 1985)
            let place = if seen < 2 { seen } else { rand::rng().random_range(0..=seen) };
            if let Some(place) = drawn.get_mut(place) {
                *place = Some(endpoint);
            }
            seen += 1;
        }
    }
    match drawn {
        [Some(one), Some(other)] => {
            let (load, others) = (one.load(), other.load());
            // in doubt the first of the list has no right to be first
            let one_is_it = load < others || (load == others && rand::rng().random());
            Some(if one_is_it { one } else { other }.clone())
        }
        [one, _] => one.cloned(),
    }
}

/// By a channel of tonic's.
async fn given(
    mut channel: transport::Channel,
    request: Request<Body>,
    time: Duration,
) -> Result<Response<Body>, Status> {
    let mut begun = false;
    let answer = async {
        poll_fn(|context| channel.poll_ready(context)).await?;
        begun = true;
        channel.call(request).await
    };
    match timeout(time, answer).await {
        Ok(answer) => answer.map_err(failed),
        Err(_elapsed) if begun => Err(expired()),
        Err(_elapsed) => Err(unsent(expired(), None)),
    }
}
