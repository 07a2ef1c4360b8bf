//! What is asked of a cluster, and what of that has to hold later.

use std::time::Duration;

use datad_gossip::key::{Key, NodeName};
use serde::{Deserialize, Serialize};

/// What a request asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestKind {
    /// The data.
    #[default]
    Get,
    /// That every replica be brought up to date.
    Update,
    /// That it be kept always, on the usual number of nodes.
    Pin,
    /// That it be kept no longer than it is useful.
    Unpin,
    /// That it be dropped everywhere.
    Forget,
}

impl RequestKind {
    /// Whether it says what is to become of a key.
    #[must_use]
    pub fn is_intent(self) -> bool {
        matches!(self, Self::Pin | Self::Unpin | Self::Forget)
    }
}

/// An intent that a client asked for.
#[derive(Debug, Clone)]
pub struct Intended {
    /// Its number among all requests.
    pub id: u64,
    /// Of which key.
    pub key: Key,
    /// What is to become of it.
    pub kind: RequestKind,
    /// When it was uttered.
    pub began: Duration,
    /// When it was acknowledged, and on whose disks it was then: on none if it was refused. `None` if the node died.
    pub ended: Option<(Duration, Vec<NodeName>)>,
}
