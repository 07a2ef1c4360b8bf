//! Why a key is where it is: the owners and the reasons for them, and what each node that has to do with the key says for
//! itself.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use serde::{Deserialize, Serialize};

use crate::{
    core::{balancer::PlannedAction, membership::MemberState, registry::HoldingState},
    key::{Key, NodeName},
    net::{
        CallError,
        wire::{
            calls::Explain,
            reports::{Holding, KeyReport},
        },
    },
    provider::Description,
    runtime::Shared,
};

/// How long other nodes have to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a provider has to describe a key: the rest of the answer should still be in time.
const DESCRIBE_PATIENCE: Duration = Duration::from_secs(2);

/// Where a key is, where it should be, why, and what is about to happen to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The key.
    pub key: Key,
    /// How many nodes should keep it.
    pub replicas: usize,
    /// The rule that says so: `pinned`, `prefix` or `default`.
    pub replicas_from: &'static str,
    /// How many of them there are only because it is hot: it is asked for very often.
    pub extra: usize,
    /// The walk around the ring, as this node sees it, until there are enough owners.
    pub places: Vec<RingStep>,
    /// Reports of the owners, of other nodes that have to do with the key, and of the node that was
    /// asked, by name.
    pub nodes: Vec<NodeReport>,
    /// Live nodes that could not be asked.
    pub silent: Vec<Unanswered>,
}

/// A node on the key's walk around the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RingStep {
    /// The node.
    pub node: NodeName,
    /// Whether it is an owner, or passed over.
    pub owner: bool,
    /// Why.
    pub why: String,
}

/// What one node says about itself and a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeReport {
    /// The node.
    pub node: NodeName,
    /// What it claims.
    pub state: Option<HoldingState>,
    /// What is on its disk, if it has the key and its provider tells.
    pub data: Option<Description>,
    /// Milliseconds until it looks whether the origin has something new, if a policy says that it does.
    pub refresh_in_ms: Option<u64>,
    /// What it is about to do.
    pub intention: PlannedAction,
    /// The ring that this follows from; nodes with different ones know of different members.
    pub ring: u64,
}

impl From<KeyReport> for NodeReport {
    fn from(KeyReport { node, state, data, refresh_in_ms, intention, ring }: KeyReport) -> Self {
        let state = state.map(|state| match state {
            Holding::Fetching => HoldingState::Fetching,
            Holding::Ready => HoldingState::Ready,
            Holding::Failed => HoldingState::Failed,
        });
        Self { node, state, data: data.map(Into::into), refresh_in_ms, intention: intention.into(), ring }
    }
}

impl From<NodeReport> for KeyReport {
    fn from(NodeReport { node, state, data, refresh_in_ms, intention, ring }: NodeReport) -> Self {
        let state = state.map(|state| match state {
            HoldingState::Fetching => Holding::Fetching,
            HoldingState::Ready => Holding::Ready,
            HoldingState::Failed => Holding::Failed,
        });
        Self { node, state, data: data.map(Into::into), refresh_in_ms, intention: intention.into(), ring }
    }
}

/// A node that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unanswered {
    /// The node.
    pub node: NodeName,
    /// Why not.
    pub reason: String,
}

/// Asks all nodes that have to do with `key`. Cancel safe.
pub(crate) async fn explain(shared: &Arc<Shared>, key: &Key) -> Explanation {
    let places = places(shared, key);
    let view = shared.lookup.view.snapshot();
    let (replicas, usual) = (shared.lookup.replicas(&view, key), shared.lookup.policy.replicas(key));
    let mut concerned: Vec<NodeName> = places.iter().map(|place| place.node.clone()).collect();
    concerned.extend(shared.lookup.live_holders(key).into_iter().map(|(name, _)| name));
    concerned.push(shared.context.name.clone());
    concerned.retain(|name| view.is_alive(name) || *name == shared.context.name);
    concerned.sort();
    concerned.dedup();
    let asked = concerned.into_iter().map(|node| async {
        let answer =
            if node == shared.context.name { insight(shared, key).await } else { ask(shared, &node, key).await };
        answer.map_err(|reason| Unanswered { node, reason })
    });
    let (mut nodes, mut silent) = (Vec::new(), Vec::new());
    for answer in futures::future::join_all(asked).await {
        match answer {
            Ok(insight) => nodes.push(insight),
            Err(unknown) => silent.push(unknown),
        }
    }
    let replicas_from = if shared.lookup.policy.pinned(key).is_some() {
        "pinned"
    } else if shared.lookup.policy.has_prefix(key) {
        "prefix"
    } else {
        "default"
    };
    let extra = replicas.saturating_sub(usual);
    Explanation { key: key.clone(), replicas, replicas_from, extra, places, nodes, silent }
}

fn places(shared: &Shared, key: &Key) -> Vec<RingStep> {
    let view = shared.lookup.view.snapshot();
    let (owners, replicas) = (shared.lookup.owners(&view, key), shared.lookup.replicas(&view, key));
    let (mut places, mut met) = (Vec::new(), 0);
    for name in view.ring().walk(key) {
        if met == replicas {
            break;
        }
        let owner = owners.contains(name);
        met += usize::from(owner);
        let why = match view.member(name).map(|member| member.state) {
            _ if !owner => "full: it takes no new keys, and does not have this one",
            Some(MemberState::Dead) if view.brake().is_some() => "dead, with too many others: it keeps its place",
            Some(MemberState::Dead) => "dead, but not for long: it keeps its place until the repair delay is over",
            _ if view.is_full(name) => "next on the ring; full, but it has the key",
            _ => "next on the ring",
        };
        places.push(RingStep { node: name.clone(), owner, why: why.to_owned() });
    }
    places
}

