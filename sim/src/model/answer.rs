//! How a request ended.

use bytes::Bytes;
use datad_gossip::{RouteError, key::NodeName};
use http::StatusCode;

/// How a request ended.
#[derive(Debug, Clone)]
pub enum Answer {
    /// With a response, to its end.
    Body(StatusCode, Bytes),
    /// With an update of every replica: how many are up to date, and how many are not.
    Updated(usize, usize),
    /// An intent is on these machines' disks.
    Recorded(Vec<NodeName>),
    /// An intent was not taken.
    NotRecorded(String),
    /// With a response that broke off, and said so.
    BrokenOff(String),
    /// With an error.
    Error(RouteError),
    /// Not at all within the given time.
    Hangs,
}

impl Answer {
    /// Whether it is what was wanted, whatever it contains.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Body(StatusCode::OK, _) | Self::Updated(..) | Self::Recorded(_))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Body(status, bytes) => write!(f, "{} with {} bytes", status.as_u16(), bytes.len()),
            Self::Updated(good, bad) => write!(f, "{good} replicas updated, {bad} not"),
            Self::Recorded(on) => write!(f, "recorded on {on:?}"),
            Self::NotRecorded(error) => write!(f, "not recorded: {error}"),
            Self::BrokenOff(error) => write!(f, "broken off: {error}"),
            Self::Error(error) => error.fmt(f),
            Self::Hangs => f.write_str("no answer"),
        }
    }
}
