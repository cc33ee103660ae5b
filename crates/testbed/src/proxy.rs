//! A TCP proxy that does to connections what networks and dying machines do, inside the test's own process: what is faulty is
//! switched while calls run.
//!
//! A process that stands still (SIGSTOP) is [`Block::Both`]: its system accepts connections and takes some bytes, and nothing
//! comes back. What was blocked arrives when the block ends, as TCP's retransmissions do.

use crate::ports;
use chassis::Host;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

/// What is read at once: small, so that a slow line is slow evenly.
const PIECE: usize = 4 * 1024;
/// Pieces that may be on their way; a sender waits for more room, as it does for a full line.
const ON_THE_WAY: usize = 64;

/// What is wrong with the way; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Nobody listens: connections are refused. Those that there are go on.
    pub refuse: bool,
    /// What does not get through.
    pub block: Block,
    /// How long everything takes, in each direction.
    pub latency: Duration,
    /// Bytes in a second, in each direction of each connection; none is no limit.
    pub bandwidth: Option<u32>,
}

/// A partition: what does not get through, and waits for it. Connections are accepted nonetheless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Block {
    /// All gets through.
    #[default]
    None,
    /// What clients say.
    ToServer,
    /// What the server says.
    ToClient,
    /// Either: half-open.
    Both,
}

/// A way to a server. It ends when it is dropped, and all its connections with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    orders: mpsc::UnboundedSender<(Order, oneshot::Sender<()>)>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Become(Faults),
    Reset,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Proxy {
    /// Listens on a port of its own, and leads to `to`; all is well at first.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(to: SocketAddr) -> io::Result<Self> {
        // a port that nobody is given by chance: it must be free again after it was closed
        let [address] = ports::free();
        let socket = TcpListener::bind(address).await?;
        let (orders, ordered) = mpsc::unbounded_channel();
        let host = Host::new();
        host.track(Acceptor { to, address, host: host.clone() }.run(socket, ordered));
        Ok(Self { address, orders })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From when this returns, these are the faults.
    pub async fn set(&self, faults: Faults) {
        self.order(Order::Become(faults)).await;
    }

    /// All is well again.
    pub async fn heal(&self) {
        self.set(Faults::default()).await;
    }

    /// Resets all connections that there are (RST); new ones are welcome.
    pub async fn reset(&self) {
        self.order(Order::Reset).await;
    }

    async fn order(&self, order: Order) {
        let (tell, told) = oneshot::channel();
        self.orders.send((order, tell)).expect("it runs until it is dropped");
        told.await.expect("it can listen again, and does what it is told");
    }
}

/// Accepts connections, and hears what is wrong from now on.
struct Acceptor {
    to: SocketAddr,
    address: SocketAddr,
    host: Host,
}

