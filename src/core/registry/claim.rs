//! A claim: "node N, incarnation I, says at its version V that it has key K in state S". Here are I, V and S.
//!
//! Invariant: whatever its source, the reason of a failure is at most [`REASON_BYTES_MAX`] bytes,
//! so that a frame holds thousands of claims and no origin's error page spreads over the cluster.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest reason of a failed claim, in bytes of UTF-8: a line of text.
pub const REASON_BYTES_MAX: usize = 256;

/// A number that grows with every start of a node of some name. 0 is before the first start: no
/// node writes under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// How many changes a ledger has seen in its incarnation. 0 is the empty ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version(pub u64);

impl Version {
    /// The version of the next change.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node says of a key it has to do with. No claim means: not held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimState {
    /// It is being fetched; ask again, or wait.
    Fetching,
    /// It is durable on that node and can be served.
    Ready,
    /// It could not be fetched. Behind a pointer because it is rare and every claim would pay for its size.
    Failed(Arc<Failure>),
}

impl ClaimState {
    /// A failed claim; the reason is cut at a character boundary to [`REASON_BYTES_MAX`] bytes. `retry_at_ms` is the
    /// earliest time of another attempt, in milliseconds since the Unix epoch on the clock of the claiming node.
    #[must_use]
    pub fn failed(reason: &str, retry_at_ms: u64) -> Self {
        let fits = |end: &usize| reason.is_char_boundary(*end);
        let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(fits).unwrap_or(0);
        Self::Failed(Arc::new(Failure { reason: reason[..end].into(), retry_at_ms }))
    }

    /// The state without its details.
    #[must_use]
    pub fn tag(&self) -> HolderState {
        match self {
            Self::Fetching => HolderState::Fetching,
            Self::Ready => HolderState::Ready,
            Self::Failed(_) => HolderState::Failed,
        }
    }
}

/// The state of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HoldingState {
    /// On its way.
    Fetching,
    /// There, and served; also of a restarted node that had it and has not said otherwise.
    Ready,
    /// Could not be had; will be tried again.
    Failed,
}

impl From<HolderState> for HoldingState {
    fn from(state: HolderState) -> Self {
        match state {
            HolderState::Fetching => Self::Fetching,
            HolderState::Ready | HolderState::Presumed => Self::Ready,
            HolderState::Failed => Self::Failed,
        }
    }
}

/// Why a key could not be fetched, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawFailure")]
pub struct Failure {
    reason: Box<str>,
    retry_at_ms: u64,
}

impl Failure {
    /// What went wrong, in words; at most [`REASON_BYTES_MAX`] bytes.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Earliest time of another attempt, in milliseconds since the Unix epoch on the clock of the claiming node.
    #[must_use]
    pub fn retry_at_ms(&self) -> u64 {
        self.retry_at_ms
    }
}

/// A failure as it arrives, before its length is known to be allowed.
#[derive(Deserialize)]
struct RawFailure {
    reason: Box<str>,
    retry_at_ms: u64,
}

/// A reason longer than [`REASON_BYTES_MAX`] arrived: the sender does not keep the protocol. Retrying does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the reason of a failed claim has {bytes} bytes, more than {REASON_BYTES_MAX}")]
pub struct FailureTooLong {
    /// Its length.
    pub bytes: usize,
}

impl TryFrom<RawFailure> for Failure {
    type Error = FailureTooLong;

    fn try_from(RawFailure { reason, retry_at_ms }: RawFailure) -> Result<Self, FailureTooLong> {
        if reason.len() > REASON_BYTES_MAX {
            return Err(FailureTooLong { bytes: reason.len() });
        }
        Ok(Self { reason, retry_at_ms })
    }
}

/// How a node stands to a key, in one byte: the state of its claim, or what is presumed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum HolderState {
    /// Its claim is [`ClaimState::Fetching`].
    Fetching = 0,
    /// Its claim is [`ClaimState::Ready`].
    Ready = 1,
    /// Its claim is [`ClaimState::Failed`].
    Failed = 2,
    /// It was ready before the node restarted, and the node has not yet looked at its disk again.
    Presumed = 3,
}

impl HolderState {
    /// All states, by their number.
    pub(crate) const ALL: [Self; 4] = [Self::Fetching, Self::Ready, Self::Failed, Self::Presumed];

    /// Whether the node has the key, or had it when it was last heard of.
    pub(crate) fn has_it(self) -> bool {
        matches!(self, Self::Ready | Self::Presumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let ClaimState::Failed(failure) = ClaimState::failed(&"ü".repeat(300), 7) else { unreachable!() };
        assert_eq!(failure.reason(), "ü".repeat(128));
        let ClaimState::Failed(failure) = ClaimState::failed(&format!("x{}", "ü".repeat(300)), 7) else {
            unreachable!()
        };
        assert_eq!(failure.reason().len(), 255);
        assert_eq!(failure.retry_at_ms(), 7);
    }

    #[test]
    fn a_long_reason_from_elsewhere_is_refused() {
        let read = |bytes| {
            serde_json::from_str::<Failure>(&format!(r#"{{"reason":"{}","retry_at_ms":1}}"#, "x".repeat(bytes)))
        };
        assert!(read(REASON_BYTES_MAX).is_ok());
        assert!(read(REASON_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn a_state_is_small() {
        assert_eq!(size_of::<Option<ClaimState>>(), 16);
        assert_eq!(size_of::<HolderState>(), 1);
        for (number, state) in HolderState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
        }
    }
}
