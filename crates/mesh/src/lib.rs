//! RPC: a server that refuses what is malformed, bounds what is slow and ends when it is told to; a client's channel; errors
//! with details.
//!
//! This crate knows no word of the domain, and can be used alone: with any service that tonic generates, whose descriptors are
//! kept (`FileDescriptorSet`), and a [`chassis::Host`] for its tasks. `examples/greeter.rs` is a server and a client, whole.
//!
//! ```text
//! Listener ─► limits ─► connection ─► protocol ─► calls ─► identity ─► panics ─► shed ─► deadline ─► validation ─► the service
//!                                         ├─────► deadline ─► health
//!                                         └─────► conversation ─► reflection
//!
//! Channel ─► total deadline ─► retry ─► breaker ─► attempt's timeout and headers ─► balance ─► an endpoint
//! ```
//!
//! # Calling a service
//!
//! A [`Channel`] is what generated clients are made with. It keeps deadlines, tries again what may be tried again, and leaves
//! a service alone that fails; [`Policies`] say how much of each, in a file that is read again when it changes. A method says
//! in its proto whether it may be called twice: `option idempotency_level = IDEMPOTENT`, or `NO_SIDE_EFFECTS`.
//!
//! | what came back | is tried again |
//! |---|---|
//! | nothing: there was no connection to be had | yes |
//! | an error that the transport or a proxy made, or nothing in an attempt's time | if the method may be called twice |
//! | an error with `grpc-retry-pushback-ms` or `RetryInfo` | after that time; a negative pushback says no |
//! | any other error with `ErrorInfo`, and all refusals | no |
//! | the open breaker | no: it is answered at once, and nothing was sent |
//!
//! ```no_run
//! use chassis::Host;
//! use mesh::{Channel, Policies, Upstream, client::not_sent};
//! use tonic_health::pb::{FILE_DESCRIPTOR_SET, HealthCheckRequest, health_client::HealthClient};
//!
//! # async fn call() -> anyhow::Result<()> {
//! let host = Host::new();
//! let policies = Policies::open(&host, Some("policies.toml".as_ref()), "--policies")?;
//! let channel = Channel::open(&host, Upstream {
//!     name: "health",                           // `[health]` in the policies, and in what is logged
//!     urls: "http://127.0.0.1:8080".to_owned(), // of several, with commas between them
//!     flag: "--health-url",
//!     service: "grpc.health.v1.Health",
//!     descriptors: FILE_DESCRIPTOR_SET,
//!     policies,
//!     tls: None,                                // `http`; with it, `https`
//! })?;
//! // what leads to a call that will be refused is better not begun
//! if !channel.refuses() {
//!     match HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await {
//!         Ok(answer) => println!("{:?}", answer.into_inner().status()),
//!         Err(status) if not_sent(&status) => println!("nothing happened: {status}"),
//!         Err(status) => println!("who knows what happened: {status}"),
//!     }
//! }
//! println!("{:#?}", channel.snapshot());
//! # Ok(())
//! # }
//! ```

mod around;
mod calls;
pub mod client;
mod connection;
mod deadline;
mod health;
mod identity;
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
pub mod tls;
pub mod trace;
mod validation;

pub use client::{Channel, Policies, Upstream};
pub use deadline::{Deadline, Deadlines};
pub use identity::Peer;
pub use limits::Limits;
pub use listener::Listener;
pub use problem::{Problem, reason};
pub use server::{Server, Serving};
