//! What nodes tell each other of the members: those that are there, to observers, and those that are gone, to members.

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

/// What a node remembers of those that are not there any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GoneMembers {
    /// Members that are gone.
    pub(crate) gone: Vec<GoneMember>,
    /// Those that were removed.
    pub(crate) removed: Vec<RemovedMember>,
}

/// What a node remembers of a member that is gone. Gossip tells only of the living and of those that died a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GoneMember {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    /// Whether it said goodbye; else it died.
    pub(crate) left: bool,
    /// For how many seconds it has been gone.
    pub(crate) age_s: u64,
}

/// A member that is gone and is not to be listed any more: up to this start of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovedMember {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    /// How many seconds ago it was removed.
    pub(crate) age_s: u64,
}
