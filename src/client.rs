//! Asking the cluster: who is in it, who holds what, and requests for data.
//!
//! All reads are answered from this process's own memory, also when it is cut off from everybody else.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use serde::Serialize;

use crate::{
    config::REPLICAS_MAX,
    core::{
        balancer::Short,
        catalog::{self, Intent, IntentAck, IntentError, Pin},
        membership::{ClockDifference, MassFailure, Member, MemberState, RemoveError, SeedStatus, View},
        placement::{Change, Forecast, Forecaster, WEIGHT_SHARE},
        registry::{HolderState, HoldingState},
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
    provider::Capacity,
    route_error::RouteError,
    runtime::{Names, Shared, ports::updater::Trouble},
    transport::{KeyTransport, PathTransport},
};

/// Keys that are asked for in one go when all are listed.
const PAGE_KEYS: usize = 4096;
/// Sizes of keys that are asked for at once, and how long in all: each may cost a run of git where the key is.
const SIZES_AT_ONCE: usize = 8;
const SIZES_PATIENCE: Duration = Duration::from_secs(5);
/// Keys with too few replicas that `status` names.
const SHORTAGES_SHOWN: usize = 5;
/// Keys with too few replicas about which other nodes are asked.
const SHORTAGES_EXPLAINED: usize = 16;
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
    /// Ends it in good order.
    async fn leave(self: Box<Self>);
}

/// Where a key is and where it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Location {
    /// The key.
    pub key: Key,
    /// Members that should keep it, best first.
    pub owners: Vec<NodeName>,
    /// Live members that have to do with it, by name.
    pub holders: Vec<Holding>,
    /// Whether somebody asked for it to be kept always.
    pub pinned: bool,
}

/// How a node stands to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Holding {
    /// The node.
    pub node: NodeName,
    /// Its state.
    pub state: HoldingState,
}

/// The cluster in numbers, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Who says so.
    pub node: NodeName,
    /// Members that are alive.
    pub members: usize,
    /// Observers that follow this node's view; each follows two members. None where etcd coordinates: there they are members.
    pub observers: usize,
    /// Known keys.
    pub keys: usize,
    /// Known keys with fewer live replicas than pins and settings ask for, also where there are too few members for more.
    pub under_replicated: usize,
    /// The first of them, and why.
    pub lacking: Vec<Shortage>,
    /// Keys that are asked for so often that more nodes than usual should keep them.
    pub hot: usize,
    /// Fetches under way.
    pub fetching: usize,
    /// Replicas that this node has still to restore or to move here.
    pub repairs_waiting: usize,
    /// Those that it is working on.
    pub repairs_running: usize,
    /// Why what was lost is not restored for now, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repairs_paused: Option<String>,
    /// Whether this node has joined, knows all that the others have published, has read its own disk, and has nothing to do
    /// that it could: a lone node can be that while keys lack replicas.
    pub converged: bool,
    /// While the node still reads what is on its disk: how many keys it has found so far. It serves meanwhile, also what it has
    /// not come to yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanning: Option<usize>,
    /// The configured seeds, and why those that do not answer do not.
    pub seeds: Vec<SeedStatus>,
    /// Members whose wall clock is more than a minute from this node's. Not known where etcd coordinates.
    pub clocks_apart: Vec<ClockDifference>,
    /// What this node lacks that only the operator can bring, in words: members that it should have met, or that could keep
    /// what it has too few replicas of.
    pub waiting_for: Vec<String>,
    /// Connections to other members.
    pub connections: usize,
    /// Gossip messages that were sent since the start.
    pub gossip_messages: u64,
    /// Bytes of these.
    pub gossip_bytes: u64,
    /// Bytes of the largest of these; the limit is 65,507.
    pub gossip_largest: u64,
    /// Starts of nodes that gossip tells of: the live members, and those that ended within the last half minute.
    pub gossip_identities: usize,
    /// Whether this node takes no new keys, because its disk is full.
    pub full: bool,
    /// Room on its disk, as last seen, if its data source tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Capacity>,
    /// What keeps the node from taking part fully, if anything does; it serves what it knows of all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A key that has fewer replicas than it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shortage {
    /// The key.
    pub key: Key,
    /// How many nodes should keep it.
    pub replicas: usize,
    /// How many live nodes have it.
    pub ready: usize,
    /// For how many seconds this node has known that it lacks some.
    pub seconds: u64,
    /// Why, as far as is known: what went wrong last, or what is waited for.
    pub reason: Option<String>,
}

