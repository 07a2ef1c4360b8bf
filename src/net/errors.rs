//! Why there is no connection, or no answer.

use std::{net::SocketAddr, time::Duration};

use super::wire::{HelloRefusal, Rejection};
use crate::{key::NodeName, util::codec::CodecError};

/// Application codes of closed connections and reset streams.
pub(crate) mod code {
    use quinn::VarInt;

    pub(crate) const SHUTDOWN: VarInt = VarInt::from_u32(0);
    pub(crate) const REFUSED: VarInt = VarInt::from_u32(1);
    pub(crate) const RESTARTED: VarInt = VarInt::from_u32(2);
    pub(crate) const SUPERSEDED: VarInt = VarInt::from_u32(3);
    pub(crate) const BROKEN: VarInt = VarInt::from_u32(4);
    pub(crate) const OVERLOADED: VarInt = VarInt::from_u32(5);
    pub(crate) const PAUSED: VarInt = VarInt::from_u32(6);
}

/// Why there is no connection to a peer. All may pass with time, except `WrongName`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DialError {
    #[error("no connection to {address}: {reason}")]
    Unreachable { address: SocketAddr, reason: String },
    #[error("{address} refuses this node: {refusal}")]
    Refused { address: SocketAddr, refusal: HelloRefusal },
    #[error("{address} should be {expected} but proves to be {found:?}")]
    WrongName { address: SocketAddr, expected: NodeName, found: Vec<String> },
    #[error("the node is stopping")]
    Stopping,
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CallError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The peer does not do what it was asked.
    #[error(transparent)]
    Refused(Rejection),
    /// The peer is of a version that does not know the call; it was not asked.
    #[error("its version is too old to be asked")]
    Unknown,
    /// The peer answered another call than this one.
    #[error("unexpected answer")]
    Unexpected,
}

impl CallError {
    /// Whether the peer was asked and did answer, if not with what was asked for.
    pub(crate) fn was_answered(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unexpected)
    }
}

impl From<CodecError> for CallError {
    fn from(error: CodecError) -> Self {
        Self::Broken(error.to_string())
    }
}
