//! Why a request has no response: the answer of each node that was asked.
//!
//! This module stands apart from the router, because a node also tells these errors to a provider
//! that begins a response before the key is there.

use std::time::Duration;

use crate::key::{Key, NodeName};

/// The answer of one node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// The node.
    pub node: NodeName,
    /// Why it gave no response.
    pub error: AttemptError,
}

/// Why a node gave no response.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// The node has dropped the key since it last said that it had it.
    #[error("it does not hold the key")]
    NotHeld,
    /// The node said that it cannot answer.
    #[error("{0}")]
    Refused(String),
    /// The node has more to do than it can.
    #[error("it is overloaded")]
    Overloaded,
    /// Nothing is wrong with the key, but the node's queue is full, or the origin asks to come back later.
    #[error("{reason}")]
    Later {
        /// Which of the two, and why.
        reason: String,
        /// When to ask again.
        after: Duration,
    },
    /// The node did not answer by the deadline.
    #[error("no answer in time")]
    Timeout,
    /// The fetch that the node was to do failed.
    #[error("fetching failed: {0}")]
    FetchFailed(String),
}

/// When to ask again after these failures: the earliest time that one of them names.
pub(crate) fn retry_after(attempts: &[Attempt]) -> Duration {
    let said = attempts.iter().filter_map(|attempt| match &attempt.error {
        AttemptError::Later { after, .. } => Some(*after),
        _ => None,
    });
    said.min().unwrap_or(Duration::from_secs(1))
}

/// Why a request has no response. The cluster is unchanged unless the variant says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The origin has no such key. Nodes remember this for a while without asking again.
    #[error("there is no key {key}")]
    NotFound {
        /// The key.
        key: Key,
    },
    /// The operator does not let this key be fetched. A retry does not help.
    #[error("the key {key} may not be fetched: {reason}")]
    Forbidden {
        /// The key.
        key: Key,
        /// The rule.
        reason: String,
    },
    /// Every node that could answer failed. A retry may help.
    #[error("no node could answer for {key}: {}", list(attempts))]
    Failed {
        /// The key.
        key: Key,
        /// The answer of each of these nodes.
        attempts: Vec<Attempt>,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The key is still being fetched, and the fetch goes on. A retry finds it further.
    #[error("{key} is still being fetched after {waited:?}")]
    Pending {
        /// The key.
        key: Key,
        /// How long the request waited.
        waited: Duration,
    },
    /// The request's own body failed, so it was not sent or not sent to its end.
    #[error("the request could not be read: {0}")]
    Request(String),
}

fn list(attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "no live node keeps keys".into();
    }
    let each = attempts.iter().map(|attempt| format!("{}: {}", attempt.node, attempt.error));
    each.collect::<Vec<_>>().join("; ")
}
