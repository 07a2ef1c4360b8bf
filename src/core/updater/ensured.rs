//! How it ended that a node was asked to have a key. Plain data that is its own wire form.

use serde::{Deserialize, Serialize};

use crate::key::NodeName;

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ensured {
    /// These nodes have it.
    Ready(Vec<NodeName>),
    /// The origin says there is no such key.
    NotFound,
    /// The operator does not let this key be fetched.
    Forbidden(String),
    /// The fetch failed on `node`.
    Failed { node: NodeName, reason: String, retry_after_ms: u32 },
    /// Not done within the caller's patience; it goes on.
    Pending,
    /// Nothing is wrong with the key, but `node` or the origin has too much to do: ask again after that time.
    Later { node: NodeName, reason: String, retry_after_ms: u32 },
}
