//! Makes a key exist somewhere: the path of a request for a key that no node holds.
//!
//! ```text
//!   X (asked)                     L (first live owner)                  origin
//!    |-- Ensure{key, hops 2} ------->|                                     |
//!    |                               |-- updater: one flight a key ------->|
//!    |   (every other asker waits    |<------------------------------------|
//!    |<-- Ready[L] ------------------|   claim Ready, then answer all
//! ```
//!
//! Nodes may disagree about who leads while a membership change spreads. So a node that is asked
//! without leading asks the one it takes for the leader, at most as often as `hops` allows, and a
//! node that sees a live node fetching asks that one. A leader whose disk is full asks the node
//! that leads next. A leader that dies strands no caller: the wait ends when the view says so, and
//! the next leader is asked.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::debug;

use super::send::connected;
use crate::{
    core::{registry::HolderState, updater::Origin},
    key::{Key, NodeName},
    net::{
        CallError,
        wire::{Ensured, Rejection, calls},
    },
    provider::UpdateReason,
    runtime::Shared,
};

/// How often a request to ensure a key may be passed on: to the leader, and from there to the node
/// that *it* takes for the leader.
pub(crate) const HOPS: u8 = 2;
/// Pause before asking again after no node could be asked.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// A node that gives up on a key after this long has seen to it until then.
const SEEN_TO_MIN: Duration = Duration::from_secs(5);
/// How long a request waits for space while all nodes are full: they may be freeing some.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);
/// When to ask again for a key that no node has room for.
const NO_ROOM_RETRY_MS: u32 = 5_000;

/// The key to ensure, and the limits for it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) key: &'a Key,
    /// Until when the caller waits.
    pub(crate) deadline: Instant,
    /// How often the call may still be passed on.
    pub(crate) hops: u8,
    /// Nodes that must not be the ones to hold it.
    pub(crate) apart_from: &'a [NodeName],
    /// Whether the leader heeds what it remembers of the origin.
    pub(crate) origin: Origin,
}

impl<'a> Wanted<'a> {
    /// Asks that a node holds `key` within `patience_ms`, because a client has asked for it.
    pub(crate) fn for_request(key: &'a Key, patience_ms: u32) -> Self {
        let deadline = Instant::now() + Duration::from_millis(patience_ms.into());
        Self { key, deadline, hops: HOPS, apart_from: &[], origin: Origin::Heeding }
    }
}

