//! Taking a node out of service so that no client notices.
//!
//! **For good** (`drain`): the node announces that it drains, which takes it off the ring. The new
//! owners of its keys copy them from it. Once no key is on it alone, it leaves.
//!
//! ```text
//!   announce Draining -> members settle -> what does only this node hold? --nothing--> announce Left
//!                                            ^            | something
//!                                            +-- a moment-+--> out of time, or nobody to take it: refuse, or leave if forced
//! ```
//!
//! **Until soon** (`retire`, when it is told to stop): it says so and keeps its place on the ring for `repair_delay`, so
//! nothing is copied on account of it, except what no other live node has.
//!
//! Invariants: a draining node takes no new keys and drops none; it does not leave as the last live holder of a key unless
//! it is forced to; other draining nodes do not count as holders, so two that drain at once do not rely on each other. A
//! node that refused goes on draining and serving; only a restart makes it take keys again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    core::{
        membership::{AdvertisedState, MemberState},
        registry::HolderState,
    },
    key::{Key, NodeName},
    net::wire::{Ensured, calls::KeepCopy},
    runtime::Shared,
};

/// Keys that one step looks at.
const PAGE_KEYS: usize = 1_024;
/// Pause between two checks which keys are still on this node alone.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Keys that an unfinished drain names.
const NAMED_MAX: usize = 100;
/// Keys that are handed over at once by a node that is about to be away.
const HAND_OVERS_MAX: usize = 16;
/// How long the node waits for others to hear that it left.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a drain ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Drained {
    /// The node.
    pub node: NodeName,
    /// Whether it has left. If not, it goes on draining, and may be asked again.
    pub left: bool,
    /// Keys that no other live node has.
    pub remaining: u64,
    /// Some of them, in order.
    pub keys: Vec<Key>,
}

/// Drains this node for at most `patience`, and leaves: if nothing is on it alone, or if `force` says so. Cancelling leaves
/// it draining.
pub(crate) async fn drain(shared: &Arc<Shared>, force: bool, patience: Duration) -> Drained {
    let deadline = Instant::now() + patience;
    if !shared.lifecycle.draining.swap(true, Ordering::AcqRel) {
        info!(node = %shared.context.name, "draining");
    }
    // A node that is being brought back says so by itself.
    let _ = shared.ports.membership.announce(AdvertisedState::Draining);
    settled(shared, deadline).await;
    let mut sole = keys_only_here(shared).await;
    while !sole.is_empty() && Instant::now() < deadline && somebody_may_take_them(shared) {
        tokio::time::sleep(LOOK_INTERVAL).await;
        sole.retain(|key| is_only_here(shared, key));
        if sole.is_empty() {
            // Keys that were being fetched meanwhile are not among them.
            sole = keys_only_here(shared).await;
        }
    }
    let left = sole.is_empty() || force;
    if left {
        leave(shared).await;
    }
    if !sole.is_empty() {
        warn!(keys = sole.len(), first = %sole[0], left, "no other live node has these");
    }
    let remaining = sole.len() as u64;
    sole.truncate(NAMED_MAX);
    Drained { node: shared.context.name.clone(), left, remaining, keys: sole }
}

/// Announces that this node leaves for good, and returns when others had a chance to hear it.
async fn leave(shared: &Arc<Shared>) {
    say(shared, AdvertisedState::Left).await;
}

/// Says goodbye until soon, unless the node has drained; an observer, which has nothing to come back to, for good. Returns
/// when others had a chance to hear it.
pub(crate) async fn say_goodbye(shared: &Arc<Shared>) {
    let for_good = shared.context.provider.is_none() || shared.lifecycle.draining.load(Ordering::Acquire);
    say(shared, if for_good { AdvertisedState::Left } else { AdvertisedState::Away }).await;
}

async fn say(shared: &Arc<Shared>, goodbye: AdvertisedState) {
    let _ = tokio::time::timeout(GOODBYE, shared.ports.membership.leave(goodbye)).await;
}

