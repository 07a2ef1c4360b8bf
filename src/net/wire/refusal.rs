//! Why a node does not do what a peer asks of it: the same reasons for calls and for requests for data.

use serde::{Deserialize, Serialize};

use super::revision::{REVISION_ELSEWHERE, REVISION_RELAY};

/// Why a node does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("it does not hold the key")]
    NotHeld,
    #[error("its data source failed: {0}")]
    Failed(String),
    #[error("it is overloaded")]
    Overloaded,
    #[error("it is stopping")]
    Stopping,
    #[error("it cannot read the message: {0}")]
    Malformed(String),
    /// It neither has the key nor, by the ring it knows, owns it; the caller's ring may be another.
    #[error("it neither has nor owns the key, by its ring {ring:016x}")]
    Elsewhere { ring: u64 },
    /// It was to pass a request on, and cannot reach the node.
    #[error("it cannot reach the node either: {0}")]
    Unreachable(String),
    /// As [`Rejection::Overloaded`], with when to ask again.
    #[error("it is overloaded")]
    Busy { retry_after_ms: u32 },
}

impl Rejection {
    /// The same, as a peer of this revision understands it.
    pub(crate) fn for_revision(self, revision: u16) -> Self {
        match self {
            Self::Busy { .. } if revision < REVISION_RELAY => Self::Overloaded,
            Self::Elsewhere { .. } if revision < REVISION_ELSEWHERE => Self::NotHeld,
            other => other,
        }
    }
}
