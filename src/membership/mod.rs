//! Who is in the cluster, and who of them is alive.
//!
//! ```text
//!   chitchat (scuttlebutt + phi accrual) --observations--> roster (pure) --View--> everyone, lock-free
//!        ^                                                    ^
//!    gossip.rs: its messages on our QUIC streams          actor.rs: ticks, announces, follows seeds
//!                                                             |
//!                              watch.rs: what it sees, as a stream --> observer.rs: the roster of a node that only consumes
//! ```
//!
//! Observers do not gossip, so the size of gossip follows the number of members, not of those that use them. Each follows two
//! members over a stream, and is known to them alone.
//!
//! Gossip carries members and the marks of their ledgers, never the registry itself: chitchat copies a node's whole
//! state at every change, which is cheap for ten short values and would not be for a million claims.

pub(crate) mod actor;
mod brake;
mod clocks;
mod departed;
mod facts;
mod followed;
mod gone;
mod gossip;
#[cfg(test)]
mod harness;
mod identities;
mod message;
mod observation;
pub(crate) mod observer;
mod outlook;
mod publish;
mod reaper;
mod removals;
mod roster;
mod seeds;
mod seeking;
mod serves;
mod view;
mod watch;

pub(crate) use self::{
    brake::Brake,
    facts::{Announced, Facts, LedgerMark, Role},
    gone::{GoneMember, GoneMembers, RemovedMember},
    gossip::{Gossip, gossip_channel},
    observation::Observation,
    outlook::SharedMark,
    seeds::Joining,
    serves::Serves,
    watch::watch,
};
pub use self::{
    clocks::ClockDifference,
    removals::RemoveError,
    seeds::SeedStatus,
    view::{Member, MemberState, View},
};
#[cfg(feature = "etcd")]
pub(crate) use self::{publish::publish, roster::Roster};
