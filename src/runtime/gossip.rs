//! What gossip reads of this node and what it shows of the others, beside the view itself.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{
    core::membership::{ClockDifference, LedgerDigest, Observation},
    key::NodeName,
    util::published::Published,
};

/// Observers that may follow one member: ten thousand, and those of a neighbour that has just died.
const WATCHERS_MAX: usize = 20_000;

/// A message of gossip and the address that it came from.
pub(crate) type GossipMessage = (SocketAddr, Bytes);

/// The state of this node's gossip.
#[derive(Debug)]
pub(crate) struct GossipState {
    /// What the view is made of, for observers that follow this node.
    pub(crate) sightings: Published<Vec<Observation>>,
    /// Observers that follow this node's view.
    pub(crate) watchers: Watchers,
    /// Members whose wall clock is far from this node's.
    pub(crate) clocks: Published<Vec<ClockDifference>>,
    /// Members that are kept on the list although they have been dead for long, with how many keys are with the dead alone.
    pub(crate) irreplaceable: Published<BTreeMap<NodeName, u64>>,
    /// Starts of nodes that gossip tells of.
    pub(crate) identities: AtomicUsize,
    /// Where received gossip goes.
    pub(crate) inbox: ArcSwapOption<mpsc::Sender<GossipMessage>>,
    /// Digest of this node's catalog.
    pub(crate) catalog_digest: AtomicU64,
    /// Incarnation and version of this node's ledger, for the feeds.
    pub(crate) ledger_version: watch::Sender<(u64, u64)>,
}

impl Default for GossipState {
    fn default() -> Self {
        Self {
            sightings: Published::new(Vec::new()),
            watchers: Watchers::default(),
            clocks: Published::new(Vec::new()),
            irreplaceable: Published::new(BTreeMap::new()),
            identities: AtomicUsize::new(0),
            inbox: ArcSwapOption::empty(),
            catalog_digest: AtomicU64::new(0),
            ledger_version: watch::Sender::new((0, 0)),
        }
    }
}

/// The mark of this node's own ledger: the registry writes it at every change, and gossip reads it
/// at every tick. It is behind a lock, because a version with the digest of another one would look
/// like a broken copy to every node that has that version.
#[derive(Debug, Default)]
pub(crate) struct SharedMark(Mutex<LedgerDigest>);

impl SharedMark {
    pub(crate) fn store(&self, mark: LedgerDigest) {
        *self.0.lock().expect("no panic under this lock") = mark;
    }

    pub(crate) fn load(&self) -> LedgerDigest {
        *self.0.lock().expect("no panic under this lock")
    }
}

/// How many observers follow this node.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Arc<AtomicUsize>);

impl Watchers {
    /// How many there are now.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A place for one more, unless there are too many.
    pub(crate) fn admit(&self) -> Option<WatcherPlace> {
        let admitted = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < WATCHERS_MAX).then_some(count + 1));
        admitted.ok().map(|_| WatcherPlace(self.0.clone()))
    }
}

/// One observer's place, for as long as it follows.
pub(crate) struct WatcherPlace(Arc<AtomicUsize>);

impl Drop for WatcherPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_digest_of_a_mark_are_always_of_one_ledger() {
        const LAST: u64 = 1_000_000;
        let mark = SharedMark::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=LAST).for_each(|number| mark.store(LedgerDigest { version: number, digest: number })));
            loop {
                let LedgerDigest { version, digest } = mark.load();
                assert_eq!(version, digest);
                if version == LAST {
                    break;
                }
            }
        });
    }
}
