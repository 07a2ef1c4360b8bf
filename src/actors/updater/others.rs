//! Gives way to other nodes that fetch the same key, so that its origin is asked once.

use std::sync::Arc;

use futures::future::join_all;
use tracing::debug;

use crate::{
    core::{
        registry::HolderState,
        updater::fetch_plan::{Others, WaitedForElder, is_fetched},
    },
    key::Key,
    operations::send::progress_at,
    runtime::Shared,
};

/// Two nodes may each take themselves for the one that asks the origin: while members come and go,
/// while a forget spreads, or when holders find out that they lack a key. Both have said by now
/// that they fetch, so after a moment the younger sees the other and lets it go first. An elder
/// gives way to no younger node, so no two nodes wait for each other.
pub(super) async fn give_way(shared: &Arc<Shared>, key: &Key) -> WaitedForElder {
    if shared.lookup.view.load().alive().count() <= 1 {
        return WaitedForElder::No;
    }
    tokio::time::sleep(shared.context.config.profile.gossip_interval).await;
    if let_others_finish(shared, key, Others::Elders).await { WaitedForElder::Yes } else { WaitedForElder::No }
}

/// Waits while `others` fetch `key` and no node has it: for as long as a client that asked for the
/// key would, and longer while the fetch makes progress. Returns whether it waited.
pub(super) async fn let_others_finish(shared: &Arc<Shared>, key: &Key, others: Others) -> bool {
    let is_fetched = || is_fetched(&shared.lookup.view.load(), &shared.lookup.live_holders(key), others);
    if !is_fetched() {
        return false;
    }
    let ended = async {
        while is_fetched() {
            tokio::time::sleep(shared.context.config.profile.gossip_interval).await;
        }
    };
    tokio::pin!(ended);
    let mut seen = None;
    while tokio::time::timeout(shared.context.config.request_patience, &mut ended).await.is_err() {
        let bytes = progress_elsewhere(shared, key).await;
        if bytes == seen {
            debug!(%key, "another node has been fetching it for long and does not get on; not waiting any more");
            break;
        }
        seen = bytes;
    }
    true
}

/// How many bytes the other nodes that fetch `key` have brought so far, as far as they say. `None` if none does.
async fn progress_elsewhere(shared: &Arc<Shared>, key: &Key) -> Option<u64> {
    let holders = shared.lookup.live_holders(key).into_iter();
    let others = holders.filter(|(name, state)| *state == HolderState::Fetching && *name != shared.context.name);
    let asked = others.map(|(name, _)| async move { progress_at(shared, key, &name).await });
    join_all(asked).await.into_iter().flatten().reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        time::Duration,
    };

    use async_trait::async_trait;
    use futures::{
        StreamExt,
        stream::{self, BoxStream},
    };
    use http::{Request, Response};

    use super::*;
    use crate::{
        config::{NodeConfig, Profile},
        key::NodeName,
        net::{
            identity::{ClusterKey, Credentials},
            wire::Ensured,
        },
        node::Node,
        provider::{Body, Provider, ProviderError, ServeError, UpdateContext, UpdateError, UpdateReason},
    };

    const PATIENCE: Duration = Duration::from_secs(30);

    /// An origin that sends a byte now and then until it is told to end.
    #[derive(Default)]
    struct Origin {
        asks: AtomicUsize,
        sent: AtomicU64,
        ends: AtomicBool,
    }

    struct Slow {
        origin: Arc<Origin>,
        held: AtomicBool,
    }

    #[async_trait]
    impl Provider for Slow {
        async fn has(&self, _key: &Key) -> Result<bool, ProviderError> {
            Ok(self.held.load(Ordering::SeqCst))
        }

        fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
            stream::empty().boxed()
        }

        async fn update(&self, _key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
            if context.peers().is_empty() {
                self.origin.asks.fetch_add(1, Ordering::SeqCst);
                while !self.origin.ends.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    self.origin.sent.fetch_add(1, Ordering::SeqCst);
                    context.note_progress(1);
                }
            }
            self.held.store(true, Ordering::SeqCst);
            Ok(())
        }

        async fn remove(&self, _key: &Key) -> Result<(), ProviderError> {
            Ok(())
        }

        async fn serve(&self, _key: &Key, _request: Request<Body>) -> Result<Response<Body>, ServeError> {
            Err(ServeError::NotHeld)
        }
    }

    async fn eventually(what: &str, condition: impl Fn() -> bool) {
        let holds = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, holds).await.unwrap_or_else(|_| panic!("never happened: {what}"));
    }

    #[tokio::test]
    async fn a_node_asks_no_origin_from_which_another_gets_the_key_however_long_that_takes() {
        let (secret, origin) = (ClusterKey::generate(), Arc::new(Origin::default()));
        let mut config = NodeConfig { replicas: 2, profile: Profile::local(), ..NodeConfig::default() };
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.request_patience = Duration::from_millis(300);
        config.update_timeout = Duration::from_secs(1);
        let mut nodes: Vec<Node> = Vec::new();
        for text in ["a", "b"] {
            config.seeds = nodes.iter().map(|node| node.address().to_string()).collect();
            let provider = Slow { origin: origin.clone(), held: AtomicBool::default() };
            let node = Node::builder(NodeName::new(text).unwrap()).config(config.clone()).provider(Arc::new(provider));
            nodes.push(node.credentials(Credentials::ClusterKey(secret.clone())).start().await.unwrap());
        }
        for node in &nodes {
            let on_ring = |view: &crate::core::membership::View| view.ring().nodes().len() == 2;
            tokio::time::timeout(PATIENCE, node.client().view_when(on_ring)).await.unwrap();
        }
        let key = Key::new("k").unwrap();
        let fetch = |node: &Node| {
            let (shared, key) = (node.shared().clone(), key.clone());
            let (origin, reason) = (crate::core::updater::Origin::Heeding, UpdateReason::Request);
            tokio::spawn(async move { shared.ports.updater.ensure(key, origin, reason).await.unwrap() })
        };
        let first = fetch(&nodes[0]);
        eventually("the other node knows of it", || {
            origin.asks.load(Ordering::SeqCst) == 1
                && nodes[1].shared().lookup.holders(&key).iter().any(|(_, state)| *state == HolderState::Fetching)
        })
        .await;
        let (second, begun) = (fetch(&nodes[1]), origin.sent.load(Ordering::SeqCst));
        // Several times as long as a request waits.
        eventually("much has come", || origin.sent.load(Ordering::SeqCst) > begun + 100).await;
        assert_eq!(origin.asks.load(Ordering::SeqCst), 1);
        origin.ends.store(true, Ordering::SeqCst);
        for fetched in [first, second] {
            let ensured = tokio::time::timeout(PATIENCE, fetched).await.unwrap().unwrap();
            assert!(matches!(ensured, Ensured::Ready(_)), "{ensured:?}");
        }
        assert_eq!(origin.asks.load(Ordering::SeqCst), 1);
        // A node waits as long for the update of a key that it holds.
        origin.ends.store(false, Ordering::SeqCst);
        let begun = origin.sent.load(Ordering::SeqCst);
        let ends = async {
            eventually("much has come", || origin.sent.load(Ordering::SeqCst) > begun + 100).await;
            origin.ends.store(true, Ordering::SeqCst);
        };
        let client = nodes[0].client();
        let (updated, ()) = tokio::join!(client.update(&key), ends);
        assert!(updated.unwrap().iter().all(|replica| replica.error.is_none()));
    }
}
