//! The state of one key as this node sees it, gathered from its snapshots for the plan to judge.

use std::sync::atomic::Ordering;

use crate::{
    core::{balancer::PlanInput, registry::HolderState},
    key::{Key, NodeName},
    runtime::{Names, Shared},
};

/// One key at one moment.
pub(super) struct KeyObservation {
    /// Claims of live nodes.
    pub(super) live: Vec<(NodeName, HolderState)>,
    /// Whether any member, dead or alive, is known to have had it, or it is pinned.
    pub(super) known: bool,
    /// Whether a member that is gone had it by its own word.
    pub(super) dead_have_it: bool,
    live_owners: Names,
    owners_wanted: usize,
    /// How many nodes should keep it by pins and settings, however many there are.
    asked: usize,
    leader: Option<NodeName>,
}

impl KeyObservation {
    pub(super) fn of(shared: &Shared, key: &Key) -> Self {
        let view = shared.lookup.view.load();
        let claims = shared.lookup.holders(key);
        let live: Vec<_> = claims.iter().filter(|(name, _)| view.is_alive(name)).cloned().collect();
        let mut live_owners = shared.lookup.owners(&view, key);
        let owners_wanted = live_owners.len();
        live_owners.retain(|name| view.is_staying(name));
        // A failure on another node does not make a key exist. Neither does a copy of a forgotten
        // key on a dead member.
        let standing = shared.lookup.policy.standing(key);
        let counted = if standing.forgotten { &live } else { &claims };
        let known = standing.pinned.is_some() || counted.iter().any(|(_, state)| state.has_it());
        let dead_have_it = claims.iter().any(|(name, state)| state.has_it() && !view.is_alive(name));
        let asked = shared.lookup.policy.replicas(key);
        Self { known, dead_have_it, live_owners, owners_wanted, asked, leader: shared.lookup.leader(key), live }
    }

    /// Whether a node has it that neither drains nor stops.
    pub(super) fn stays_ready(&self, is_staying: impl Fn(&NodeName) -> bool) -> bool {
        self.live.iter().any(|(name, state)| *state == HolderState::Ready && is_staying(name))
    }

    /// How many nodes should keep it, if fewer live ones have it.
    pub(super) fn shortage(&self) -> Option<usize> {
        // A hot key has more owners than were asked for, and lacks replicas until all of them have it.
        let asked = self.asked.max(self.owners_wanted);
        let have = self.live.iter().filter(|(_, state)| state.has_it()).count();
        (self.known && have < asked).then_some(asked)
    }

    pub(super) fn situation<'a>(&'a self, shared: &'a Shared, backing_off: bool) -> PlanInput<'a> {
        PlanInput {
            me: &shared.context.name,
            owners: &self.live_owners,
            owners_wanted: self.owners_wanted,
            holders: &self.live,
            known: self.known,
            leader: self.leader.as_ref(),
            backing_off,
            scanned: shared.disk.scanned.load(Ordering::Acquire),
            room: shared.disk.watermarks().pressure(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_node_has_that_drains_does_not_stay() {
        let names = ["a", "b"].map(|name| NodeName::new(name).unwrap());
        let stays = |states: [HolderState; 2]| {
            let live = names.iter().cloned().zip(states).collect();
            let sight = KeyObservation {
                live,
                known: true,
                dead_have_it: false,
                live_owners: Names::default(),
                owners_wanted: 1,
                asked: 1,
                leader: None,
            };
            sight.stays_ready(|name| *name == names[1])
        };
        assert!(!stays([HolderState::Ready, HolderState::Fetching]));
        assert!(!stays([HolderState::Ready, HolderState::Failed]));
        assert!(stays([HolderState::Ready, HolderState::Ready]));
    }
}
