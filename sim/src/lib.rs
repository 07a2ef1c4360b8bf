//! Clusters of production nodes on a simulated network, disk and clock: one seed, one run, repeatable.
//!
//! ```text
//!   run.rs       one seed: derive everything, workload and faults, heal, verdict
//!     cluster.rs   the machines: start, crash, restart
//!     origin.rs    what the nodes fetch from, and the oracle that counts fetches in flight
//!     faults.rs    what goes wrong, for how long
//!     request.rs   one request and what its answer is worth
//!     checks/      one property of the design a file, by its number
//!   world.rs     the machine below a node        fabric.rs    the network between them
//!   entropy.rs   randomness and clocks of the operating system, per thread
//!   trace.rs     everything that happened, as a hash and as a list
//! ```
//!
//! The nodes run as they are; only `World` is replaced, and below it the C library's randomness and clocks.

pub mod checks;
pub mod cluster;
pub mod entropy;
pub mod fabric;
pub mod faults;
pub mod origin;
pub mod request;
pub mod run;
pub mod trace;
pub mod world;

pub use run::{Options, Outcome, Plant, run};
