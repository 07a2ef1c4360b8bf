//! What this node should hold, and what it should let go. Every node plans for itself, by the same rules, from its own
//! snapshot; no leader is needed, because an owner fetches only for itself and a surplus holder drops only its own.
//!
//! `plan.rs` decides about one key, `queue.rs` in which order and how many at once; `actor.rs` decides which keys to
//! look at, and asks the owners to vouch before anything is dropped.

pub(crate) mod actor;
mod plan;
mod queue;
