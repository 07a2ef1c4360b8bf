//! Who is in the cluster, and who of them is alive (pure).
//!
//! ```text
//!   what is seen of each start of a node (observation, facts) --> roster --> view: members and ring
//!                                                                  ^
//!                        gone, removals: those that are not there any more, and are not to be listed
//! ```
//!
//! `brake` says when so many members were lost at once that nothing should be copied, `seeds` what a node waits for before
//! it has joined, `clocks` whose clock is far off, and `serves` who serves the same kind of data.

mod brake;
pub(crate) mod clocks;
pub(crate) mod facts;
mod gone;
mod observation;
mod removals;
mod roster;
mod seeds;
mod serves;
mod view;

pub(crate) use self::{
    brake::Brake,
    clocks::{Clocks, TOLD_EVERY},
    facts::{Announced, Facts, LedgerMark, Role},
    gone::{GONE_MAX, GoneMember, GoneMembers, RemovedMember},
    observation::{Departed, Observation},
    removals::REMOVALS_MAX,
    roster::{GONE_GRACE, Roster},
    seeds::{Joining, Unanswered},
    serves::Serves,
};
pub use self::{
    clocks::ClockDifference,
    removals::RemoveError,
    seeds::SeedStatus,
    view::{Member, MemberState, View},
};
