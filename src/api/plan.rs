//! What a change of the members would move.

use serde::{Deserialize, Serialize};

use super::documents;
use crate::core::placement::{Forecast, NodeForecast};

/// `/-/plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// Known keys.
    pub keys: u64,
    /// Those that would be copied at least once.
    pub keys_moved: u64,
    /// Copies that would be made, of all keys together.
    pub copies: u64,
    /// Of how many keys the size is known that estimates of bytes follow from.
    #[serde(default)]
    pub sampled: u64,
    /// Bytes of all copies together, about.
    pub bytes: Option<u64>,
    /// Every member, now or then.
    pub nodes: Vec<PlannedNode>,
}

impl From<Forecast> for Plan {
    fn from(forecast: Forecast) -> Self {
        let Forecast { keys, keys_moved, copies, sampled, bytes, nodes } = forecast;
        Self { keys, keys_moved, copies, sampled, bytes, nodes: documents(nodes) }
    }
}

/// What would be different on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedNode {
    /// Its name.
    pub node: String,
    /// Keys that it owns now.
    pub owned_now: u64,
    /// Keys that it would own.
    pub owned_then: u64,
    /// Keys that it would copy from others.
    pub gained: u64,
    /// Bytes of these, about.
    pub bytes_gained: Option<u64>,
    /// Keys that it would let go, or take away with it.
    pub lost: u64,
}

impl From<NodeForecast> for PlannedNode {
    fn from(forecast: NodeForecast) -> Self {
        let NodeForecast { node, owned_now, owned_then, gained, bytes_gained, lost } = forecast;
        Self { node, owned_now, owned_then, gained, bytes_gained, lost }
    }
}
