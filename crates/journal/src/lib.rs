//! Facts: how a service changes its state, and how others hear of it.
//!
//! A service's nouns are decided by one [`Writer`], which stores a change and its facts in one transaction. The [`Outbox`]
//! keeps the facts, for 30 days by default, and its relay publishes them on the [`Bus`]; [`Routes`] turn the facts of others into commands.
//! No request ever owns a transaction, so a caller who goes away can neither leave one open nor undo what was decided.
//!
//! This crate knows no word of the domain: it must serve a shop of anything.

pub mod audience;
mod backoff;
pub mod bus;
pub mod consumer;
pub mod database;
#[allow(
    unreachable_pub,
    reason = "what SeaORM derives from a row is pub, and so is what a row is made of"
)]
mod dead_letters;
mod desk;
mod embedded;
#[allow(
    unreachable_pub,
    reason = "what SeaORM derives from a row is pub, and so is what a row is made of"
)]
mod failures;
mod fold;
mod heal;
mod jetstream;
pub mod letters;
#[allow(
    unreachable_pub,
    reason = "what SeaORM derives from a row is pub, and so is what a row is made of"
)]
mod marks;
mod migrations;
mod noun;
pub mod outbox;
pub mod purge;
pub mod reader;
pub mod record;
mod relay;
mod routes;
mod rows;
mod time;
pub mod watch;
pub mod writer;

pub use audience::{Audience, Watched};
pub use bus::{Bus, Envelope};
pub use database::Database;
pub use dead_letters::Model as Letter;
pub use migrations::{bytes, create_clustered, create_index, create_partial_index, migrations};
pub use noun::{Cause, Decision, Fact, Noun, Table};
pub use outbox::Outbox;
pub use reader::Reader;
pub use record::Record;
pub use routes::{Malformed, Routes};
pub use rows::{by_index, insert_into};
pub use time::Time;
pub use watch::Watcher;
pub use writer::Writer;
