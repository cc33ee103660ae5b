//! Order by what it offers: gRPC and events, never its store. Payment is its generated trait, in memory.

mod bad_inputs;
mod bank;
mod breaking;
mod cancelling;
mod counter;
mod lists;
mod menu;
mod original;
mod placing;
mod settling;
mod watching;