/// A member, and how many keys it has ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemberStatus {
    /// The member.
    #[serde(flatten)]
    pub member: Member,
    /// Its ready keys.
    pub keys: usize,
    /// Why a member is still listed that has been dead for longer than `dead_kept`: so many keys are with the dead alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_there: Option<u64>,
}

/// What the removal of a member took along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemovedMember {
    /// The member.
    pub node: NodeName,
    /// How many keys no live member has that it had: they are lost to the cluster, unless their origin has them or the
    /// member returns.
    pub only_there: u64,
}

/// Why a node was not asked to drain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// No live member has this name. Nothing was changed.
    #[error("{0} is not a live member")]
    NotAlive(NodeName),
    /// It gave no answer. It may be draining; ask again.
    #[error("{node} does not answer: {reason}")]
    Unreachable {
        /// The member.
        node: NodeName,
        /// What went wrong.
        reason: String,
    },
}

/// Why it cannot be said what would move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForecastError {
    /// This member owns no keys, or is none; so nothing would move without it.
    #[error("{0} is no member that owns keys")]
    NoOwner(NodeName),
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

    /// All known members by name, the dead included. Those that are gone or on their way out accept nothing; the
    /// [view](Client::view) keeps what they said last, by which they hold their place.
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

    /// Where `key` is and should be.
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

    /// Where `key` is and should be, why, and what is about to happen to it: the nodes concerned are asked, for a few
    /// seconds at most.
    ///
    /// Cancel safe.
    pub async fn explain(&self, key: &Key) -> Explanation {
        explain(&self.shared, key).await
    }

    /// The cluster in numbers.
    pub async fn status(&self) -> Status {
        let summary = self.shared.ports.registry.summarize().await.unwrap_or_default();
        let balance = self.shared.ports.balancer.summarize().await.unwrap_or_default();
        let scanned = self.shared.disk.scanned.load(std::sync::atomic::Ordering::Acquire);
        let (gossip_messages, gossip_bytes, gossip_largest) = self.shared.peers.net.gossip_sent();
        let trouble = self.shared.lifecycle.degraded_reason();
        let joined = *self.shared.lifecycle.joined().borrow();
        let known = summary.caught_up && summary.published && trouble.is_none();
        Status {
            node: self.shared.context.name.clone(),
            members: self.shared.lookup.view.load().alive().count(),
            observers: self.shared.gossip.watchers.count(),
            keys: self.shared.lookup.index.len(),
            under_replicated: balance.under_replicated,
            lacking: self.shortages_seen_here("", SHORTAGES_SHOWN).await,
            hot: self.shared.lookup.view.load().extra_replicas().len(),
            fetching: summary.fetching,
            repairs_waiting: balance.waiting,
            repairs_running: balance.running,
            repairs_paused: self.repairs_paused(),
            seeds: self.shared.lifecycle.seeds.snapshot().to_vec(),
            clocks_apart: self.shared.gossip.clocks.snapshot().to_vec(),
            waiting_for: self.waiting_for(balance.most_asked),
            converged: known && joined && scanned && balance.idle && summary.fetching == 0,
            scanning: (!scanned).then(|| self.shared.disk.scan_found.load(std::sync::atomic::Ordering::Acquire)),
            connections: self.shared.peers.net.connections(),
            gossip_messages,
            gossip_bytes,
            gossip_largest,
            gossip_identities: self.shared.gossip.identities.load(std::sync::atomic::Ordering::Relaxed),
            full: self.shared.context.provider.is_some() && !self.shared.disk.accepts(),
            disk: self.shared.disk.watermarks().capacity(),
            trouble,
        }
    }

    fn repairs_paused(&self) -> Option<String> {
        let MassFailure { lost, members, until } = self.shared.lookup.view.load().brake()?;
        let left = humantime::format_duration(Duration::from_secs(
            until.saturating_sub(self.shared.context.uptime()).as_secs(),
        ));
        Some(format!("{lost} of {members} members were lost at once; waiting for some to return, for at most {left}"))
    }

    /// `most_asked`: how many nodes should keep the key that lacks replicas and should be on most.
    fn waiting_for(&self, most_asked: usize) -> Vec<String> {
        let mut waiting_for = self.shared.lifecycle.lacking(&self.shared.lookup.view.load());
        let keeps = |member: &Member| member.is_eligible();
        if !self.shared.lookup.view.load().alive().any(keeps) {
            let what =
                "a member that keeps keys: each live one is an observer or has weight 0, so nothing can be fetched";
            waiting_for.push(what.to_owned());
        }
        let view = self.shared.lookup.view.load();
        let strangers: Vec<&str> =
            view.alive().filter(|member| member.serves_other).map(|member| member.name.as_str()).collect();
        if !strangers.is_empty() {
            waiting_for.push(format!("an end of members that serve another kind of data: {}", strangers.join(", ")));
        }
        let takers = view.accepting().count();
        let crowded_out = if takers == 0 { self.pins_without_room() } else { 0 };
        if crowded_out > 0 {
            waiting_for.push(format!(
                "room: no node takes new keys, and {crowded_out} pinned key{} on fewer nodes than asked for",
                if crowded_out == 1 { " is" } else { "s are" }
            ));
        }
        if most_asked > takers {
            waiting_for.push(format!(
                "members that take keys: there are keys that {most_asked} nodes should keep, and {takers} that take any"
            ));
        }
        waiting_for
    }

    /// How many pinned keys are on fewer nodes than asked for.
    fn pins_without_room(&self) -> usize {
        let lacks = |key: &&Key| self.nodes_for_key(key).len() < self.shared.lookup.policy.replicas(key);
        self.shared.lookup.policy.pinned_keys().iter().filter(lacks).count()
    }

    /// What this node waits for before it is part of its cluster, in words. Nothing once it has been.
    pub(crate) fn waits_to_join(&self) -> Option<String> {
        (!*self.shared.lifecycle.joined().borrow())
            .then(|| self.shared.lifecycle.lacking(&self.shared.lookup.view.load()).join("; and for "))
    }

    /// Whether this node knows all that the others are known to have published.
    pub(crate) async fn is_caught_up(&self) -> bool {
        self.shared.ports.registry.summarize().await.is_ok_and(|summary| summary.caught_up)
    }

    /// All known members and the number of keys that each has ready.
    pub async fn member_statuses(&self) -> Vec<MemberStatus> {
        let summary = self.shared.ports.registry.summarize().await.unwrap_or_default();
        let count = |name: &NodeName| summary.ready.get(name).copied().unwrap_or(0);
        let irreplaceable = self.shared.gossip.irreplaceable.snapshot();
        let status = |member: Member| MemberStatus {
            keys: count(&member.name),
            only_there: irreplaceable.get(&member.name).copied().filter(|_| member.state == MemberState::Dead),
            member,
        };
        self.members().into_iter().map(status).collect()
    }

    /// Takes a member that is gone for good off the list, everywhere, with what is known of its keys. When this returns, it
    /// is off this node's list; the others hear of it within seconds. A member that is started again joins as any other.
    ///
    /// Cancelling leaves the member on the list or not.
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

    /// Brings every replica of `key` up to date: one holder asks the origin, the others copy from it. If nobody holds
    /// the key, the first owner fetches it. Returns what each node said.
    ///
    /// Cancelling stops the waiting, not the updates.
    ///
    /// # Errors
    /// The key could not be fetched, or not by the node that asks the origin.
    pub async fn update(&self, key: &Key) -> Result<Vec<UpdatedReplica>, RouteError> {
        update(&self.shared, key).await
    }

    /// The key of what a forge calls by these URLs or this path; see [`Provider::key_of_repository`]. `None` for an observer.
    ///
    /// [`Provider::key_of_repository`]: crate::provider::Provider::key_of_repository
    #[must_use]
    pub fn key_of_repository(&self, urls: &[&str], path: Option<&str>) -> Option<Key> {
        self.shared.context.provider.as_ref()?.key_of_repository(urls, path)
    }

    /// Keeps `key` on so many nodes from now on (`None`: on as many as the settings say), though nobody asks for it. A key
    /// with a `*` (any run of characters, slashes included) or a `?` (any single one) is a pattern: it applies to the keys
    /// that match it and that somebody has asked for.
    ///
    /// Returns when the intent is on the disk of this node and of all members that can be reached now; what it returns
    /// says which. Cancelling may leave it in force or not.
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

    /// Keeps `key` as any other from now on. Patterns that match it go on to apply. See [`Client::pin`].
    ///
    /// # Errors
    /// See [`IntentError`].
    pub async fn unpin(&self, key: &Key) -> Result<IntentAck, IntentError> {
        spread::write(&self.shared, key.clone(), Intent::Unpin).await
    }

    /// Drops every copy of `key` and what is known of it, and unpins it. Who is away drops its copy when it returns.
    /// Whoever asks for the key afterwards makes it be fetched anew. See [`Client::pin`] for when this returns; copies go a
    /// moment later.
    ///
    /// # Errors
    /// See [`IntentError`].
    pub async fn forget(&self, key: &Key) -> Result<IntentAck, IntentError> {
        if catalog::is_pattern(key) {
            return Err(IntentError::Pattern(key.clone()));
        }
        spread::write(&self.shared, key.clone(), Intent::Forget).await
    }

    /// Takes `node` out of service: it takes no more keys, hands over what only it holds, for at most `patience` (`None`:
    /// as long as the settings of this node say), and leaves. As the last live holder of a key it does not leave unless
    /// `force` says so, and what is returned names the keys. It goes on answering until it is stopped, and comes back when
    /// it is started again.
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

    /// What would move if the members changed so, by the ring alone: that members are full or keys are hot is left out.
    /// Nothing is moved. Walks over all known keys, in parts, and asks holders
    /// for the sizes of some that would move, to estimate the bytes.
    ///
    /// # Errors
    /// Somebody is to go who owns nothing.
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

    /// How many bytes some of these keys take, each where it is held: of as many as there is time for.
    async fn sizes(&self, keys: Vec<Key>) -> Vec<u64> {
        let sizes = futures::stream::iter(keys).map(|key| {
            let shared = self.shared.clone();
            async move { size(&shared, &key).await }
        });
        let in_time = sizes.buffer_unordered(SIZES_AT_ONCE).take_until(Box::pin(tokio::time::sleep(SIZES_PATIENCE)));
        in_time.filter_map(std::future::ready).collect().await
    }

    /// The first keys that begin with `prefix` and have too few replicas, in order, at most `limit`, and why. Of some whose
    /// reason this node does not know, it asks the nodes concerned.
    pub async fn shortages(&self, prefix: &str, limit: usize) -> Vec<Shortage> {
        let mut shortages = self.shortages_seen_here(prefix, limit).await;
        let unexplained = shortages.iter_mut().filter(|shortage| shortage.reason.is_none());
        let asked = unexplained.take(SHORTAGES_EXPLAINED).map(|shortage| async {
            let explained = self.explain(&shortage.key).await.nodes.into_iter();
            shortage.reason = explained
                .filter_map(|insight| Some(format!("{}: {}", insight.node, insight.intention.waits_for?)))
                .next();
        });
        futures::stream::iter(asked).for_each_concurrent(SIZES_AT_ONCE, |asked| asked).await;
        shortages
    }

    async fn shortages_seen_here(&self, prefix: &str, limit: usize) -> Vec<Shortage> {
        let found = self.shared.ports.balancer.shortages(prefix.to_owned(), limit).await.unwrap_or_default();
        let keys: Vec<Key> = found.iter().map(|(key, _)| key.clone()).collect();
        let troubles = self.shared.ports.updater.troubles(keys).await;
        let troubles = troubles.unwrap_or_default().into_iter().chain(std::iter::repeat(None));
        let (now, takers) = (self.shared.context.uptime(), self.shared.lookup.view.load().accepting().count());
        let shortage = |((key, short), trouble): ((Key, Short), Option<Trouble>)| {
            let (replicas, ready) = (usize::from(short.asked), self.nodes_for_key(&key).len());
            let reason = trouble.map(|trouble| trouble.reason);
            let few = || (takers < replicas).then(|| format!("only {takers} live members take keys"));
            let seconds = now.saturating_sub(short.since).as_secs();
            Shortage { key, replicas, ready, seconds, reason: reason.or_else(few) }
        };
        found.into_iter().zip(troubles).map(shortage).collect()
    }

    /// Whether the catalog has a pin of exactly this key, which is not a pattern.
    pub(crate) fn has_pin(&self, key: &Key) -> bool {
        self.shared.lookup.policy.standing(key).pinned.is_some()
    }

    /// All pinned keys and patterns, in order.
    pub async fn pins(&self) -> Vec<Pin> {
        self.shared.ports.catalog.pins().await.unwrap_or_default()
    }

    /// The key that the path of a request belongs to, as the provider says; without one, the path itself. What programs get
    /// from people should pass through it: with git, `/org/repo.git/` is the key `org/repo`.
    ///
    /// # Errors
    /// It names none.
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
