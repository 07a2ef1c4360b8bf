//! The catalog: what people want of keys, as opposed to what nodes say of them. Pins and forgets, on every node's disk.
//!
//! ```text
//!   Client --write--> actor: stamp, append to the journal, show --+--> intents: lock-free reads (how many replicas?)
//!      |                 ^                                         +--> balancer: look at these keys
//!      | push            | take in                                 +--> updater: drop copies of before a forget
//!      +--> all other members, at once; each answers when it is on its disk
//!
//!   gossip: a digest each ---> two that differ for some rounds: pull, in pages, both ways
//! ```
//!
//! `clock`, `intent` and `state` are pure, `journal` is the form on disk, `intents` is what readers see, `spread` is the
//! way of a write through the cluster.
//!
//! **The promise.** A pin, unpin or forget is acknowledged when it is on the disk of the node that was asked and every other
//! member has been asked to write it down too; the answer names who has and who has not, and why. Those catch up by
//! themselves. So what was acknowledged is there after kill -9 of all nodes at once.

mod acknowledged;
pub(crate) mod actor;
mod clock;
mod frames;
mod intent;
mod intents;
mod journal;
mod spread;
mod state;

pub use self::acknowledged::{IntentError, Lacking, Pin, Recorded};
pub(crate) use self::{
    clock::Time,
    intent::{Intent, Record, Stamp, is_pattern},
    intents::Intents,
    spread::{push_to, write},
    state::Page,
};
