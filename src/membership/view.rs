//! The cluster as one node sees it at one moment: an immutable snapshot that requests read without asking anybody.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use serde::Serialize;

use super::brake::Brake;
use crate::{
    key::{Key, NodeName},
    placement::Ring,
};

/// What is known of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Which start of that name this is.
    pub incarnation: u64,
    /// Where its QUIC endpoint is.
    pub address: SocketAddr,
    /// Where its HTTP gateway is, if it has one.
    pub http: Option<String>,
    /// Its state.
    pub state: MemberState,
    /// Its share of the keys; 100 is usual.
    pub weight: u32,
    /// Whether it takes new keys.
    pub accepting: bool,
    /// Whether it only consumes: it has no provider and never owns a key.
    pub observer: bool,
}

impl Member {
    /// Whether it may own keys, if it is there.
    pub(crate) fn is_eligible(&self) -> bool {
        self.accepting && self.weight > 0 && !self.observer
    }
}

/// The state of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MemberState {
    /// Alive, but still learning what the others hold.
    Joining,
    /// Alive and answering requests.
    Serving,
    /// Alive and answering, but giving its keys away.
    Draining,
    /// Said goodbye.
    Left,
    /// Not heard of for too long.
    Dead,
}

impl MemberState {
    /// Whether it can be talked to.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Joining | Self::Serving | Self::Draining)
    }
}

/// Members and the ring made from them. Two nodes with equal members compute equal owners.
#[derive(Debug)]
pub struct View {
    me: NodeName,
    members: BTreeMap<NodeName, Member>,
    ring: Arc<Ring>,
    since: Duration,
    brake: Option<Brake>,
}

impl View {
    /// `since`: when the set of live members or the ring last changed, on the node's monotonic clock.
    pub(crate) fn new(me: NodeName, members: BTreeMap<NodeName, Member>, ring: Arc<Ring>, since: Duration) -> Self {
        Self { me, members, ring, since, brake: None }
    }

    /// The same, with the lost keeping their place on the ring.
    pub(crate) fn with_brake(self, brake: Option<Brake>) -> Self {
        Self { brake, ..self }
    }

    /// Whether so many members were lost at once that they keep their place on the ring.
    pub(crate) fn brake(&self) -> Option<Brake> {
        self.brake
    }

    /// When the set of live members or the ring last changed. Whoever is about to move data on account of the ring waits
    /// until that is a few rounds of gossip ago: members are discovered one by one, and plans made on half of them are
    /// undone a moment later.
    pub(crate) fn since(&self) -> Duration {
        self.since
    }

    /// The node whose view this is.
    #[must_use]
    pub fn me(&self) -> &NodeName {
        &self.me
    }

    /// All members that are known, dead ones too, by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// The member of that name.
    #[must_use]
    pub fn member(&self, name: &NodeName) -> Option<&Member> {
        self.members.get(name)
    }

    /// Members that are alive, this node among them.
    pub fn alive(&self) -> impl Iterator<Item = &Member> {
        self.members().filter(|member| member.state.is_alive())
    }

    /// Whether that node is alive.
    #[must_use]
    pub fn is_alive(&self, name: &NodeName) -> bool {
        self.member(name).is_some_and(|member| member.state.is_alive())
    }

    /// The ring: members that take keys, including those that died less than the repair delay ago
    /// or with too many others.
    #[must_use]
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// The nodes that should keep `key`: the first `replicas` distinct ones clockwise.
    pub fn owners(&self, key: &Key, replicas: usize) -> impl Iterator<Item = &NodeName> {
        self.ring.owners(key, replicas)
    }

    /// Whether a member is joining that will then have a place on the ring.
    pub(crate) fn is_anybody_arriving(&self) -> bool {
        let on_ring = |name: &NodeName| self.ring.nodes().binary_search(name).is_ok();
        let mut joining = self.members().filter(|member| member.state == MemberState::Joining);
        joining.any(|member| member.is_eligible() && !on_ring(&member.name))
    }

    /// Live members in the order of preference for `key`, as far as preference lists go.
    pub(crate) fn live_preference(&self, key: &Key) -> impl Iterator<Item = &NodeName> {
        self.ring.preference(key).filter(|name| self.is_alive(name))
    }
}
