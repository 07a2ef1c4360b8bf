//! How much this node does for its peers at once. No peer gets all of it.

use tokio::sync::Semaphore;

use crate::{key::NodeName, util::places::Places};

/// Requests of clients at peers that are answered at once, and copies that peers make; more are told that the node is
/// overloaded and go elsewhere.
const PEER_REQUESTS_MAX: usize = 1024;
const PEER_EXPORTS_MAX: usize = 256;
/// Requests of clients at peers that are answered from a part of a key, each for as long as its origin takes.
const PEER_PARTS_MAX: usize = 256;
/// Intents of peers that wait for the disk; more are told so, and pulled later.
const PEER_INTENTS_MAX: usize = 256;
/// Keys that the provider describes at once, for all nodes that want to know: it may run a program for each.
pub(crate) const DESCRIBING_MAX: usize = 4;

/// Places for what peers ask, each held from the arrival of a request to the end of the body of its answer.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) requests: Places<NodeName>,
    /// Of what is copied.
    pub(crate) exports: Places<NodeName>,
    /// Of what is answered from a part of a key.
    pub(crate) parts: Places<NodeName>,
    pub(crate) describing: Semaphore,
    /// Intents that are to be written down at once.
    pub(crate) intents: Semaphore,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            requests: Places::new(PEER_REQUESTS_MAX),
            exports: Places::new(PEER_EXPORTS_MAX),
            parts: Places::new(PEER_PARTS_MAX),
            describing: Semaphore::new(DESCRIBING_MAX),
            intents: Semaphore::new(PEER_INTENTS_MAX),
        }
    }
}

impl Admission {
    /// Requests of peers that are being answered.
    pub(crate) fn taken(&self) -> usize {
        [&self.requests, &self.exports, &self.parts].iter().map(|places| places.taken()).sum()
    }
}
