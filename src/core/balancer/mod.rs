//! What a node should hold, and what it should let go (pure). Every node plans for itself, by the same rules, from its own
//! snapshot; no leader is needed, because an owner fetches only for itself and a surplus holder drops only its own.
//!
//! `plan` decides about one key, `queue` in which order and how many at once, `readiness` when plans are made and acted on,
//! `shortages` remembers which keys have too few replicas. When the disk fills up, `room` says so and `relief` decides what to
//! give up, of what `uses` says was not used lately; `doubts` are only copies that no origin vouches for. `heat` decides which
//! keys are asked for so often that more nodes should keep them, and `intent` says in words what is about to happen.

mod doubts;
mod heat;
pub(crate) mod intent;
mod plan;
mod queue;
pub(crate) mod readiness;
mod relief;
mod room;
mod shortages;
mod uses;

pub use self::intent::{IntendedAction, Intention};
pub(crate) use self::{
    doubts::Doubts,
    heat::Heat,
    intent::Obstacles,
    plan::{Action, Situation},
    queue::{Queue, Urgency},
    relief::{Candidate, Choice, Grounds},
    room::{Level, Pace, Room},
    shortages::{Short, Shortages},
    uses::Uses,
};
