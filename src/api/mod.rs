//! The JSON documents that a node's gateway answers with under `/-/`, as the gateway writes them and the command line reads them.
//!
//! They are types of their own: the names here are a promise to programs that read them, and the public types of the library
//! may change without them. What must hold, for nodes and command lines of different versions:
//! - A field keeps its name and meaning. A new one has a default, because an older node does not send it.
//! - States and the like are text, because a newer node may send one that this version does not know.
//! - A field without a value is left out where it was so from the start, and is `null` everywhere else.
//!
//! | file | documents of |
//! | --- | --- |
//! | `status` | `/-/status`, and `/-/keys?under_replicated=true` |
//! | `members` | `/-/members` and what is done to one |
//! | `keys` | `/-/locate`, `/-/pins`, `/-/update`, `/-/webhook` |
//! | `plan` | `/-/plan` |
//! | `problem` | everything that goes wrong (RFC 9457) |

mod keys;
mod members;
mod plan;
mod problem;
mod status;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

#[cfg(any(feature = "metrics", test))]
pub(crate) use self::members::state_name;
pub use self::{
    keys::{
        Data, Explanation, Holding, IntentAck, Location, NodeReport, Pin, PlannedAction, RingStep, Started, Unanswered,
        Unconfirmed, UpdatedKey, UpdatedReplica,
    },
    members::{Drained, Member, RemovedMember},
    plan::{Plan, PlannedNode},
    problem::{Attempt, Problem},
    status::{Clock, Disk, Seed, Shortage, Status},
};

/// Words of which most are known beforehand.
pub type Text = Cow<'static, str>;

/// Each item as a document.
pub(crate) fn documents<T, D: From<T>>(items: Vec<T>) -> Vec<D> {
    items.into_iter().map(D::from).collect()
}
