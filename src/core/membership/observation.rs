//! What is seen of a member: by gossip, or as another member remembers it.

use std::{net::SocketAddr, time::Duration};

use super::node_info::NodeInfo;
use crate::key::NodeName;

/// What gossip shows of one start of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) address: SocketAddr,
    pub(crate) alive: bool,
    pub(crate) facts: NodeInfo,
}

impl Observation {
    /// Of two observations of one name, the one of the higher rank counts.
    pub(crate) fn rank(&self) -> (bool, u64) {
        (self.alive, self.incarnation)
    }
}

/// A member that is gone, as another one remembers it, and for how long it has been.
#[derive(Debug, Clone)]
pub(crate) struct Departed {
    pub(crate) seen: Observation,
    pub(crate) age: Duration,
}
