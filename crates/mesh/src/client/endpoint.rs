//! How an address of a service is.

use std::{net::SocketAddr, time::SystemTime};

/// An address of a service, as it is now.
#[derive(Clone, Debug)]
pub struct EndpointState {
    /// Where it is.
    pub address: SocketAddr,
    /// Why it is out and since when: calls go elsewhere. None: it is in.
    pub out: Option<(String, SystemTime)>,
    /// Calls that wait for its answer.
    pub under_way: usize,
}
