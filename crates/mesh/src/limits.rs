//! What a listener takes from its peers, whoever they are: how many connections, and how long each may do nothing.

use rand::Rng as _;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The limits of a listener's connections. Those of a call are its service's.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Each costs a descriptor and some 10 KiB when idle.
    pub connections: usize,
    /// Connections at once of one address. One peer needs one for each 128 calls at once; behind one address may be many.
    pub for_each_address: usize,
    /// How long a connection may take to bring its first call. Whoever connects has something to ask.
    pub first_call: Duration,
    /// A connection without calls is told to go between once and twice this after its last. A pause between two customers
    /// does not cost a connection; what somebody forgot does not stay.
    pub idle: Duration,
    /// How old a connection becomes, by 10 % more or less, before its peer is told to make another. Who connects again sees
    /// replicas that are new, and certificates.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            for_each_address: 1_000,
            // with what it takes to say goodbye: closed within 10 s
            first_call: Duration::from_secs(8),
            idle: Duration::from_secs(120),
            age: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// The age of one connection, so that those made together do not end together: gRFC A9.
    pub(crate) fn some_age(&self) -> Duration {
        self.age.mul_f64(rand::rng().random_range(0.9..=1.1))
    }
}

/// How often it is said that connections are refused.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Who is connected to a port.
#[derive(Debug)]
pub(crate) struct Peers {
    limits: Limits,
    connected: Mutex<Connected>,
}

#[derive(Debug, Default)]
struct Connected {
    total: usize,
    /// Only those with any.
    of: HashMap<IpAddr, usize>,
    /// Since it was said last.
    refused: u64,
    said: Option<Instant>,
}

/// A connection that was admitted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    peers: Arc<Peers>,
    of: IpAddr,
}

impl Peers {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, connected: Mutex::default() })
    }

    /// A place for a connection; none if there are too many already.
    pub(crate) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Seat> {
        let of = network(peer.ip());
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let held = connected.of.get(&of).copied().unwrap_or_default();
        let full = connected.total >= self.limits.connections;
        if full || held >= self.limits.for_each_address {
            connected.refuse(of, full);
            return None;
        }
        connected.total += 1;
        connected.of.insert(of, held + 1);
        drop(connected);
        Some(Seat { peers: self.clone(), of })
    }
}

impl Connected {
    fn refuse(&mut self, of: IpAddr, full: bool) {
        self.refused += 1;
        let now = Instant::now();
        if self.said.is_some_and(|said| now - said < SAY_AGAIN) {
            return;
        }
        let (total, refused) = (self.total, self.refused);
        (self.said, self.refused) = (Some(now), 0);
        let whose = if full { "all together".to_owned() } else { format!("{of}") };
        tracing::warn!(total, refused, "connections are refused: {whose} has too many");
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut connected = self.peers.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.total -= 1;
        if let Some(held) = connected.of.get_mut(&self.of) {
            *held -= 1;
            if *held == 0 {
                connected.of.remove(&self.of);
            }
        }
    }
}

/// Whose an address is. Of IPv6 whoever has one address has a /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().expect("an address"), 4_711)
    }

    #[test]
    fn nobody_takes_all_the_connections_there_are() {
        let limits = Limits { connections: 3, for_each_address: 2, ..Limits::default() };
        let peers = Peers::new(limits);
        let first = peers.admit(at("192.0.2.1")).expect("it is the first");
        let second = peers.admit(at("::ffff:192.0.2.1")).expect("it may have two");
        assert!(peers.admit(at("192.0.2.1")).is_none(), "it has its two");
        let other = peers.admit(at("192.0.2.2")).expect("others are welcome");
        assert!(peers.admit(at("192.0.2.3")).is_none(), "there are three");
        drop((first, other));
        let _again = peers.admit(at("192.0.2.1")).expect("it gave one back");
        drop(second);
        let connected = peers.connected.lock().expect("nobody panicked");
        assert_eq!((connected.total, connected.of.len()), (1, 1), "nothing is left of who is gone");
    }

    #[test]
    fn who_has_many_addresses_is_one_all_the_same() {
        let limits = Limits { for_each_address: 1, ..Limits::default() };
        let peers = Peers::new(limits);
        let _one = peers.admit(at("2001:db8::1")).expect("it is the first");
        assert!(peers.admit(at("2001:db8::2")).is_none());
        assert!(peers.admit(at("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn connections_made_together_do_not_end_together() {
        let limits = Limits::default();
        let ages: Vec<_> = (0..100).map(|_| limits.some_age()).collect();
        let second = Duration::from_secs(1);
        assert!(ages.iter().all(|age| (second * 270..=second * 330).contains(age)), "{ages:?}");
        let (least, most) = (ages.iter().min(), ages.iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| *most - *least > second));
    }
}
