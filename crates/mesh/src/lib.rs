//! RPC: a server that refuses what is malformed, bounds what is slow and ends when it is told to; a client's channel; errors
//! with details.
//!
//! This crate knows no word of the domain.
//!
//! ```text
//! Listener ─► limits ─► connection ─► protocol ─► calls ─► panics ─► shed ─► deadline ─► validation ─► the service
//!                                         ├─────► deadline ─► health
//!                                         └─────► conversation ─► reflection
//! ```

mod around;
mod calls;
pub mod client;
mod connection;
mod deadline;
mod health;
mod limits;
mod line;
mod listener;
mod panics;
mod problem;
mod protocol;
mod reader;
mod reflection;
mod server;
mod shed;
pub mod stream;
pub mod trace;
mod validation;

pub use client::Channel;
pub use deadline::{Deadline, Deadlines};
pub use limits::Limits;
pub use listener::Listener;
pub use problem::{Problem, reason};
pub use server::{Server, Serving};
