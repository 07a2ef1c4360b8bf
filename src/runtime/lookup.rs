//! The members and the holders of each key: the one place that answers "which node has it?". All
//! answers come from snapshots and lock-free maps, so that no request waits for a mailbox.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;

use super::context::Context;
use crate::{
    config::REPLICAS_MAX,
    core::{
        catalog::PolicyIndex,
        membership::View,
        placement::{Ring, RingOptions},
        registry::{HolderState, Index, IndexWriter, KeyHasher},
    },
    key::{Key, NodeName},
    util::published::Published,
};

/// A few node names, inline.
pub(crate) type Names = SmallVec<[NodeName; 4]>;

/// What this node knows of members, claims and intents.
pub(crate) struct Lookup {
    context: Arc<Context>,
    pub(crate) view: Published<View>,
    pub(crate) index: Index,
    pub(crate) policy: PolicyIndex,
}

impl Lookup {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let ring = Arc::new(Ring::build([], RingOptions::default()));
        let view = View::new(context.name.clone(), std::collections::BTreeMap::new(), ring, Duration::ZERO);
        Self {
            view: Published::new(view),
            index: IndexWriter::new(KeyHasher::seeded(context.world.seed())).index(),
            policy: PolicyIndex::new(&context.config, KeyHasher::seeded(context.world.seed())),
            context,
        }
    }

    /// When the view will have been the same for long enough to act on it; in the past if it has.
    pub(crate) fn settled_at(&self) -> Duration {
        self.view.load().since() + self.context.config.profile.settle()
    }

    /// Who claims `key`, in which state; live members only.
    pub(crate) fn live_holders(&self, key: &Key) -> Vec<(NodeName, HolderState)> {
        let view = self.view.load();
        self.holders(key).into_iter().filter(|(name, _)| view.is_alive(name)).collect()
    }

    /// Who claims `key`, the dead included.
    pub(crate) fn holders(&self, key: &Key) -> Vec<(NodeName, HolderState)> {
        self.index.lookup(key, |holders| holders.map(|(name, state)| (name.clone(), state)).collect())
    }

    /// Live members that hold `key` ready, in no particular order; without allocation for up to four.
    pub(crate) fn ready_holders(&self, key: &Key) -> Names {
        let view = self.view.load();
        let ready = |(name, state): &(&NodeName, HolderState)| *state == HolderState::Ready && view.is_alive(name);
        self.index.lookup(key, |holders| holders.filter(ready).map(|(name, _)| name.clone()).collect())
    }

    /// Live nodes that hold `key` ready, full ones last. The order is the same on all nodes that
    /// know the same.
    pub(crate) fn holders_by_preference(&self, key: &Key) -> Vec<NodeName> {
        let mut holders = self.ready_holders(key).into_vec();
        let view = self.view.snapshot();
        let preference: std::collections::BTreeMap<NodeName, usize> =
            view.ring().preference(key).cloned().enumerate().map(|(rank, name)| (name, rank)).collect();
        let rank = |name: &NodeName| preference.get(name).copied().unwrap_or(usize::MAX);
        holders.sort_by_key(|name| (view.is_full(name), rank(name), name.clone()));
        holders
    }

    /// What this node itself claims of `key`.
    pub(crate) fn own_claim(&self, key: &Key) -> Option<HolderState> {
        self.holders(key).into_iter().find(|(name, _)| *name == self.context.name).map(|(_, state)| state)
    }

    /// How many nodes should keep `key`: as many as it is pinned on or settings say, and some more while it is hot.
    pub(crate) fn replicas(&self, view: &View, key: &Key) -> usize {
        (self.policy.replicas(key) + view.extra(key)).min(REPLICAS_MAX)
    }

    /// The nodes that should keep `key`, best first, including those that died lately. Members
    /// agree about these nodes if they agree about each other, about the holders of the key and
    /// about how many replicas it should have. Without allocation for up to four.
    pub(crate) fn owners(&self, view: &View, key: &Key) -> Names {
        view.owners(key, self.replicas(view, key), |name| self.has(name, key)).cloned().collect()
    }

    /// The live nodes that should keep `key`, best first.
    pub(crate) fn live_owners(&self, view: &View, key: &Key) -> Names {
        view.live_owners(key, self.replicas(view, key), |name| self.has(name, key)).cloned().collect()
    }

    /// Whether `name` claims to have `key`, or to be about to.
    fn has(&self, name: &NodeName, key: &Key) -> bool {
        use HolderState::{Fetching, Presumed, Ready};
        matches!(self.index.state(key, name), Some(Ready | Presumed | Fetching))
    }

    /// The node that fetches `key` from the origin: the first live owner that has not just failed to, else the first.
    pub(crate) fn leader(&self, key: &Key) -> Option<NodeName> {
        let owners = self.live_owners(&self.view.load(), key);
        let failed = |name: &NodeName| self.index.state(key, name) == Some(HolderState::Failed);
        owners.iter().find(|name| !failed(name)).or_else(|| owners.first()).cloned()
    }
}
