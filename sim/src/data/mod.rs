//! What the nodes of a run keep: where their providers come from, and what is true of the data whatever the nodes say.

pub mod builtin;
pub mod custom;
pub mod upstream;

use std::sync::Arc;

use bytes::Bytes;
use datad_gossip::{key::Key, provider::Provider};

use crate::{model::Left, script::FaultKind};

/// The data of all machines of a run.
pub trait Data: Send {
    /// Keys that exist.
    fn keys(&self) -> Vec<Key>;

    /// The provider of a node that starts on this machine, over what the machine's disk holds.
    fn provider(&mut self, machine: usize) -> Arc<dyn Provider>;

    /// Whether the key is on this machine's disk, complete and durable, whether or not a node runs there.
    fn holds(&self, machine: usize, key: &Key) -> bool;

    /// Whether the key ever had this value.
    fn was_published(&self, key: &Key, bytes: &Bytes) -> bool;

    /// Bytes of the key's value, for reports.
    fn size(&self, key: &Key) -> u64 {
        let _ = key;
        0
    }

    /// The power of this machine goes.
    fn crash(&mut self, machine: usize, left: Left);

    /// A fault of the data begins or, if it lasts, ends. Returns whether this data can have it.
    fn fault(&mut self, kind: &FaultKind, begins: bool) -> bool {
        let _ = (kind, begins);
        false
    }

    /// Whether "there is no such key" is a right answer now for a request that began at most so long ago.
    fn may_lack(&self, key: &Key, within: std::time::Duration) -> bool {
        let _ = within;
        !self.keys().contains(key)
    }
}
