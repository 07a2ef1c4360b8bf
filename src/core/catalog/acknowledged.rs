//! What programs are told of intents: which there are, and how the writing of one ended.

use serde::Serialize;

use crate::{
    config::REPLICAS_MAX,
    key::{Key, NodeName},
};

/// A key or pattern that is always kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pin {
    /// The key; a pattern if it has a `*` (any run of characters, slashes included) or a `?` (any single one).
    pub key: Key,
    /// On how many nodes.
    pub replicas: usize,
}

/// An intent that is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct IntentAck {
    /// The key or pattern.
    pub key: Key,
    /// Members on whose disk it is, by name.
    pub confirmed: Vec<NodeName>,
    /// Members that do not have it yet. They will, once they can be reached.
    #[serde(rename = "lacking")]
    pub pending: Vec<PendingMember>,
}

/// A member that does not have an intent yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PendingMember {
    /// The member.
    pub node: NodeName,
    /// Why.
    pub reason: String,
}

/// Why an intent was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntentError {
    /// No such number of replicas. Nothing was changed.
    #[error("a key can be kept on 1 to {REPLICAS_MAX} nodes, not on {0}")]
    Replicas(usize),
    /// The key may not be fetched, so it cannot be kept. Nothing was changed.
    #[error("{key} cannot be kept: {reason}")]
    Refused {
        /// The key.
        key: Key,
        /// The rule.
        reason: String,
    },
    /// Only keys can be forgotten, no patterns. Nothing was changed.
    #[error("{0} is a pattern; only a key can be forgotten")]
    Pattern(Key),
    /// The catalog is full. Nothing was changed; what is unpinned is dropped from it after a week.
    #[error("the catalog has no room for more than {limit}")]
    Full {
        /// How many it holds.
        limit: usize,
    },
    /// This node's disk failed. The intent may or may not hold; say it again.
    #[error("it could not be written to disk: {0}")]
    Disk(String),
    /// An observer has no disk of its own, and no member could be reached that has. The intent may or may not hold; say
    /// it again.
    #[error("no member could write it down")]
    NobodyReached,
    /// The node is stopping or recovering. The intent may or may not hold; say it again.
    #[error("this node is stopping or recovering")]
    Stopping,
}
