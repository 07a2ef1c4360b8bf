//! What a node should hold, and what it should let go (pure). Every node plans for itself, by the same rules, from its own
//! snapshot; no leader is needed, because an owner fetches only for itself and a surplus holder drops only its own.
//!
//! `plan` decides about one key, `queue` in which order and how many at once, `readiness` when plans are made and acted on,
//! `shortages` remembers which keys have too few replicas. When the disk fills up, `watermarks` says so and `eviction` decides what to
//! give up, of what `last_access` says was not used lately; `doubts` are only copies that no origin vouches for. `hot_keys` decides which
//! keys are asked for so often that more nodes should keep them, and `planned_action` says in words what is about to happen.

mod doubts;
mod eviction;
mod hot_keys;
mod last_access;
mod plan;
pub(crate) mod planned_action;
mod queue;
pub(crate) mod readiness;
mod shortages;
mod watermarks;

pub use self::planned_action::{IntendedAction, PlannedAction};
pub(crate) use self::{
    doubts::Doubts,
    eviction::{Candidate, Choice, EvictionReason},
    hot_keys::HotKeys,
    last_access::LastAccess,
    plan::{Action, PlanInput},
    planned_action::Blockers,
    queue::{Queue, Urgency},
    shortages::{Short, Shortages},
    watermarks::{DiskPressure, DiskWatermarks, EvictionBackoff},
};
