//! Why one attempt at one node has no response.

use std::time::Duration;

use crate::{
    net::{ExchangeError, wire::Rejection},
    provider::Body,
    route_error::AttemptError,
};

/// Why one attempt has no response.
pub(super) enum Failure {
    /// The request never left this node; here is its body again.
    NotSent(Body, String),
    /// The node gave no response.
    Node(AttemptError),
    /// The request's own body broke off, so no node can answer it.
    Request(String),
}

impl From<Rejection> for AttemptError {
    fn from(refusal: Rejection) -> Self {
        match refusal {
            Rejection::NotHeld => Self::NotHeld,
            Rejection::Overloaded => Self::Overloaded,
            Rejection::Busy { retry_after_ms } => {
                let after = Duration::from_millis(retry_after_ms.into());
                Self::Later { reason: refusal.to_string(), after }
            }
            // The node is back in a moment, or is not a holder any more.
            Rejection::Stopping | Rejection::Unreachable(_) => Self::Unreachable(refusal.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<Rejection> for Failure {
    fn from(refusal: Rejection) -> Self {
        match refusal {
            Rejection::Malformed(reason) => Self::Request(reason),
            other => Self::Node(other.into()),
        }
    }
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused(refusal) => refusal.into(),
            ExchangeError::Request(reason) => Self::Request(reason),
            other => Self::Node(AttemptError::Unreachable(other.to_string())),
        }
    }
}
