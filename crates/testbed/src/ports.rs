//! Ports for a shop that must come back at the same address after it was killed.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below what the systems we know hand out for outgoing connections (Linux from 32768, macOS from 49152): while the shop
/// is down, nobody's outgoing connection may take its port.
const FIRST: u16 = 10_240;
const COUNT: u16 = 20_000;

/// Shared by all shops of one test binary, so that two that start at once do not try the same ports.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// `N` loopback addresses that nobody listens on now.
pub(crate) fn free<const N: usize>() -> [SocketAddr; N] {
    std::array::from_fn(|_index| {
        loop {
            // other test binaries may run at the same time: begin where the process id says
            let begin = std::process::id().wrapping_mul(101);
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let offset = begin.wrapping_add(step) % u32::from(COUNT);
            let port = FIRST + u16::try_from(offset).expect("less than COUNT");
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    })
}
