//! What went wrong: problem details (RFC 9457).

use serde::{Deserialize, Serialize};

use super::Text;
use crate::key::{Key, NodeName};

/// `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Problem {
    /// The kind, as a URI such as `urn:datad-gossip:problem:not-found`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The kind, in words.
    pub title: Text,
    /// The status of the response.
    #[serde(default)]
    pub status: u16,
    /// What went wrong this time, and what to do about it.
    pub detail: String,
    /// The key that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The nodes that were asked in vain, if that is what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<Attempt>>,
}

/// A node that was asked in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// The node.
    pub node: NodeName,
    /// What came of it.
    pub error: String,
}

impl From<&crate::route_error::Attempt> for Attempt {
    fn from(attempt: &crate::route_error::Attempt) -> Self {
        Self { node: attempt.node.clone(), error: attempt.error.to_string() }
    }
}
