//! The words that all of the simulator shares: what happens, what is seen, what is wrong. Imports nothing else of it.

mod answer;
mod clock;
mod event;
mod left;
mod link;
mod request;
mod snapshot;
mod violation;

pub use answer::Answer;
pub use clock::Clock;
pub use event::{Event, What, first_difference};
pub use left::Left;
pub use link::Link;
pub use request::{Intended, RequestKind};
pub use snapshot::{CoreSeen, MachineSeen, NodeSeen, Running, Said, Snapshot};
pub use violation::{Class, Violation};

/// Name of a machine: `n1`, `n2`, ... with a provider, `c1`, `c2`, ... of clients that only consume.
pub type Name = String;

/// Most machines of one run: addresses and handshakes of every pair have to fit.
pub const MACHINES_MAX: usize = 256;
