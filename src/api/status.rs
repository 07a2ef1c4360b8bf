//! The cluster in numbers, as one node sees it.

use serde::{Deserialize, Serialize};

use super::documents;
use crate::{
    core::membership::{ClockDifference, SeedStatus},
    key::{Key, NodeName},
    provider::Capacity,
};

/// `/-/status`. See [`crate::Status`] for what each field means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "they are those of `crate::client::Status`")]
pub struct Status {
    pub node: NodeName,
    pub members: usize,
    #[serde(default)]
    pub observers: usize,
    pub keys: usize,
    pub under_replicated: usize,
    #[serde(default)]
    pub lacking: Vec<Shortage>,
    #[serde(default)]
    pub hot: usize,
    pub fetching: usize,
    #[serde(default)]
    pub repairs_waiting: usize,
    #[serde(default)]
    pub repairs_running: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repairs_paused: Option<String>,
    pub converged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scanning: Option<usize>,
    #[serde(default)]
    pub seeds: Vec<Seed>,
    #[serde(default)]
    pub clocks_apart: Vec<Clock>,
    #[serde(default)]
    pub waiting_for: Vec<String>,
    #[serde(default)]
    pub connections: usize,
    #[serde(default)]
    pub gossip_messages: u64,
    #[serde(default)]
    pub gossip_bytes: u64,
    #[serde(default)]
    pub gossip_largest: u64,
    #[serde(default)]
    pub gossip_identities: usize,
    #[serde(default)]
    pub full: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl From<crate::client::Status> for Status {
    fn from(status: crate::client::Status) -> Self {
        Self {
            node: status.node,
            members: status.members,
            observers: status.observers,
            keys: status.keys,
            under_replicated: status.under_replicated,
            lacking: documents(status.lacking),
            hot: status.hot,
            fetching: status.fetching,
            repairs_waiting: status.repairs_waiting,
            repairs_running: status.repairs_running,
            repairs_paused: status.repairs_paused,
            converged: status.converged,
            scanning: status.scanning,
            seeds: documents(status.seeds),
            clocks_apart: documents(status.clocks_apart),
            waiting_for: status.waiting_for,
            connections: status.connections,
            gossip_messages: status.gossip_messages,
            gossip_bytes: status.gossip_bytes,
            gossip_largest: status.gossip_largest,
            gossip_identities: status.gossip_identities,
            full: status.full,
            disk: status.disk.map(Disk::from),
            trouble: status.trouble,
        }
    }
}

/// A key that has fewer replicas than it should: an entry of `/-/keys?under_replicated=true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Shortage {
    /// The key.
    pub key: Key,
    /// How many nodes should keep it.
    pub replicas: usize,
    /// How many live nodes have it.
    pub ready: usize,
    /// For how many seconds the node has known that it lacks some.
    pub seconds: u64,
    /// Why, as far as is known.
    pub reason: Option<String>,
}

impl From<crate::client::Shortage> for Shortage {
    fn from(shortage: crate::client::Shortage) -> Self {
        let crate::client::Shortage { key, replicas, ready, seconds, reason } = shortage;
        Self { key, replicas, ready, seconds, reason }
    }
}

/// A configured seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Seed {
    /// As it is configured.
    pub address: String,
    /// Whether it answers.
    pub answers: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<SeedStatus> for Seed {
    fn from(seed: SeedStatus) -> Self {
        let SeedStatus { address, answers, reason } = seed;
        Self { address, answers, reason }
    }
}

/// A member whose wall clock is far from the node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Clock {
    /// The member.
    pub node: NodeName,
    /// By how many seconds it is ahead; negative if it is behind.
    pub ahead_seconds: i64,
}

impl From<ClockDifference> for Clock {
    fn from(clock: ClockDifference) -> Self {
        let ClockDifference { node, ahead_seconds } = clock;
        Self { node, ahead_seconds }
    }
}

/// Room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Disk {
    /// Bytes that are taken.
    pub used: u64,
    /// Bytes that can be taken, the used ones among them.
    pub total: u64,
}

impl From<Capacity> for Disk {
    fn from(capacity: Capacity) -> Self {
        let Capacity { used, total } = capacity;
        Self { used, total }
    }
}
