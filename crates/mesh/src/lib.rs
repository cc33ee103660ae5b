//! RPC: a server that refuses what is malformed, bounds what is slow and ends when it is told to; a client's channel; errors
//! with details.
//!
//! This crate knows no word of the domain.
//!
//! ```text
//! Listener ─► connection ─► calls ─► identity ─► panics ─► deadline ─► validation ─► the service
//!                   ├─────► deadline ─► health
//!                   └─────► conversation ─► reflection
//! ```

mod around;
mod calls;
pub mod client;
mod connection;
mod deadline;
mod health;
mod identity;
mod line;
mod listener;
mod panics;
mod problem;
mod reader;
mod reflection;
mod server;
pub mod stream;
pub mod tls;
pub mod trace;
mod validation;

pub use client::Channel;
pub use deadline::{Deadline, Deadlines};
pub use identity::Peer;
pub use listener::Listener;
pub use problem::{Problem, reason};
pub use server::{Server, Serving};
