//! What a simulated node stands on: a runtime of its own, a clock, a disk, a socket.

pub mod disk;
pub mod entropy;
pub mod fabric;
pub mod panics;
pub mod process;
pub mod socket;
pub mod world;
