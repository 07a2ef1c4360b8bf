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
mod gossip;
mod identities;
mod roster;
mod view;

pub use self::view::{Member, MemberState, View};
pub(crate) use self::{
    actor::gone_members,
    brake::Brake,
    gossip::{Gossip, gossip_channel},
    roster::{Announced, Facts, LedgerMark, Role},
};
#[cfg(feature = "etcd")]
pub(crate) use self::{
    actor::publish,
    roster::{Observation, Roster},
};
