//! What members tell observers, who do not gossip, of the members.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::key::NodeName;

/// A part of what a member tells an observer of the members: first all that it sees, then what has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberNews {
    /// New, or different from what was told before.
    pub(crate) seen: Vec<MemberSeen>,
    /// Names and incarnations that are not seen any more.
    pub(crate) unseen: Vec<(NodeName, u64)>,
    /// Whether further parts follow that belong to the same moment.
    pub(crate) more: bool,
}

/// What a member sees of one start of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberSeen {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) address: SocketAddr,
    pub(crate) alive: bool,
    /// What the node says of itself, as gossip carries it: names and values.
    pub(crate) facts: Vec<(String, String)>,
}
