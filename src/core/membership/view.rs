//! The cluster as one node sees it at one moment: an immutable snapshot that requests read without
//! asking another node or actor.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use serde::Serialize;

use super::mass_failure::MassFailure;
use crate::{
    core::placement::Ring,
    key::{Key, NodeName},
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
    /// Whether it takes new keys. One whose disk is full does not, but keeps those that it has, also as an owner.
    pub accepting: bool,
    /// Whether it only consumes: it has no provider and never owns a key.
    pub observer: bool,
    /// Whether it serves something else than the node that says so: neither keeps keys of the other.
    pub serves_other: bool,
}

impl Member {
    /// Whether it may own keys, if it is there.
    pub(crate) fn is_eligible(&self) -> bool {
        self.weight > 0 && !self.observer && !self.serves_other
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
    /// Alive and answering, but about to restart: it keeps its place and its keys, and takes no new ones.
    Leaving,
    /// Said that it will be back soon, and is not there now: it keeps its place for a while.
    #[serde(rename = "leaving")]
    Away,
    /// Alive and answering, but giving its keys away.
    Draining,
    /// Said goodbye for good.
    Left,
    /// Not heard of for too long.
    Dead,
}

impl MemberState {
    /// Whether it can be talked to.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Joining | Self::Serving | Self::Leaving | Self::Draining)
    }
}

/// Members and the ring made from them. Two nodes with equal members compute equal owners.
#[derive(Debug)]
pub struct View {
    me: NodeName,
    members: BTreeMap<NodeName, Member>,
    ring: Arc<Ring>,
    /// Whether a member on the ring takes no new keys.
    some_full: bool,
    since: Duration,
    brake: Option<MassFailure>,
    extra_replicas: Arc<BTreeMap<Key, u8>>,
}

impl View {
    /// `since`: when the set of live members that keep keys, the ring or the set of full nodes on
    /// it last changed, on the node's monotonic clock.
    pub(crate) fn new(me: NodeName, members: BTreeMap<NodeName, Member>, ring: Arc<Ring>, since: Duration) -> Self {
        let is_full = |name: &NodeName| members.get(name).is_some_and(|member| !member.accepting);
        let some_full = ring.nodes().iter().any(is_full);
        Self { me, members, ring, some_full, since, brake: None, extra_replicas: Arc::default() }
    }

    /// The same, with the lost keeping their place on the ring.
    pub(crate) fn with_brake(self, brake: Option<MassFailure>) -> Self {
        Self { brake, ..self }
    }

    /// The same view, with this number of replicas more than usual for each of these keys.
    pub(crate) fn with_extras(self, extra_replicas: Arc<BTreeMap<Key, u8>>) -> Self {
        Self { extra_replicas, ..self }
    }

    /// How many replicas more than usual `key` should have, for it is hot.
    pub(crate) fn extra(&self, key: &Key) -> usize {
        if self.extra_replicas.is_empty() { 0 } else { self.extra_replicas.get(key).copied().unwrap_or(0).into() }
    }

    /// Hot keys, with how many replicas more than usual they should have.
    pub(crate) fn extra_replicas(&self) -> &Arc<BTreeMap<Key, u8>> {
        &self.extra_replicas
    }

    /// The mass failure that keeps lost members on the ring, if there is one.
    pub(crate) fn brake(&self) -> Option<MassFailure> {
        self.brake
    }

    /// When the set of live members, the ring or the set of full nodes on it last changed. A node
    /// that is about to move data on account of the ring waits until that is a few rounds of gossip
    /// ago: nodes discover members one by one, and plans made on half of them are undone a moment
    /// later.
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

    /// Whether that node is alive and not on its way out.
    pub(crate) fn is_staying(&self, name: &NodeName) -> bool {
        let stays = |state| matches!(state, MemberState::Joining | MemberState::Serving);
        self.member(name).is_some_and(|member| stays(member.state))
    }

