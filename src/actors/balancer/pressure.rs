//! Looking at the room that there is, and looking for what can be given up: the part of the balancer that asks the provider
//! and the registry, in tasks of its own.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tracing::{info, warn};

use super::{eviction, sight::Sight};
use crate::{
    core::{
        balancer::{Candidate, Choice, Grounds, Level},
        registry::HolderState,
    },
    key::Key,
    runtime::Shared,
};

/// How long a provider may take to say how much room there is.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Keys in one question to the registry.
const PAGE_KEYS: usize = 256;
/// Keys among which those that go are chosen. In larger stores each round goes on where the last one ended, and takes the
/// coldest of a part, much as Redis samples (its "approximated LRU").
const WALK_KEYS_MAX: usize = 65_536;

/// Asks the provider how much room there is, and tells the members if that decides whether this node takes new keys.
/// `turned_away`: an update has just found none. Returns when the node goes by it. Cancel safe.
pub(crate) async fn look(shared: &Arc<Shared>, turned_away: bool) {
    let Some(provider) = &shared.context.provider else { return };
    let asked = AssertUnwindSafe(provider.capacity()).catch_unwind();
    let seen = match tokio::time::timeout(LOOK_TIMEOUT, asked).await {
        Ok(Ok(Ok(seen))) => seen,
        Ok(Ok(Err(error))) => return warn!(%error, "the data source cannot say how much room there is"),
        Ok(Err(_)) => return warn!("the provider panicked when it was asked how much room there is"),
        Err(_) => return warn!("the data source takes long to say how much room there is"),
    };
    let (before, after) = shared.disk.observe_room(seen, turned_away);
    let (used, total) = seen.map_or((0, 0), |seen| (seen.used, seen.total));
    match (before, after) {
        (Level::Full, Level::Full) => return,
        (_, Level::Full) => warn!(used, total, "the disk is full: no new keys, and what others have too may go"),
        (Level::Full, _) => info!(used, total, "there is room for new keys again"),
        _ => return,
    }
    shared.ports.membership.load_changed();
}

/// What to give up, best first, and where to go on next time.
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
                && (candidate.grounds != Grounds::LastCopy || eviction::may_ask(shared, key))
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

/// `key`, if there are grounds to give it up.
pub(super) fn candidate(shared: &Shared, key: &Key) -> Option<Candidate> {
    if !matches!(shared.lookup.own_claim(key)?, HolderState::Ready | HolderState::Failed) {
        return None;
    }
    let sight = Sight::of(shared, key);
    let view = shared.lookup.view.load();
    let pinned = shared.lookup.intents.pinned(key).is_some();
    // What the dead may bring back counts: while it is known, it would be fetched again.
    let expendable = eviction::is_due(shared) && !sight.dead_have_it && !eviction::is_in_use(shared, key);
    let grounds = sight.situation(shared, false).grounds(pinned, expendable, |name| view.is_full(name))?;
    Some(Candidate { key: key.clone(), grounds, last_use: shared.traffic.uses.last(key) })
}

/// How many keys this node holds.
pub(super) async fn held(shared: &Arc<Shared>) -> usize {
    let summary = shared.ports.registry.summarize().await.unwrap_or_default();
    summary.ready.get(&shared.context.name).copied().unwrap_or(0)
}
