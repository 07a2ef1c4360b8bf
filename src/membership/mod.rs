//! Who is in the cluster, and who of them is alive.
//!
//! ```text
//!   chitchat (scuttlebutt + phi accrual) --observations--> roster (pure) --View--> everyone, lock-free
//!        ^                                                    ^
//!    gossip.rs: its messages on our QUIC streams          actor.rs: ticks, announces, follows seeds
//! ```
//!
//! Gossip carries members and the marks of their ledgers, never the registry itself: chitchat copies a node's whole
//! state at every change, which is cheap for ten short values and would not be for a million claims.

pub(crate) mod actor;
mod brake;
mod clocks;
mod gossip;
mod identities;
mod roster;
mod seeds;
mod view;

pub(crate) use self::{
    actor::gone_members,
    brake::Brake,
    gossip::{Gossip, gossip_channel},
    roster::{Announced, Facts, LedgerMark, Role},
    seeds::{is_joined, lacking},
};
#[cfg(feature = "etcd")]
pub(crate) use self::{
    actor::publish,
    roster::{Observation, Roster},
};
pub use self::{
    clocks::ClockDifference,
    seeds::SeedStatus,
    view::{Member, MemberState, View},
};