async fn ask(shared: &Arc<Shared>, node: &NodeName, key: &Key) -> Result<NodeReport, String> {
    let asked = async { shared.peers.peer(node).await?.call(Explain { key: key.clone() }, PATIENCE).await };
    asked.await.map(|report| NodeReport::from(*report)).map_err(|error: CallError| error.to_string())
}

/// How many bytes `key` takes where it is, if a node that has it tells.
pub(crate) async fn size(shared: &Arc<Shared>, key: &Key) -> Option<u64> {
    let holders = shared.lookup.ready_holders(key);
    if holders.contains(&shared.context.name) {
        return describe(shared, key).await?.bytes;
    }
    ask(shared, holders.first()?, key).await.ok()?.data?.bytes
}

/// What this node says of `key`.
///
/// # Errors
/// It is stopping.
pub(crate) async fn insight(shared: &Arc<Shared>, key: &Key) -> Result<NodeReport, String> {
    let intention = shared.ports.balancer.explain(key.clone()).await.map_err(|gone| gone.to_string())?;
    let state = shared.lookup.own_claim(key).map(HoldingState::from);
    let intention =
        if state == Some(HoldingState::Ready) { intention } else { with_trouble(shared, key, intention).await };
    // The refresher does not run if no policy is set.
    let due = shared.ports.refresher.due(key.clone()).await;
    let due = due.ok().flatten().filter(|_| shared.context.config.refresh_policy(key).is_some());
    Ok(NodeReport {
        node: shared.context.name.clone(),
        state,
        data: describe(shared, key).await,
        refresh_in_ms: due.and_then(|due| u64::try_from(due.as_millis()).ok()),
        intention,
        ring: shared.lookup.view.load().ring().fingerprint(),
    })
}

/// `intention`, and why the last attempt to have `key` here failed, if it did.
async fn with_trouble(shared: &Arc<Shared>, key: &Key, mut intention: PlannedAction) -> PlannedAction {
    let asked = shared.ports.updater.troubles(vec![key.clone()]).await;
    let Some(trouble) = asked.ok().and_then(|mut troubles| troubles.pop()?) else { return intention };
    let seconds = shared.context.uptime().saturating_sub(trouble.since).as_secs();
    let why = format!("it has failed for {seconds} s: {}", trouble.reason);
    intention.waits_for = Some(match intention.waits_for {
        Some(waits_for) => format!("{why}; {waits_for}"),
        None => why,
    });
    intention
}

/// What there is of `key` on this machine, if anything and if the provider tells, in time.
pub(crate) async fn describe(shared: &Shared, key: &Key) -> Option<Description> {
    let provider = shared.context.provider.as_ref()?;
    let asked = async {
        // Held while the provider looks, for this node or for another one that asks.
        let _permit = shared.admission.describing.acquire().await.ok()?;
        if !matches!(provider.has(key).await, Ok(true)) {
            return None;
        }
        Some(provider.describe(key).await)
    };
    match tokio::time::timeout(DESCRIBE_PATIENCE, AssertUnwindSafe(asked).catch_unwind()).await {
        Ok(Ok(described)) => match described? {
            Ok(description) => Some(description),
            Err(error) => {
                tracing::debug!(%key, %error, "the data source cannot describe the key");
                None
            }
        },
        Ok(Err(_)) => {
            tracing::error!(%key, "the provider panicked when it was asked to describe the key");
            None
        }
        Err(_) => {
            tracing::warn!(%key, "the data source takes long to describe the key, or has many to describe");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures::{StreamExt, stream::BoxStream};
    use http::{Request, Response};

    use super::*;
    use crate::{
        config::{NodeConfig, Profile},
        net::identity::{ClusterKey, Credentials},
        node::Node,
        provider::{Body, Provider, ProviderError, ServeError, UpdateContext, UpdateError},
    };

    /// Is asked whether it has a key and never says; of one, it fails badly.
    struct Mute;

    #[async_trait]
    impl Provider for Mute {
        async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
            assert_ne!(key.as_str(), "panic");
            std::future::pending().await
        }

        fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
            futures::stream::empty().boxed()
        }

        async fn update(&self, _key: &Key, _context: UpdateContext) -> Result<(), UpdateError> {
            Ok(())
        }

        async fn remove(&self, _key: &Key) -> Result<(), ProviderError> {
            Ok(())
        }

        async fn serve(&self, _key: &Key, _request: Request<Body>) -> Result<Response<Body>, ServeError> {
            Err(ServeError::NotHeld)
        }
    }

    #[tokio::test]
    async fn a_data_source_that_does_not_answer_or_panics_keeps_nobody_waiting_for_an_explanation() {
        let mut config = NodeConfig { replicas: 1, profile: Profile::local(), ..NodeConfig::default() };
        config.listen = "127.0.0.1:0".parse().unwrap();
        let builder = Node::builder(NodeName::new("a").unwrap()).config(config).provider(Arc::new(Mute));
        let node = builder.credentials(Credentials::ClusterKey(ClusterKey::generate())).start().await.unwrap();
        for text in ["mute", "panic"] {
            let key = Key::new(text).unwrap();
            let explained = tokio::time::timeout(4 * PATIENCE, node.client().explain(&key)).await.unwrap();
            assert_eq!(explained.nodes.len() + explained.silent.len(), 1);
        }
    }
}
