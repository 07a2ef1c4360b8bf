//! What this node should hold, and what it should let go. Every node plans for itself, by the same rules, from its own
//! snapshot; no leader is needed, because an owner fetches only for itself and a surplus holder drops only its own.
//!
//! `plan.rs` decides about one key, `queue.rs` in which order and how many at once; `actor.rs` decides which keys to
//! look at, and asks the owners to vouch before anything is dropped. When the disk fills up, `room.rs` says so, `relief.rs`
//! decides what to give up (of what `uses.rs` says was not used lately), and `pressure.rs` sees to both. `eviction.rs` asks
//! the origin about copies that are the only ones. `heat.rs` decides
//! which keys are asked for so often that more nodes should keep them, and `intent.rs` says in words what is about to happen.

pub(crate) mod actor;
mod doubts;
mod eviction;
mod heat;
mod intent;
mod plan;
pub(crate) mod pressure;
mod queue;
mod relief;
mod room;
mod shortages;
mod sight;
mod uses;

pub use self::intent::{IntendedAction, Intention};
pub(crate) use self::shortages::Short;
pub(crate) use self::{
    doubts::Doubts,
    heat::Heat,
    room::{Level, Room},
    uses::Uses,
};