    /// The ring: members that keep keys, including those that are full, and those that are about to restart, or died less
    /// than the repair delay ago or with too many others.
    #[must_use]
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// The nodes that should keep `key`, best first: the first `replicas` distinct ones clockwise, full ones passed over
    /// unless they have the key, which `has` tells. While no member is full, this is the ring's order, `has` is not asked, and
    /// nothing is allocated.
    pub fn owners<'a>(
        &'a self,
        key: &Key,
        replicas: usize,
        has: impl Fn(&NodeName) -> bool + 'a,
    ) -> impl Iterator<Item = &'a NodeName> + 'a {
        self.eligible(key, has).take(replicas)
    }

    /// Whether a member is joining that will then have a place on the ring.
    pub(crate) fn is_anybody_arriving(&self) -> bool {
        let on_ring = |name: &NodeName| self.ring.nodes().binary_search(name).is_ok();
        let mut joining = self.members().filter(|member| member.state == MemberState::Joining);
        joining.any(|member| member.is_eligible() && !on_ring(&member.name))
    }

    /// As [`View::owners`], of the members that are alive and not on their way out.
    pub(crate) fn live_owners<'a>(
        &'a self,
        key: &Key,
        replicas: usize,
        has: impl Fn(&NodeName) -> bool + 'a,
    ) -> impl Iterator<Item = &'a NodeName> + 'a {
        self.eligible(key, has).filter(|name| self.is_staying(name)).take(replicas)
    }

    /// Whether this member takes no new keys.
    pub(crate) fn is_full(&self, name: &NodeName) -> bool {
        self.member(name).is_some_and(|member| !member.accepting)
    }

    /// Live members on the ring that take new keys.
    pub(crate) fn accepting(&self) -> impl Iterator<Item = &NodeName> {
        self.ring.nodes().iter().filter(|name| self.is_staying(name) && !self.is_full(name))
    }

    /// Whether no member on the ring takes new keys by its last word, those included that are away or died lately.
    pub(crate) fn are_all_full(&self) -> bool {
        self.ring.nodes().iter().all(|name| self.is_full(name))
    }

    fn eligible<'a>(
        &'a self,
        key: &Key,
        has: impl Fn(&NodeName) -> bool + 'a,
    ) -> impl Iterator<Item = &'a NodeName> + 'a {
        self.ring.walk(key).filter(move |name| !self.some_full || !self.is_full(name) || has(name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::core::placement::RingOptions;

    fn name(number: usize) -> NodeName {
        NodeName::new(format!("n{number}")).unwrap()
    }

    fn key(number: usize) -> Key {
        Key::new(format!("key/{number}")).unwrap()
    }

    /// So many live members on the ring; these are full.
    fn view(members: usize, full: &BTreeSet<usize>) -> View {
        let member = |number| Member {
            name: name(number),
            incarnation: 1,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            http: None,
            state: MemberState::Serving,
            weight: 100,
            accepting: !full.contains(&number),
            observer: false,
            serves_other: false,
        };
        let members: BTreeMap<NodeName, Member> = (0..members).map(|number| (name(number), member(number))).collect();
        let options = RingOptions { virtual_nodes: 8, depth: 4 };
        let ring = Ring::build(members.keys().map(|name| (name.clone(), 100)), options);
        View::new(name(0), members, Arc::new(ring), Duration::ZERO)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn full_nodes_stay_owners_of_what_they_have_and_of_nothing_else(
            members in 1..12usize,
            full in proptest::collection::btree_set(0..12usize, 0..12),
            holders in proptest::collection::btree_set(0..12usize, 0..4),
            replicas in 1..4usize,
        ) {
            let view = view(members, &full);
            let holders: BTreeSet<NodeName> = holders.into_iter().map(name).collect();
            let may: Vec<NodeName> =
                (0..members).filter(|number| !full.contains(number) || holders.contains(&name(*number))).map(name).collect();
            for number in 0..20 {
                let owners: Vec<&NodeName> = view.owners(&key(number), replicas, |name| holders.contains(name)).collect();
                prop_assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), replicas.min(may.len()));
                prop_assert!(owners.iter().all(|owner| may.contains(owner)));
                // The owners skip no node that could keep the key.
                let order: Vec<&NodeName> = view.ring().walk(&key(number)).filter(|name| may.contains(name)).collect();
                prop_assert_eq!(&order[..owners.len()], &owners[..]);
            }
        }

        /// One that is away for a moment has room when it is back.
        #[test]
        fn all_are_full_only_if_those_are_too_that_lately_died(
            members in 1..6usize,
            full in proptest::collection::btree_set(0..6usize, 0..6),
            dead in 0..6usize,
        ) {
            let mut view = view(members, &full);
            if let Some(member) = view.members.get_mut(&name(dead)) {
                member.state = MemberState::Dead;
            }
            prop_assert_eq!(view.are_all_full(), (0..members).all(|number| full.contains(&number)));
        }

        #[test]
        fn that_a_node_fills_up_moves_nothing_that_it_has(members in 2..12usize, fills in 0..12usize, replicas in 1..4usize) {
            let (before, after) = (view(members, &BTreeSet::new()), view(members, &[fills].into()));
            for number in 0..20 {
                let old: Vec<&NodeName> = before.owners(&key(number), replicas, |_| false).collect();
                let new: Vec<&NodeName> = after.owners(&key(number), replicas, |name| old.contains(&name)).collect();
                prop_assert_eq!(&old, &new);
                let without: Vec<&NodeName> = after.owners(&key(number), replicas, |_| false).collect();
                prop_assert!(!without.contains(&&name(fills)));
            }
        }
    }
}
