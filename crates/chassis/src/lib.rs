//! The process: tasks that are tracked, a drain that ends, logs, who is let in, and the settings every process has.
//!
//! This crate knows no word of the domain.

pub mod args;
mod guard;
mod host;
mod log;
pub mod printable;
mod signals;

pub use guard::{Exposed, Guard};
pub use host::{DrainConfig, Host};
pub use log::{LogConfig, LogFormat};
pub use printable::{Chain, Printable};
pub use signals::Signals;
