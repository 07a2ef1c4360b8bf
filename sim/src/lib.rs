//! Clusters of production nodes on a simulated network, disk and clock: one seed, one run, repeatable.
//!
//! ```text
//!   script/    what happens in a run, as data: drawn from a seed, read from a file, made smaller
//!   run/       does it: machines and their power, faults, requests, healing, verdict
//!   data/      what the nodes keep, and the oracle that knows what is true
//!   checks/    one property of the design a file, by its number
//!   machine/   below a node: clock, process, disk, network; randomness of the operating system
//!   trace.rs   everything that happened, as a hash and as a list        timeline.rs   the same as a page to look at
//!   own.rs     runs with a provider of your own
//! ```
//!
//! The nodes run as they are; only `World` is replaced, and below it the C library's randomness and clocks.

#[cfg(not(any(tokio_unstable, doc)))]
compile_error!(
    "datad-sim needs tokio's seeded scheduler. Build with RUSTFLAGS=\"--cfg tokio_unstable\", or put this into the file \
     .cargo/config.toml of your workspace:\n\n    [build]\n    rustflags = [\"--cfg\", \"tokio_unstable\"]\n\n\
     An own [target] section or RUSTFLAGS variable replaces these flags: add it there, too."
);

pub mod checks;
pub mod data;
pub mod machine;
pub mod own;
pub mod run;
pub mod script;
pub mod timeline;
pub mod trace;

pub use own::Simulation;
pub use run::{Options, Outcome, run};
pub use script::Script;
