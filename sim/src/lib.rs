//! Clusters of production nodes on a simulated network, disk and clock: one seed, one run, repeatable.
//!
//! ```text
//!   model/       the words that all share: what happens, what is seen, what is wrong
//!   invariants/  one property of the design a file, by its number: functions of what was seen
//!   trace.rs     everything that happened, as a hash and as a list
//!   script/      what happens in a run, as data: drawn from a seed, read from a file, made smaller
//!   machine/     below a node: process, disk, network; randomness of the operating system
//!   data/        what the nodes keep
//!   oracle/      what is true, whatever the nodes say
//!   cluster/     the machines and their power
//!   run/         does what a script says: faults, requests, healing, verdict
//!   custom.rs    runs with a provider of your own        timeline/   a run as a page to look at
//! ```
//!
//! Each line imports only from the lines above it.
//!
//! The nodes run as they are; only `World` is replaced, and below it the C library's randomness and clocks.

#[cfg(not(any(tokio_unstable, doc)))]
compile_error!(
    "datad-sim needs tokio's seeded scheduler. Build with RUSTFLAGS=\"--cfg tokio_unstable\", or put this into the file \
     .cargo/config.toml of your workspace:\n\n    [build]\n    rustflags = [\"--cfg\", \"tokio_unstable\"]\n\n\
     An own [target] section or RUSTFLAGS variable replaces these flags: add it there, too."
);

pub mod cluster;
pub mod custom;
pub mod data;
pub mod invariants;
pub mod machine;
pub mod model;
pub mod oracle;
pub mod run;
pub mod script;
pub mod timeline;
pub mod trace;

pub use custom::Simulation;
pub use run::{Options, Outcome, run};
pub use script::Script;
