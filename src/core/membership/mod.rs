//! The members of the cluster, and which of them are alive (pure).
//!
//! ```text
//!   what is seen of each start of a node (observation, facts) --> roster --> view: members and ring
//!                                                                  ^
//!                        gone, removals: those that are not there any more, and are not to be listed
//! ```
//!
//! `mass_failure` says when a node lost so large a share of the members at once that it should copy
//! nothing, `seeds` what a node waits for before it has joined, `clocks` which members' clocks are
//! far off, and `serves` which members serve the same kind of data.

pub(crate) mod clocks;
mod gone;
mod mass_failure;
pub(crate) mod node_info;
mod observation;
mod removals;
mod roster;
mod seeds;
mod serves;
mod view;

pub use self::{
    clocks::ClockDifference,
    removals::RemoveError,
    seeds::SeedStatus,
    view::{Member, MemberState, View},
};
pub(crate) use self::{
    clocks::{Clocks, TOLD_EVERY},
    gone::{GONE_MAX, GoneMember, GoneMembers, RemovedMember},
    mass_failure::MassFailure,
    node_info::{AdvertisedState, LedgerDigest, NodeInfo, Role},
    observation::{Departed, Observation},
    removals::REMOVALS_MAX,
    roster::{GONE_GRACE, Roster},
    seeds::{Joining, Unanswered},
    serves::Serves,
};
