//! Asking the cluster: who is in it, who holds what, and requests for data.
//!
//! A client answers all reads from this process's own memory, also when the process is cut off from
//! all other nodes.

mod reports;
mod status;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;

pub use self::reports::{DrainError, ForecastError, Holding, Location, MemberStatus, RemovedMember, Shortage, Status};
use crate::{
    config::REPLICAS_MAX,
    core::{
        catalog::{self, Intent, IntentAck, IntentError, Pin},
        membership::{Member, MemberState, RemoveError, View},
        placement::{Change, Forecast, Forecaster, WEIGHT_SHARE},
        registry::HolderState,
    },
    key::{Key, KeyError, NodeName},
    net::wire::calls,
    operations::{
        drain::{Drained, drain},
        explain::{Explanation, explain, size},
        sole_copies::keys_only_with,
        spread,
        update::{UpdatedReplica, update},
    },
    route_error::RouteError,
    runtime::{Names, Shared},
    transport::{KeyTransport, PathTransport},
};

/// Keys that a full listing asks for in one call.
const PAGE_KEYS: usize = 4096;
/// Sizes of keys that a client asks for at once, and how long in all. Each size may cost a run of
/// git on the node that has the key.
const SIZES_AT_ONCE: usize = 8;
const SIZES_PATIENCE: Duration = Duration::from_secs(5);
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);

/// A few node names, inline.
pub type Nodes = Names;

/// A handle on the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// The observer that this client is, if it joined on its own.
    observer: Option<Arc<Box<dyn Observer>>>,
}

