//! The membership of a node that gossips (`actor`), and of one that follows gossiping members
//! (`observer`).
//!
//! ```text
//!   chitchat (scuttlebutt + phi accrual) --observations--> roster (pure) --View--> everyone, lock-free
//!        ^                                                    ^
//!    gossip.rs: its messages on our QUIC streams          outlook.rs: what both make of what they see
//!                                                             |
//!                              watch.rs: what it sees, as a stream --> observer.rs: the roster of a node that only consumes
//! ```
//!
//! Observers do not gossip, so the size of gossip follows the number of members, not the number of
//! observers. Each observer follows two members over a stream, and only these two know it.
//!
//! Gossip carries members and the marks of their ledgers, never the registry itself: chitchat copies a node's whole
//! state at every change, which is cheap for ten short values and would not be for a million claims.

pub(crate) mod actor;
mod departed;
mod gossip;
#[cfg(test)]
mod harness;
mod identities;
mod message;
pub(crate) mod observer;
mod outlook;
mod reaper;
mod seeking;

pub(crate) use self::gossip::gossip_channel;
