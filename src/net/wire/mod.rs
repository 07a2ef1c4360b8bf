//! What travels between nodes, apart from the domain types it is made of.
//!
//! Compatibility: the ALPN name carries the major version; within it, variants and messages are only ever appended, and
//! the golden bytes in the tests pin what exists. A node that gets a variant it does not know answers
//! [`Rejection::Malformed`], so version N talks to N-1 by not using what N-1 lacks (told by [`Hello::revision`]).
//!
//! ```text
//! bi   StreamHeader::Hello   -> HelloReply                    first stream of a connection, once
//! bi   StreamHeader::Call    -> Reply
//! bi   StreamHeader::Feed    -> Delta, Delta, ...             until either side goes
//! bi   StreamHeader::Exchange body... -> ResponseHead body...
//! bi   StreamHeader::Watch   -> MemberNews, MemberNews, ...   until either side goes
//! uni  gossip message, raw
//! ```

pub(crate) mod calls;
mod exchange;
#[cfg(test)]
mod golden;
mod hello;
mod members;
mod refusal;
pub(crate) mod reports;
mod revision;

use serde::{Deserialize, Serialize};

pub(crate) use self::{
    calls::{Call, NodeRequest, Reply},
    exchange::{Purpose, RequestHead, ResponseHead},
    hello::{Hello, HelloRefusal, HelloReply},
    members::{MemberNews, MemberSeen},
    refusal::Rejection,
    revision::{ALPN, GOSSIP_BYTES_MAX, REVISION, REVISION_OUTDATED, REVISION_RELAY},
};
/// A record of an intent is its own wire form: it is plain data, made to travel.
pub(crate) use crate::core::catalog::Record;
/// Likewise a ledger's own positions and deltas.
pub(crate) use crate::core::registry::{Delta, Position};
/// Likewise how it ended that a node was asked to have a key.
pub(crate) use crate::core::updater::Ensured;

/// The first frame of every bidirectional stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum StreamHeader {
    Hello(Hello),
    Call(Call),
    Feed(Position),
    Exchange(RequestHead),
    /// Tell the caller, an observer, who the members are, now and whenever that changes.
    Watch,
}
