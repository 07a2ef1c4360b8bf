//! What members remember, and tell each other, of the members that are gone. Plain data that is its own wire form.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::key::NodeName;

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