/// The node that a client is, if it joined on its own.
#[async_trait]
pub(crate) trait Observer: Send + Sync {
    /// Ends the observer in good order.
    async fn leave(self: Box<Self>);
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, observer: None }
    }

    /// A client of the observer that it joined as, which ends when `observer` is dropped.
    pub(crate) fn of_observer(shared: Arc<Shared>, observer: Box<dyn Observer>) -> Self {
        Self { shared, observer: Some(Arc::new(observer)) }
    }

    /// Leaves the cluster, if this client joined on its own and is its last clone.
    pub async fn leave(self) {
        if let Some(observer) = self.observer.and_then(Arc::into_inner) {
            observer.leave().await;
        }
    }

    /// The members and the ring, as of now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.shared.lookup.view.snapshot()
    }

    /// Waits until the view satisfies `condition`, and returns it. Cancel safe.
    pub async fn view_when(&self, condition: impl Fn(&View) -> bool) -> Arc<View> {
        self.shared.lookup.view.wait_for(condition).await
    }

    /// All known members by name, the dead included. Members that are gone or leaving accept
    /// nothing; the [view](Client::view) keeps their last report, by which they hold their place.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let view = self.shared.lookup.view.load();
        let takes_keys = |member: &Member| member.accepting && view.is_staying(&member.name);
        view.members().map(|member| Member { accepting: takes_keys(member), ..member.clone() }).collect()
    }

    /// Live members that hold `key` ready, in no particular order. Local, lock-free, and without allocation for up to
    /// four of them.
    #[must_use]
    pub fn nodes_for_key(&self, key: &Key) -> Nodes {
        self.shared.lookup.ready_holders(key)
    }

    /// The keys that `node` holds ready, in order. Walks over all known keys.
    pub async fn keys_for_node(&self, node: &NodeName) -> Vec<Key> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.keys("", after, PAGE_KEYS).await;
            let last = page.last().cloned();
            let full = page.len() == PAGE_KEYS;
            found.extend(
                page.into_iter().filter(|key| self.shared.lookup.index.state(key, node) == Some(HolderState::Ready)),
            );
            if !full {
                return found;
            }
            after = last;
        }
    }

    /// At most `limit` known keys that begin with `prefix`, in order, beginning after `after`.
    pub async fn keys(&self, prefix: &str, after: Option<Key>, limit: usize) -> Vec<Key> {
        self.shared.ports.registry.keys(after, prefix, limit).await.unwrap_or_default()
    }

    /// The nodes that hold `key` and the nodes that should.
    #[must_use]
    pub fn locate(&self, key: &Key) -> Location {
        let owners = self.shared.lookup.owners(&self.shared.lookup.view.load(), key).into_vec();
        let mut holders: Vec<Holding> = self
            .shared
            .lookup
            .live_holders(key)
            .into_iter()
            .map(|(node, state)| Holding { node, state: state.into() })
            .collect();
        holders.sort_by(|a, b| a.node.cmp(&b.node));
        Location { key: key.clone(), owners, holders, pinned: self.shared.lookup.policy.pinned(key).is_some() }
    }

    /// The nodes that hold `key` and the nodes that should, why, and what is about to happen to the
    /// key. The client asks the nodes concerned, for a few seconds at most.
    ///
    /// Cancel safe.
    pub async fn explain(&self, key: &Key) -> Explanation {
        explain(&self.shared, key).await
    }

    /// Takes a member that is gone for good off the list of all nodes, with what they know of its
    /// keys. When this returns, the member is off this node's list; the other nodes hear of it
    /// within seconds. A member that is started again joins as any other.
    ///
    /// After cancellation the member may be on the list or off it.
    ///
    /// # Errors
    /// See [`RemoveError`].
    pub async fn remove_member(&self, name: &NodeName) -> Result<RemovedMember, RemoveError> {
        let known = self.shared.lookup.view.load().member(name).map(|member| member.state.is_alive());
        match known {
            None => return Err(RemoveError::Unknown(name.clone())),
            Some(true) => return Err(RemoveError::Alive(name.clone())),
            Some(false) => {}
        }
        let sole = keys_only_with(&self.shared, &[name.clone()].into()).await.ok_or(RemoveError::Stopping)?;
        self.shared.ports.membership.remove(name.clone()).await.map_err(|_| RemoveError::Stopping)??;
        Ok(RemovedMember { node: name.clone(), only_there: sole.get(name).copied().unwrap_or(0) })
    }

    /// Brings every replica of `key` up to date: one holder asks the origin, the others copy from
    /// it. If no node holds the key, the first owner fetches it. Returns what each node said.
    ///
    /// Cancelling stops the waiting, not the updates.
    ///
    /// # Errors
    /// The key could not be fetched, or not by the node that asks the origin.
    pub async fn update(&self, key: &Key) -> Result<Vec<UpdatedReplica>, RouteError> {
        update(&self.shared, key).await
    }

    /// The key of the repository that a forge calls by these URLs or this path; see
    /// [`Provider::key_of_repository`]. `None` for an observer.
    ///
    /// [`Provider::key_of_repository`]: crate::provider::Provider::key_of_repository
    #[must_use]
    pub fn key_of_repository(&self, urls: &[&str], path: Option<&str>) -> Option<Key> {
        self.shared.context.provider.as_ref()?.key_of_repository(urls, path)
    }

    /// Keeps `key` on `replicas` nodes from now on (`None`: on as many as the settings say), though
    /// no client asks for it. For example, `Some(3)` keeps it on three nodes. A key with a `*` (any
    /// run of characters, slashes included) or a `?` (any single one) is a pattern: it applies to
    /// the keys that match it and that a client has asked for.
    ///
    /// Returns when the intent is on the disk of this node and of all members that this node can
    /// reach now. The result names them. After cancellation the intent may be in force or not.
    ///
    /// # Errors
    /// See [`IntentError`].
    pub async fn pin(&self, key: &Key, replicas: Option<usize>) -> Result<IntentAck, IntentError> {
        let replicas = replicas.unwrap_or_else(|| self.shared.lookup.policy.configured(key));
        let valid = u8::try_from(replicas).ok().filter(|_| (1..=REPLICAS_MAX).contains(&replicas));
        let replicas = valid.ok_or(IntentError::Replicas(replicas))?;
        if let Some(provider) = &self.shared.context.provider {
            let may = if catalog::is_pattern(key) { provider.may_fetch_some(key) } else { provider.may_fetch(key) };
            may.map_err(|reason| IntentError::Refused { key: key.clone(), reason })?;
        }
        spread::write(&self.shared, key.clone(), Intent::Pin { replicas }).await
    }

    /// Keeps `key` like any unpinned key from now on. Patterns that match it still apply. See
    /// [`Client::pin`].
    ///
    /// # Errors
    /// See [`IntentError`].
    pub async fn unpin(&self, key: &Key) -> Result<IntentAck, IntentError> {
        spread::write(&self.shared, key.clone(), Intent::Unpin).await
    }

    /// Drops every copy of `key` and what nodes know of it, and unpins it. A member that is away
    /// drops its copy when it returns. A client that asks for the key afterwards makes a node fetch
    /// it anew. See [`Client::pin`] for when this returns; copies go a moment later.
    ///
    /// # Errors
    /// See [`IntentError`].
    pub async fn forget(&self, key: &Key) -> Result<IntentAck, IntentError> {
        if catalog::is_pattern(key) {
            return Err(IntentError::Pattern(key.clone()));
        }
        spread::write(&self.shared, key.clone(), Intent::Forget).await
    }

    /// Takes `node` out of service: the node takes no more keys, hands over the keys that only it
    /// holds, for at most `patience` (`None`: as long as the settings of this node say), and
    /// leaves. If it is the last live holder of a key, it does not leave unless `force` says so,
    /// and the result names the keys. The node continues to answer until it is stopped, and returns
    /// to service when it is started again.
    ///
    /// Cancelling leaves it draining.
    ///
    /// # Errors
    /// See [`DrainError`].
    pub async fn drain(&self, node: &NodeName, force: bool, patience: Option<Duration>) -> Result<Drained, DrainError> {
        let patience = patience.unwrap_or(self.shared.context.config.drain_timeout);
        if *node == self.shared.context.name {
            return Ok(drain(&self.shared, force, patience).await);
        }
        let unknown = || DrainError::NotAlive(node.clone());
        let state = self.shared.lookup.view.load().member(node).map(|member| member.state).ok_or_else(unknown)?;
        if state == MemberState::Left {
            return Ok(Drained { node: node.clone(), left: true, remaining: 0, keys: Vec::new() });
        }
        state.is_alive().then_some(()).ok_or_else(unknown)?;
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let failed = |reason: String| DrainError::Unreachable { node: node.clone(), reason };
        let asked = async {
            self.shared.peers.peer(node).await?.call(calls::Drain { force, patience_ms }, patience + SYNC_TIMEOUT).await
        };
        let calls::Drained { left, remaining, keys } = asked.await.map_err(|error| failed(error.to_string()))?;
        Ok(Drained { node: node.clone(), left, remaining, keys })
    }

    /// What would move if the members changed in this way, by the ring alone: the forecast ignores
    /// full members and hot keys. Nothing is moved. Walks over all known keys, in parts, and asks
    /// holders for the sizes of some that would move, to estimate the bytes.
    ///
    /// # Errors
    /// A member that owns no keys is to go.
    pub async fn forecast(&self, change: &Change) -> Result<Forecast, ForecastError> {
        let view = self.shared.lookup.view.snapshot();
        let on_ring = |name: &NodeName| view.ring().nodes().binary_search(name).is_ok();
        if let Some(stranger) = change.without.iter().find(|name| !on_ring(name)) {
            return Err(ForecastError::NoOwner(stranger.clone()));
        }
        let weight = |name: &NodeName| view.member(name).map_or(WEIGHT_SHARE, |member| member.weight);
        let members = view.ring().nodes().iter().map(|name| (name.clone(), weight(name)));
        let mut forecaster = Forecaster::new(view.ring().clone(), members, change);
        let mut after = None;
        loop {
            let page = self.keys("", after, PAGE_KEYS).await;
            page.iter().for_each(|key| forecaster.add(key, self.shared.lookup.policy.replicas(key)));
            after = page.last().cloned();
            if page.len() < PAGE_KEYS {
                let sizes = self.sizes(forecaster.sample().cloned().collect()).await;
                return Ok(forecaster.finish(sizes));
            }
        }
    }

    /// How many bytes some of these keys take, each where it is held. Covers as many keys as time
    /// permits.
    async fn sizes(&self, keys: Vec<Key>) -> Vec<u64> {
        let sizes = futures::stream::iter(keys).map(|key| {
            let shared = self.shared.clone();
            async move { size(&shared, &key).await }
        });
        let in_time = sizes.buffer_unordered(SIZES_AT_ONCE).take_until(Box::pin(tokio::time::sleep(SIZES_PATIENCE)));
        in_time.filter_map(std::future::ready).collect().await
    }

    /// Whether the catalog has a pin of exactly this key, which is not a pattern.
    pub(crate) fn has_pin(&self, key: &Key) -> bool {
        self.shared.lookup.policy.standing(key).pinned.is_some()
    }

    /// All pinned keys and patterns, in order.
    pub async fn pins(&self) -> Vec<Pin> {
        self.shared.ports.catalog.pins().await.unwrap_or_default()
    }

    /// The key that the path of a request belongs to, as the provider says; without a provider, the
    /// path itself. Programs should pass the keys that people type through this: with git,
    /// `/org/repo.git/` is the key `org/repo`.
    ///
    /// # Errors
    /// The path names no key.
    pub fn key_of(&self, path: &str) -> Result<Key, KeyError> {
        self.transport().key_of(path)
    }

    /// A transport for requests about `key`.
    #[must_use]
    pub fn transport_for_key(&self, key: Key) -> KeyTransport {
        KeyTransport::new(self.shared.clone(), key)
    }

    /// A transport that takes the key from each request's path.
    #[must_use]
    pub fn transport(&self) -> PathTransport {
        PathTransport::new(self.shared.clone())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("node", &self.shared.context.name).finish_non_exhaustive()
    }
}
