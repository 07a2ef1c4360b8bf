//! What a program is told of the cluster, and why it is not.

use serde::Serialize;

use crate::{
    core::{
        membership::{ClockDifference, Member, SeedStatus},
        registry::HoldingState,
    },
    key::{Key, NodeName},
    provider::Capacity,
};

/// Where a key is and where it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Location {
    /// The key.
    pub key: Key,
    /// Members that should keep it, best first.
    pub owners: Vec<NodeName>,
    /// Live members that have to do with it, by name.
    pub holders: Vec<Holding>,
    /// Whether somebody asked for it to be kept always.
    pub pinned: bool,
}

/// How a node stands to a key.
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
    /// Who says so.
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
    /// Keys that are asked for so often that more nodes than usual should keep them.
    pub hot: usize,
    /// Fetches under way.
    pub fetching: usize,
    /// Replicas that this node has still to restore or to move here.
    pub repairs_waiting: usize,
    /// Those that it is working on.
    pub repairs_running: usize,
    /// Why what was lost is not restored for now, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repairs_paused: Option<String>,
    /// Whether this node has joined, knows all that the others have published, has read its own disk, and has nothing to do
    /// that it could: a lone node can be that while keys lack replicas.
    pub converged: bool,
    /// While the node still reads what is on its disk: how many keys it has found so far. It serves meanwhile, also what it has
    /// not come to yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanning: Option<usize>,
    /// The configured seeds, and why those that do not answer do not.
    pub seeds: Vec<SeedStatus>,
    /// Members whose wall clock is more than a minute from this node's. Not known where etcd coordinates.
    pub clocks_apart: Vec<ClockDifference>,
    /// What this node lacks that only the operator can bring, in words: members that it should have met, or that could keep
    /// what it has too few replicas of.
    pub waiting_for: Vec<String>,
    /// Connections to other members.
    pub connections: usize,
    /// Gossip messages that were sent since the start.
    pub gossip_messages: u64,
    /// Bytes of these.
    pub gossip_bytes: u64,
    /// Bytes of the largest of these; the limit is 65,507.
    pub gossip_largest: u64,
    /// Starts of nodes that gossip tells of: the live members, and those that ended within the last half minute.
    pub gossip_identities: usize,
    /// Whether this node takes no new keys, because its disk is full.
    pub full: bool,
    /// Room on its disk, as last seen, if its data source tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Capacity>,
    /// What keeps the node from taking part fully, if anything does; it serves what it knows of all the same.
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
    /// For how many seconds this node has known that it lacks some.
    pub seconds: u64,
    /// Why, as far as is known: what went wrong last, or what is waited for.
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
    /// Why a member is still listed that has been dead for longer than `dead_kept`: so many keys are with the dead alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_there: Option<u64>,
}

/// What the removal of a member took along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemovedMember {
    /// The member.
    pub node: NodeName,
    /// How many keys no live member has that it had: they are lost to the cluster, unless their origin has them or the
    /// member returns.
    pub only_there: u64,
}

/// Why a node was not asked to drain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// No live member has this name. Nothing was changed.
    #[error("{0} is not a live member")]
    NotAlive(NodeName),
    /// It gave no answer. It may be draining; ask again.
    #[error("{node} does not answer: {reason}")]
    Unreachable {
        /// The member.
        node: NodeName,
        /// What went wrong.
        reason: String,
    },
}

/// Why it cannot be said what would move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForecastError {
    /// This member owns no keys, or is none; so nothing would move without it.
    #[error("{0} is no member that owns keys")]
    NoOwner(NodeName),
}
