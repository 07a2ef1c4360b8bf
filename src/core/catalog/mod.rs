//! The catalog: what people want of keys, as opposed to what nodes say of them (pure). Pins and forgets, for every node's disk.
//!
//! `intent` is one of them, `hlc` the time that it is stamped with, `state` all of them, `policy` what readers see, `frames`
//! the form on disk, and `acknowledged` what programs are told.
//!
//! **The promise.** A pin, unpin or forget is acknowledged when it is on the disk of the node that was asked and every other
//! member has been asked to write it down too; the answer names who has and who has not, and why. Those catch up by
//! themselves. So what was acknowledged is there after kill -9 of all nodes at once.

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
