//! The state of the cluster in numbers, and what it lacks.

use std::time::Duration;

use futures::StreamExt;

use super::{
    Client,
    reports::{MemberStatus, Shortage, Status},
};
use crate::{
    core::{
        balancer::Short,
        membership::{MassFailure, Member, MemberState},
    },
    key::{Key, NodeName},
    runtime::ports::updater::Trouble,
};

/// Keys with too few replicas that `status` names.
const SHORTAGES_SHOWN: usize = 5;
/// Keys with too few replicas about which this node asks other nodes.
const SHORTAGES_EXPLAINED: usize = 16;
/// Nodes that this node asks at once why a key has too few replicas.
const ASKED_AT_ONCE: usize = 8;

impl Client {
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

    /// What this node waits for before it is part of its cluster, in words. Empty once it has been
    /// part of it.
    pub(crate) fn waits_to_join(&self) -> Option<String> {
        (!*self.shared.lifecycle.joined().borrow())
            .then(|| self.shared.lifecycle.lacking(&self.shared.lookup.view.load()).join("; and for "))
    }

    /// Whether this node knows all changes that the other nodes are known to have published.
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

    /// The first keys that begin with `prefix` and have too few replicas, in order, at most
    /// `limit`, and why. For some keys this node does not know the reason; it asks the nodes
    /// concerned.
    pub async fn shortages(&self, prefix: &str, limit: usize) -> Vec<Shortage> {
        let mut shortages = self.shortages_seen_here(prefix, limit).await;
        let unexplained = shortages.iter_mut().filter(|shortage| shortage.reason.is_none());
        let asked = unexplained.take(SHORTAGES_EXPLAINED).map(|shortage| async {
            let explained = self.explain(&shortage.key).await.nodes.into_iter();
            shortage.reason = explained
                .filter_map(|insight| Some(format!("{}: {}", insight.node, insight.intention.waits_for?)))
                .next();
        });
        futures::stream::iter(asked).for_each_concurrent(ASKED_AT_ONCE, |asked| asked).await;
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
}
