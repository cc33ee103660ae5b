//! Payment by what it offers: gRPC and events, never its store. The provider by its promises.

mod bad_inputs;
mod cancelling;
mod desk;
mod lists;
mod paying;
mod provider;
mod voiding;
