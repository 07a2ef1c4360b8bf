//! What a client asks for a key, as nodes store and send it.

use serde::{Deserialize, Serialize};

use super::hlc::HlcTimestamp;
use crate::{
    config::REPLICAS_MAX,
    key::{Key, NodeName},
};

/// The kind of intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Intent {
    /// Keep the key on `replicas` nodes, even if no client requests it.
    Pin { replicas: u8 },
    /// Keep the key as any other.
    Unpin,
    /// Drop every copy that exists by now.
    Forget,
}

/// The time and the node of an intent; no two intents have the same stamp.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) time: HlcTimestamp,
    pub(crate) node: NodeName,
}

/// An intent about a key, or about all keys that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
    pub(crate) intent: Intent,
}

impl Record {
    /// Whether a peer or a disk may say this.
    pub(crate) fn is_valid(&self) -> bool {
        match self.intent {
            Intent::Pin { replicas } => (1..=REPLICAS_MAX).contains(&usize::from(replicas)),
            Intent::Unpin | Intent::Forget => true,
        }
    }
}

/// Whether a pin of `key` is a pattern: `*` stands for any run of characters, slashes included, `?` for any single one.
pub(crate) fn is_pattern(key: &Key) -> bool {
    key.as_str().contains(['*', '?'])
}
