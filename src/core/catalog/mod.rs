//! The catalog: what clients ask for keys, as opposed to what nodes say of them (pure). Pins and
//! forgets, for every node's disk.
//!
//! `intent` is one of them, `hlc` the time that it is stamped with, `state` all of them, `policy` what readers see, `frames`
//! the form on disk, and `acknowledged` what programs are told.
//!
//! **The promise.** A node acknowledges a pin, unpin or forget when it is on its own disk and it
//! has asked every other member to write it down too. The answer names the members that have
//! written it, those that have not, and why. The latter catch up by themselves. So an acknowledged
//! intent survives kill -9 of all nodes at once.

mod acknowledged;
pub(crate) mod frames;
mod hlc;
mod intent;
mod policy;
pub(crate) mod state;

pub use self::acknowledged::{IntentAck, IntentError, PendingMember, Pin};
pub(crate) use self::{
    frames::Entry,
    hlc::{HlcTimestamp, HybridClock},
    intent::{Intent, Record, Stamp, is_pattern},
    policy::PolicyIndex,
    state::{Catalog, Page},
};