/// Announces that this node is about to be away for a while, and has others copy what only it has, for at most `patience`.
/// It keeps its place on the ring, so that nothing else is copied on account of it.
pub(crate) async fn retire(shared: &Arc<Shared>, patience: Duration) {
    let deadline = Instant::now() + patience;
    if shared.context.provider.is_none() || shared.lifecycle.draining.load(Ordering::Acquire) {
        return;
    }
    shared.lifecycle.leaving.store(true, Ordering::Release);
    let _ = shared.ports.membership.announce(AdvertisedState::Leaving);
    if patience.is_zero() {
        return;
    }
    let sole = keys_only_here(shared).await;
    let ready = sole.into_iter().filter(|key| shared.lookup.own_claim(key) == Some(HolderState::Ready));
    let handed =
        futures::stream::iter(ready).for_each_concurrent(HAND_OVERS_MAX, |key| hand_over(shared, key, deadline));
    if tokio::time::timeout_at(deadline, handed).await.is_err() {
        warn!(node = %shared.context.name, "not all that only this node has was handed over in time");
    }
}

/// Has the next node on the key's walk around the ring copy it.
async fn hand_over(shared: &Arc<Shared>, key: Key, deadline: Instant) {
    let view = shared.lookup.view.snapshot();
    let takes = |name: &&NodeName| **name != shared.context.name && view.is_staying(name) && !view.is_full(name);
    let Some(name) = view.ring().walk(&key).find(takes).cloned() else { return };
    let copied = async {
        let peer = shared.peers.peer(&name).await.ok()?;
        let patience = deadline.saturating_duration_since(Instant::now());
        match peer.call(KeepCopy { key: key.clone() }, patience).await {
            Ok(Ensured::Ready(_)) => Some(()),
            _ => None,
        }
    };
    match copied.await {
        Some(()) => info!(%key, to = %name, "handed over"),
        None => warn!(%key, to = %name, "could not be handed over"),
    }
}

/// Waits until this node is seen to drain and the members have settled: by then it knows of other
/// nodes that drain as well.
async fn settled(shared: &Arc<Shared>, deadline: Instant) {
    let is_draining = shared.lookup.view.wait_for(|view| {
        view.member(&shared.context.name)
            .is_some_and(|me| matches!(me.state, MemberState::Draining | MemberState::Left))
    });
    let settled = async {
        is_draining.await;
        while shared.context.uptime() < shared.lookup.settled_at() {
            tokio::time::sleep(shared.context.config.profile.gossip_interval).await;
        }
    };
    let _ = tokio::time::timeout_at(deadline, settled).await;
}

fn somebody_may_take_them(shared: &Shared) -> bool {
    let view = shared.lookup.view.load();
    view.accepting().any(|name| *name != shared.context.name)
}

async fn keys_only_here(shared: &Arc<Shared>) -> Vec<Key> {
    let mut sole = Vec::new();
    let mut after = None;
    loop {
        let Ok(page) = shared.ports.registry.keys(after, "", PAGE_KEYS).await else { return sole };
        sole.extend(page.iter().filter(|key| is_only_here(shared, key)).cloned());
        match page.last() {
            Some(last) if page.len() == PAGE_KEYS => after = Some(last.clone()),
            _ => return sole,
        }
    }
}

/// Whether this node has `key`, or will in a moment, and no node that stays has it.
fn is_only_here(shared: &Shared, key: &Key) -> bool {
    let view = shared.lookup.view.load();
    let stays = |name: &NodeName| {
        *name != shared.context.name
            && view
                .member(name)
                .is_some_and(|member| matches!(member.state, MemberState::Joining | MemberState::Serving))
    };
    let claims = shared.lookup.holders(key);
    let here = claims.iter().any(|(name, state)| {
        *name == shared.context.name && matches!(state, HolderState::Ready | HolderState::Fetching)
    });
    here && !claims.iter().any(|(name, state)| *state == HolderState::Ready && stays(name))
}