impl Acceptor {
    async fn run(
        self,
        socket: TcpListener,
        mut ordered: mpsc::UnboundedReceiver<(Order, oneshot::Sender<()>)>,
    ) {
        let mut socket = Some(socket);
        // dropped at the end of this, they end every connection
        let faults = watch::Sender::new(Faults::default());
        let resets = watch::Sender::new(());
        loop {
            let accepted = async {
                match &socket {
                    Some(socket) => socket.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = accepted => if let Ok((stream, _peer)) = accepted {
                    let (faults, resets) = (faults.subscribe(), resets.subscribe());
                    self.host.track(connection(stream, self.to, faults, resets));
                },
                order = ordered.recv() => {
                    let Some((order, tell)) = order else { return };
                    match order {
                        Order::Reset => resets.send_replace(()),
                        Order::Become(now) => {
                            if now.refuse {
                                socket = None;
                            } else if socket.is_none() {
                                let bound = TcpListener::bind(self.address).await;
                                socket = Some(bound.expect("the port is kept for it"));
                            }
                            faults.send_replace(now);
                        }
                    }
                    let _nobody_waits = tell.send(());
                }
            }
        }
    }
}

/// Until one of the ends closes it, it is reset, or the proxy ends.
async fn connection(
    mut client: TcpStream,
    to: SocketAddr,
    faults: watch::Receiver<Faults>,
    mut resets: watch::Receiver<()>,
) {
    let Ok(mut server) = TcpStream::connect(to).await else {
        let _gone = client.set_zero_linger();
        return;
    };
    // the only delays are those that were asked for
    let _gone = (client.set_nodelay(true), server.set_nodelay(true));
    let reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = carry(from_client, to_server, Direction::ToServer, faults.clone());
        let back = carry(from_server, to_client, Direction::ToClient, faults);
        let both = async { tokio::join!(there, back) };
        tokio::select! {
            (there, back) = both => there.is_err() || back.is_err(),
            _reset_or_over = resets.changed() => true,
        }
    };
    if reset {
        let _gone = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// One direction of a connection, until its end was passed on.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    faults: watch::Receiver<Faults>,
) -> io::Result<()> {
    let (send, mut sent) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let reading = {
        let mut faults = faults.clone();
        async move {
            let mut piece = [0; PIECE];
            loop {
                passes(&mut faults, direction).await?;
                let len = from.read(&mut piece).await?;
                let due = Instant::now() + faults.borrow().latency;
                if len == 0 || send.send((due, piece[..len].to_vec())).await.is_err() {
                    return io::Result::Ok(());
                }
            }
        }
    };
    let writing = async move {
        let mut faults = faults;
        while let Some((due, piece)) = sent.recv().await {
            sleep_until(due).await;
            // what was read before the block does not slip through it
            passes(&mut faults, direction).await?;
            let bandwidth = faults.borrow().bandwidth;
            if let (Some(bandwidth), Ok(len)) = (bandwidth, u32::try_from(piece.len())) {
                let time = Duration::from_secs(1) * len / bandwidth.max(1);
                sleep_until(Instant::now() + time).await;
            }
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|_both| ())
}

/// Until nothing blocks the direction.
async fn passes(faults: &mut watch::Receiver<Faults>, direction: Direction) -> io::Result<()> {
    let blocks = |block| match block {
        Block::None => false,
        Block::ToServer => direction == Direction::ToServer,
        Block::ToClient => direction == Direction::ToClient,
        Block::Both => true,
    };
    let passes = faults.wait_for(|faults| !blocks(faults.block)).await;
    passes.map(|_faults| ()).map_err(|_over| io::ErrorKind::ConnectionAborted.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy to a server that says what it is told, and a client of it.
    async fn echo() -> (Proxy, TcpStream) {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = Proxy::start(socket.local_addr().expect("it is bound")).await.expect("a port");
        let host = Host::new();
        host.clone().track(async move {
            while let Ok((mut stream, _peer)) = socket.accept().await {
                host.track(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let client = TcpStream::connect(proxy.address()).await.expect("it listens");
        (proxy, client)
    }

    async fn say(client: &mut TcpStream, text: &[u8]) -> io::Result<()> {
        client.write_all(text).await?;
        let mut said = vec![0; text.len()];
        client.read_exact(&mut said).await?;
        assert_eq!(said, text);
        Ok(())
    }

    #[tokio::test]
    async fn what_is_blocked_arrives_when_the_block_ends() {
        let (proxy, mut client) = echo().await;
        for block in [Block::ToServer, Block::ToClient, Block::Both] {
            say(&mut client, b"before").await.expect("all is well");
            proxy.set(Faults { block, ..Faults::default() }).await;
            {
                let mut meanwhile = std::pin::pin!(say(&mut client, b"meanwhile"));
                let blocked = tokio::time::timeout(Duration::from_millis(20), &mut meanwhile);
                assert!(blocked.await.is_err(), "{block:?}");
                proxy.heal().await;
                meanwhile.await.expect("nothing is lost");
            }
        }
    }

    #[tokio::test]
    async fn a_reset_ends_what_there_is_and_a_refusal_what_would_be() {
        let (proxy, mut client) = echo().await;
        say(&mut client, b"before").await.expect("all is well");
        proxy.set(Faults { refuse: true, ..Faults::default() }).await;
        let refused = TcpStream::connect(proxy.address()).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        say(&mut client, b"meanwhile").await.expect("it was there before");
        proxy.reset().await;
        let reset = client.read_u8().await.expect_err("it is gone");
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        proxy.heal().await;
        let mut client = TcpStream::connect(proxy.address()).await.expect("it listens again");
        say(&mut client, b"after").await.expect("all is well");
    }

    #[tokio::test]
    async fn a_slow_way_takes_its_time() {
        let (proxy, mut client) = echo().await;
        let time = async |client: &mut TcpStream, text: &[u8]| {
            let begun = Instant::now();
            say(client, text).await.expect("it arrives");
            begun.elapsed()
        };
        let latency = Duration::from_millis(30);
        proxy.set(Faults { latency, ..Faults::default() }).await;
        assert!(time(&mut client, b"there and back").await >= latency * 2);
        proxy.set(Faults { bandwidth: Some(100_000), ..Faults::default() }).await;
        assert!(time(&mut client, &[7; 5_000]).await >= Duration::from_millis(50));
    }
}
