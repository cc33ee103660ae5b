//! A real server over loopback: what it refuses, how it ends, and what its clients see.

mod balancing;
mod calling;
mod deadlines;
mod draining;
mod failing;
mod framing;
mod health;
mod house;
mod play;
mod probe;
mod protos;
mod rude;
mod securing;
mod shedding;
mod starting;
mod surviving;
mod watching;
mod wire;
