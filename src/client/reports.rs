//! What a client tells a program of the cluster, and why a call fails.

use serde::Serialize;

use crate::{
    core::{
        membership::{ClockDifference, Member, SeedStatus},
        registry::HoldingState,
    },
    key::{Key, NodeName},
    provider::Capacity,
};

/// The nodes that hold a key and the nodes that should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Location {
    /// The key.
    pub key: Key,
    /// Members that should keep it, best first.
    pub owners: Vec<NodeName>,
    /// Live members that hold the key or deal with it otherwise, by name.
    pub holders: Vec<Holding>,
    /// Whether a client pinned the key.
    pub pinned: bool,
}

/// The relation of a node to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Holding {
    /// The node.
    pub node: NodeName,
    /// Its state.
    pub state: HoldingState,
}

/// The cluster in numbers, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The node that reports.
    pub node: NodeName,
    /// Members that are alive.
    pub members: usize,
    /// Observers that follow this node's view; each follows two members. None where etcd coordinates: there they are members.
    pub observers: usize,
    /// Known keys.
    pub keys: usize,
    /// Known keys with fewer live replicas than pins and settings ask for, also where there are too few members for more.
    pub under_replicated: usize,
    /// The first of them, and why.
    pub lacking: Vec<Shortage>,
    /// Keys with so many requests that more nodes than usual should keep them.
    pub hot: usize,
    /// Fetches under way.
    pub fetching: usize,
    /// Replicas that this node has yet to restore or to move here.
    pub repairs_waiting: usize,
    /// Of those, the replicas that this node is working on.
    pub repairs_running: usize,
    /// Why nodes hold repairs back for now, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repairs_paused: Option<String>,
    /// Whether this node has joined, knows all that the others have published, has read its own
    /// disk, and has no work left that it could do. A lone node can be in this state while keys
    /// lack replicas.
    pub converged: bool,
    /// While the node still reads its disk: how many keys it has found so far. Meanwhile the node
    /// serves all keys, also those that it has not found yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanning: Option<usize>,
    /// The configured seeds, and for each that does not answer, why.
    pub seeds: Vec<SeedStatus>,
    /// Members whose wall clock is more than a minute from this node's. Not known where etcd coordinates.
    pub clocks_apart: Vec<ClockDifference>,
    /// What this node lacks that only the operator can bring, in words: members that it should have
    /// met, or members that could keep its keys with too few replicas.
    pub waiting_for: Vec<String>,
    /// Connections to other members.
    pub connections: usize,
    /// Gossip messages that were sent since the start.
    pub gossip_messages: u64,
    /// Bytes of all these gossip messages.
    pub gossip_bytes: u64,
    /// Bytes of the largest of these messages; the limit is 65,507.
    pub gossip_largest: u64,
    /// Starts of nodes that gossip tells of: those of the live members, and those that ended within
    /// the last half minute.
    pub gossip_identities: usize,
    /// Whether this node takes no new keys, because its disk is full.
    pub full: bool,
    /// Space on its disk, as last seen, if its provider tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Capacity>,
    /// What keeps the node from taking part fully, if anything does. The node still serves the keys
    /// that it knows of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A key that has fewer replicas than it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shortage {
    /// The key.
    pub key: Key,
    /// How many nodes should keep it.
    pub replicas: usize,
    /// How many live nodes have it.
    pub ready: usize,
    /// Seconds since this node learned that the key lacks replicas.
    pub seconds: u64,
    /// Why, as far as this node knows: what went wrong last, or what it waits for.
    pub reason: Option<String>,
}

/// A member, and how many keys it has ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemberStatus {
    /// The member.
    #[serde(flatten)]
    pub member: Member,
    /// Its ready keys.
    pub keys: usize,
    /// Why a member is still listed that has been dead for longer than `dead_kept`: the number of
    /// keys that only dead members have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_there: Option<u64>,
}

/// What the cluster lost with a member that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemovedMember {
    /// The member.
    pub node: NodeName,
    /// Keys of the removed member that no live member has. The cluster has lost them, unless their
    /// origin has them or the member returns.
    pub only_there: u64,
}

/// Why a node did not take the request to drain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// No live member has this name. Nothing was changed.
    #[error("{0} is not a live member")]
    NotAlive(NodeName),
    /// The member gave no answer. It may be draining; ask again.
    #[error("{node} does not answer: {reason}")]
    Unreachable {
        /// The member.
        node: NodeName,
        /// What went wrong.
        reason: String,
    },
}

/// Why a node cannot forecast what would move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForecastError {
    /// The node owns no keys, or is not a member, so nothing would move without it.
    #[error("{0} is no member that owns keys")]
    NoOwner(NodeName),
}
