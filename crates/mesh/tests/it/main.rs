//! A real server over loopback: what it refuses, how it ends, and what its clients see.

mod calling;
mod deadlines;
mod draining;
mod failing;
mod framing;
mod health;
mod house;
mod probe;
mod protos;
mod rude;
mod starting;
mod watching;
mod wire;
