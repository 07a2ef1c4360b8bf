//! Members that are gone, as nodes remember them and tell each other of them.
//!
//! These are their own wire form: they are plain data, made to travel.

use std::{hash::Hasher, net::SocketAddr};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::key::NodeName;

/// Members that are remembered after they died or left; beyond, those gone longest are forgotten first.
pub(crate) const GONE_MAX: usize = 1024;
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

/// A part of a digest of starts of nodes.
pub(crate) fn digest_of(kind: u64, name: &NodeName, incarnation: u64) -> u64 {
    let mut hash = SipHasher13::new_with_keys(kind, incarnation);
    hash.write(name.as_str().as_bytes());
    hash.finish()
}
