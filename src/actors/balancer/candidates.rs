//! Looks for keys to give up: the part of the balancer that walks over the known keys, in separate
//! tasks.

use std::sync::Arc;

use super::{eviction, observation::KeyObservation};
use crate::{
    core::{
        balancer::{Candidate, Choice, EvictionReason},
        registry::HolderState,
    },
    key::Key,
    runtime::Shared,
};

/// Keys in one question to the registry.
const PAGE_KEYS: usize = 256;
/// Keys among which one round chooses. In larger stores each round goes on where the last one ended
/// and takes the coldest keys of a part, much as Redis samples (its "approximated LRU").
const WALK_KEYS_MAX: usize = 65_536;

/// The keys to give up, best first, and where the next search begins.
pub(crate) struct Found {
    pub(super) candidates: Vec<Candidate>,
    pub(super) next: Option<Key>,
}

/// Looks for the best `count` keys to give up, from `after` on. Cancel safe.
pub(super) async fn find(shared: &Arc<Shared>, after: Option<Key>, count: usize) -> Found {
    let mut choice = Choice::new(count);
    let mut next = after;
    for _ in 0..WALK_KEYS_MAX / PAGE_KEYS {
        let Ok(page) = shared.ports.registry.keys(next.take(), "", PAGE_KEYS).await else { break };
        for key in &page {
            if let Some(candidate) = candidate(shared, key)
                && (candidate.grounds != EvictionReason::LastCopy || eviction::may_ask(shared, key))
            {
                choice.offer(candidate);
            }
        }
        if page.len() < PAGE_KEYS {
            break;
        }
        next = page.last().cloned();
    }
    Found { candidates: choice.into_best(), next }
}

/// Returns `key` as a candidate, if there is a reason to give it up.
pub(super) fn candidate(shared: &Shared, key: &Key) -> Option<Candidate> {
    if !matches!(shared.lookup.own_claim(key)?, HolderState::Ready | HolderState::Failed) {
        return None;
    }
    let sight = KeyObservation::of(shared, key);
    let view = shared.lookup.view.load();
    let pinned = shared.lookup.policy.pinned(key).is_some();
    // Copies on dead members count, too: while the cluster knows of them, it would fetch the key
    // again.
    let expendable = eviction::is_due(shared) && !sight.dead_have_it && !eviction::is_in_use(shared, key);
    let grounds = sight.situation(shared, false).grounds(pinned, expendable, |name| view.is_full(name))?;
    Some(Candidate { key: key.clone(), grounds, last_use: shared.traffic.last_access.last(key) })
}

/// How many keys this node holds.
pub(super) async fn held(shared: &Arc<Shared>) -> usize {
    let summary = shared.ports.registry.summarize().await.unwrap_or_default();
    summary.ready.get(&shared.context.name).copied().unwrap_or(0)
}