/// Makes sure that a node holds the key, and waits for that until the deadline. While no node that
/// could hold it can be reached, it waits no longer than requests do.
///
/// # Errors
/// The hops are used up, so no further node may be asked.
pub(crate) async fn ensure(shared: &Arc<Shared>, wanted: &Wanted<'_>) -> Result<Ensured, Rejection> {
    let Wanted { key, deadline, hops, apart_from, .. } = *wanted;
    let started = Instant::now();
    // When a node was last found to see to it.
    let mut seen_to = started;
    loop {
        let ready = ready_holders(shared, key, apart_from);
        if !ready.is_empty() {
            return Ok(Ensured::Ready(ready));
        }
        let asked_at = Instant::now();
        let answer = match whom_to_ask(shared, key) {
            None if nobody_keeps_keys(shared) && started.elapsed() >= ROOM_PATIENCE => return Ok(no_keeper(shared)),
            None if nobody_has_room(shared) && started.elapsed() >= ROOM_PATIENCE => return Ok(no_room(shared)),
            None => None,
            Some(name) if name == shared.context.name => {
                let ensured = tokio::select! {
                    ensured = ensure_here(shared, wanted) => ensured,
                    // Another node was quicker, or had it when this one began to copy it.
                    () = until_ready(shared, key, apart_from), if wanted.origin != Origin::Afresh => continue,
                };
                match ensured {
                    // That node had no space for it. In a moment all nodes know that it is full,
                    // and another node leads.
                    Ensured::Failed { reason, .. } if !shared.disk.accepts() => {
                        debug!(%key, %reason, "no room for it here");
                        seen_to = seen_to_until(seen_to, asked_at, Instant::now());
                        None
                    }
                    ensured => return Ok(ensured),
                }
            }
            Some(_) if hops == 0 => return Err(elsewhere(shared)),
            Some(name) => {
                let asked = tokio::select! {
                    asked = ask(shared, wanted, &name) => asked,
                    // Claims come on other ways than the answer.
                    () = until_ready(shared, key, apart_from), if wanted.origin != Origin::Afresh => continue,
                };
                match asked {
                    Ok(ensured) => Some(ensured),
                    Err(error) if error.was_answered() => {
                        debug!(%key, %name, %error, "it does not see to the key");
                        seen_to = seen_to_until(seen_to, asked_at, Instant::now());
                        None
                    }
                    Err(error) => {
                        debug!(%key, %name, %error, "cannot ask it to see to the key");
                        if !matches!(error, CallError::Dial(_)) {
                            seen_to = Instant::now();
                        }
                        ask_through_another(shared, wanted, &name, &error).await
                    }
                }
            }
        };
        if let Some(answer) = answer {
            return Ok(answer);
        }
        // The node that should fetch the key is alive but cannot be reached from here. An owner
        // then helps itself.
        if started.elapsed() > shared.context.config.profile.idle_timeout && is_owner(shared, key) {
            return Ok(ensure_here(shared, wanted).await);
        }
        if Instant::now() + RETRY >= deadline.min(seen_to + shared.context.config.request_patience) {
            return Ok(Ensured::Pending);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// When a node was last found to see to a key, which gives up on it at `now` and was asked at
/// `asked_at`. One that refuses at once has not seen to it: if it counted, a caller that is refused
/// again and again would never be told.
fn seen_to_until(before: Instant, asked_at: Instant, now: Instant) -> Instant {
    if now.saturating_duration_since(asked_at) >= SEEN_TO_MIN { now } else { before }
}

fn ready_holders(shared: &Shared, key: &Key, apart_from: &[NodeName]) -> Vec<NodeName> {
    let holders = shared.lookup.live_holders(key).into_iter();
    let ready = holders.filter(|(name, state)| *state == HolderState::Ready && !apart_from.contains(name));
    ready.map(|(name, _)| name).collect()
}

async fn until_ready(shared: &Shared, key: &Key, apart_from: &[NodeName]) {
    while ready_holders(shared, key, apart_from).is_empty() {
        tokio::time::sleep(shared.context.config.profile.hedge_after).await;
    }
}

fn is_owner(shared: &Arc<Shared>, key: &Key) -> bool {
    shared.lookup.live_owners(&shared.lookup.view.load(), key).contains(&shared.context.name)
}

fn elsewhere(shared: &Shared) -> Rejection {
    Rejection::Elsewhere { ring: shared.lookup.view.load().ring().fingerprint() }
}

/// Whether there are live members that keep keys, and all of them are full.
fn nobody_has_room(shared: &Shared) -> bool {
    let view = shared.lookup.view.load();
    view.accepting().next().is_none() && view.ring().nodes().iter().any(|name| view.is_alive(name))
}

/// Whether no live member would keep a key, however much room it has: all are observers or have no weight.
fn nobody_keeps_keys(shared: &Shared) -> bool {
    shared.lookup.view.load().alive().all(|member| !member.is_eligible())
}

fn no_keeper(shared: &Shared) -> Ensured {
    let reason = "no live member keeps keys: each is an observer or has weight 0".to_owned();
    Ensured::Later { node: shared.context.name.clone(), reason, retry_after_ms: NO_ROOM_RETRY_MS }
}

fn no_room(shared: &Shared) -> Ensured {
    let reason = "all nodes are full: none takes new keys".to_owned();
    Ensured::Later { node: shared.context.name.clone(), reason, retry_after_ms: NO_ROOM_RETRY_MS }
}

/// Returns the node that is fetching the key already, else the leader.
fn whom_to_ask(shared: &Arc<Shared>, key: &Key) -> Option<NodeName> {
    fetching(shared, key).or_else(|| shared.lookup.leader(key))
}

/// The live node that says that it fetches the key; the first of them by name.
pub(super) fn fetching(shared: &Shared, key: &Key) -> Option<NodeName> {
    let holders = shared.lookup.live_holders(key).into_iter();
    holders.filter(|(_, state)| *state == HolderState::Fetching).map(|(name, _)| name).min()
}

async fn ensure_here(shared: &Arc<Shared>, wanted: &Wanted<'_>) -> Ensured {
    let ensured = shared.ports.updater.ensure(wanted.key.clone(), wanted.origin, UpdateReason::Request);
    match tokio::time::timeout_at(wanted.deadline, ensured).await {
        Ok(Ok(ensured)) => ensured,
        Ok(Err(gone)) => {
            Ensured::Failed { node: shared.context.name.clone(), reason: gone.to_string(), retry_after_ms: 1_000 }
        }
        Err(_) => Ensured::Pending,
    }
}

/// Has a member that this node is connected to ask `leader`, which this node cannot reach because of `error`.
async fn ask_through_another(
    shared: &Arc<Shared>,
    wanted: &Wanted<'_>,
    leader: &NodeName,
    error: &CallError,
) -> Option<Ensured> {
    if wanted.hops <= 1 || !matches!(error, CallError::Dial(_)) {
        return None;
    }
    let other = connected(shared, leader).into_iter().next()?;
    ask(shared, wanted, &other).await.ok()
}

async fn ask(shared: &Arc<Shared>, wanted: &Wanted<'_>, name: &NodeName) -> Result<Ensured, CallError> {
    let patience = wanted.deadline.saturating_duration_since(Instant::now());
    let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    let (key, hops, ring) = (wanted.key.clone(), wanted.hops - 1, shared.lookup.view.load().ring().fingerprint());
    let answer = async {
        let peer = shared.peers.peer(name).await?;
        // The other side waits as long as we do; its answer "pending" should arrive before we give up.
        let patience = patience + RETRY;
        match wanted.origin {
            Origin::Afresh => peer.call(calls::Create { key, patience_ms, hops, ring }, patience).await,
            _ => peer.call(calls::Ensure { key, patience_ms, hops, ring }, patience).await,
        }
    };
    tokio::select! {
        answer = answer => answer,
        _ = shared.lookup.view.wait_for(|view| !view.is_alive(name)) => {
            Err(CallError::Broken(format!("{name} died")))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        config::{NodeConfig, Profile},
        net::identity::{ClusterKey, Credentials},
        node::Node,
        provider::UpdateError,
        providers::Memory,
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn node(text: &str, secret: &ClusterKey, seeds: Vec<String>) -> Node {
        let mut config = NodeConfig { seeds, replicas: 1, profile: Profile::local(), ..NodeConfig::default() };
        config.listen = "127.0.0.1:0".parse().unwrap();
        let memory = Memory::new(|_: Key| async { Ok::<_, UpdateError>(Bytes::from_static(b"value")) });
        let builder = Node::builder(NodeName::new(text).unwrap()).config(config).provider(Arc::new(memory));
        builder.credentials(Credentials::ClusterKey(secret.clone())).start().await.unwrap()
    }

    #[test]
    fn who_gives_up_after_a_long_time_has_seen_to_the_key_until_then_and_who_refuses_at_once_has_not() {
        let begun = Instant::now();
        let later = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(seen_to_until(begun, later(1), later(600)), later(600));
        assert_eq!(seen_to_until(begun, later(600), later(601)), begun);
    }

    #[tokio::test]
    async fn who_is_asked_for_what_it_neither_has_nor_owns_says_so_and_passes_it_on_only_as_often_as_it_may() {
        let secret = ClusterKey::generate();
        let a = node("a", &secret, Vec::new()).await;
        let b = node("b", &secret, vec![a.address().to_string()]).await;
        let on_ring = |view: &crate::core::membership::View| view.ring().nodes().len() == 2;
        for node in [&a, &b] {
            tokio::time::timeout(PATIENCE, node.client().view_when(on_ring)).await.unwrap();
        }
        let (shared, theirs) = (a.shared(), b.name().clone());
        let key = (0..).map(|number| Key::new(format!("k{number}")).unwrap());
        let key = { key }.find(|key| shared.lookup.leader(key).as_ref() == Some(&theirs)).unwrap();
        let ring = shared.lookup.view.load().ring().fingerprint();
        let wanted = Wanted { hops: 0, ..Wanted::for_request(&key, 20_000) };
        assert_eq!(ensure(shared, &wanted).await, Err(Rejection::Elsewhere { ring }));
        let request = |hops| calls::Ensure { key: key.clone(), patience_ms: 10_000, hops, ring };
        let to_a = b.shared().peers.peer(a.name()).await.unwrap();
        let refused = to_a.call(request(0), PATIENCE).await.unwrap_err();
        let elsewhere = Rejection::Elsewhere { ring };
        assert!(matches!(refused, CallError::Refused(refusal) if refusal == elsewhere), "also over the wire");
        assert_eq!(to_a.call(request(1), PATIENCE).await.unwrap(), Ensured::Ready(vec![theirs]));
    }
}
