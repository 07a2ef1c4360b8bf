//! The pure core: given who owns a key and who claims it, what does this node do about it?
//!
//! Rules:
//!
//! 1. An owner that lacks a key fetches it: from a ready peer if there is one; from the origin only
//!    as the leader, and only if no live node has it or is fetching it. So further replicas never
//!    touch the origin.
//! 2. A holder that is not an owner lets go when R owners are ready. It then still asks them (see
//!    `actors/balancer`), because its view may differ from theirs.
//! 3. A node that is neither does nothing.
//! 4. Where disk space is tight, an owner copies only keys with too few replicas, and not keys that
//!    merely belong here. Where there is none, it copies nothing; soon it is not an owner of the
//!    keys that it lacks.

use super::watermarks::DiskPressure;
use crate::{core::registry::HolderState, key::NodeName};

/// What is known of one key at one moment.
#[derive(Debug, Clone)]
pub(crate) struct PlanInput<'a> {
    pub(crate) me: &'a NodeName,
    /// Live owners, best first.
    pub(crate) owners: &'a [NodeName],
    /// Owners that should be: min(R, eligible), the recently dead included.
    pub(crate) owners_wanted: usize,
    /// Claims of live nodes.
    pub(crate) holders: &'a [(NodeName, HolderState)],
    /// Whether any node, dead or alive, is known to have had the key, or it is pinned.
    pub(crate) known: bool,
    /// The node that asks the origin.
    pub(crate) leader: Option<&'a NodeName>,
    /// Whether a failure of this node is recent, so that it should wait.
    pub(crate) backing_off: bool,
    /// Whether this node has read its disk to the end; before, it may just not have found a missing
    /// key yet.
    pub(crate) scanned: bool,
    /// How much disk space this node has.
    pub(crate) room: DiskPressure,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// All is well, or it is not this node's business.
    Nothing,
    /// Copy it from a peer.
    Copy,
    /// Fetch it from the origin.
    Fetch,
    /// Drop it, if the owners vouch.
    Trim,
}

impl PlanInput<'_> {
    fn state_of(&self, name: &NodeName) -> Option<HolderState> {
        self.holders.iter().find(|(holder, _)| holder == name).map(|(_, state)| *state)
    }

    fn has(&self, name: &NodeName) -> bool {
        self.state_of(name).is_some_and(HolderState::has_it)
    }

    /// Live owners that are ready by their own word.
    fn ready_owners(&self) -> usize {
        self.owners.iter().filter(|owner| self.state_of(owner) == Some(HolderState::Ready)).count()
    }

    /// Whether fewer live nodes have it than there are owners, so that a copy would restore a replica. Of what is asked for
    /// beyond the members that could keep it, see `KeyObservation::shortage` in `actors/balancer`.
    pub(crate) fn is_under_replicated(&self) -> bool {
        let have = self.holders.iter().filter(|(name, _)| self.has(name)).count();
        self.known && have < self.owners_wanted
    }

    /// The decision.
    pub(crate) fn action(&self) -> Action {
        if !self.scanned {
            return Action::Nothing;
        }
        let mine = self.state_of(self.me);
        if self.owners.contains(self.me) { self.as_owner(mine) } else { self.as_stranger(mine) }
    }

    fn as_owner(&self, mine: Option<HolderState>) -> Action {
        let lacking = matches!(mine, None | Some(HolderState::Failed));
        if !lacking || !self.known || self.backing_off || self.room == DiskPressure::Full {
            return Action::Nothing;
        }
        let others = || self.holders.iter().filter(|(name, _)| name != self.me).map(|(_, state)| *state);
        if others().any(|state| state == HolderState::Ready) {
            return if self.room == DiskPressure::Low || self.is_under_replicated() {
                Action::Copy
            } else {
                Action::Nothing
            };
        }
        let somebody_will = others().any(|state| matches!(state, HolderState::Fetching | HolderState::Presumed));
        if !somebody_will && self.leader == Some(self.me) { Action::Fetch } else { Action::Nothing }
    }

    fn as_stranger(&self, mine: Option<HolderState>) -> Action {
        let enough = self.owners_wanted > 0 && self.ready_owners() >= self.owners_wanted;
        let here = matches!(mine, Some(HolderState::Ready | HolderState::Failed));
        if here && enough { Action::Trim } else { Action::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn names(text: &str) -> Vec<NodeName> {
        text.split_whitespace().map(name).collect()
    }

    fn holders(text: &str) -> Vec<(NodeName, HolderState)> {
        let state = |text: &str| match text {
            "ready" => HolderState::Ready,
            "fetching" => HolderState::Fetching,
            "failed" => HolderState::Failed,
            _ => HolderState::Presumed,
        };
        text.split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(who, what)| (name(who), state(what)))
            .collect()
    }

    /// What `me` does when `owners` should hold a known key and `held` is claimed. The first owner leads.
    fn action(me: &str, owners: &str, held: &str) -> Action {
        let (me, owners, held) = (name(me), names(owners), holders(held));
        PlanInput {
            me: &me,
            owners: &owners,
            owners_wanted: owners.len(),
            holders: &held,
            known: true,
            leader: owners.first(),
            backing_off: false,
            scanned: true,
            room: DiskPressure::Low,
        }
        .action()
    }

    #[test]
    fn an_owner_copies_what_a_peer_has() {
        assert_eq!(action("b", "a b", "a=ready"), Action::Copy);
        assert_eq!(action("b", "a b", "c=ready"), Action::Copy);
        assert_eq!(action("b", "a b", "a=ready b=ready"), Action::Nothing);
        assert_eq!(action("b", "a b", "a=ready b=fetching"), Action::Nothing);
        assert_eq!(action("b", "a b", "a=ready b=failed"), Action::Copy);
    }

    #[test]
    fn only_the_leader_asks_the_origin_and_only_if_nobody_alive_has_it() {
        assert_eq!(action("a", "a b", ""), Action::Fetch);
        assert_eq!(action("b", "a b", ""), Action::Nothing);
        assert_eq!(action("a", "a b", "b=fetching"), Action::Nothing);
        assert_eq!(action("a", "a b", "c=presumed"), Action::Nothing);
        assert_eq!(action("a", "a b", "c=failed"), Action::Fetch);
    }

    #[test]
    fn a_surplus_replica_goes_only_when_every_owner_is_ready() {
        assert_eq!(action("c", "a b", "a=ready b=ready c=ready"), Action::Trim);
        assert_eq!(action("c", "a b", "a=ready b=presumed c=ready"), Action::Nothing);
        assert_eq!(action("c", "a b", "a=ready c=ready"), Action::Nothing);
        assert_eq!(action("c", "", "c=ready"), Action::Nothing);
    }

    #[test]
    fn where_room_is_tight_only_what_has_too_few_replicas_is_copied_and_where_there_is_none_nothing() {
        let (me, owners) = (name("b"), names("a b"));
        let act = |held: &[(NodeName, HolderState)], room| {
            PlanInput {
                me: &me,
                owners: &owners,
                owners_wanted: 2,
                holders: held,
                known: true,
                leader: owners.first(),
                backing_off: false,
                scanned: true,
                room,
            }
            .action()
        };
        let (few, enough) = (holders("a=ready"), holders("a=ready c=ready"));
        use Action::{Copy, Nothing};
        assert_eq!(
            [DiskPressure::Low, DiskPressure::High, DiskPressure::Full].map(|room| act(&few, room)),
            [Copy, Copy, Nothing]
        );
        assert_eq!(
            [DiskPressure::Low, DiskPressure::High, DiskPressure::Full].map(|room| act(&enough, room)),
            [Copy, Nothing, Nothing]
        );
    }

    #[test]
    fn before_the_first_scan_ended_nothing_is_fetched_and_nothing_dropped() {
        let (me, owners) = (name("a"), names("a b"));
        let held = holders("b=ready");
        let situation = PlanInput {
            me: &me,
            owners: &owners,
            owners_wanted: 2,
            holders: &held,
            known: true,
            leader: Some(&me),
            backing_off: false,
            scanned: false,
            room: DiskPressure::Low,
        };
        assert_eq!(situation.action(), Action::Nothing);
        assert!(situation.is_under_replicated());
        assert_eq!(PlanInput { scanned: true, backing_off: true, ..situation }.action(), Action::Nothing);
    }

    fn any_state() -> impl Strategy<Value = Option<HolderState>> {
        prop_oneof![
            Just(None),
            Just(Some(HolderState::Fetching)),
            Just(Some(HolderState::Ready)),
            Just(Some(HolderState::Failed)),
            Just(Some(HolderState::Presumed)),
        ]
    }

    proptest! {
        /// If all nodes act at once on one view, a key keeps its R ready owners, and at most one asks the origin.
        #[test]
        fn nodes_that_agree_never_harm_a_key(
            states in proptest::collection::vec(any_state(), 5),
            owners in 1usize..4,
        ) {
            let all = names("a b c d e");
            let owners = &all[..owners];
            let held: Vec<_> = all.iter().cloned().zip(&states).filter_map(|(n, s)| s.map(|s| (n, s))).collect();
            let act = |me: &NodeName| PlanInput {
                me, owners, owners_wanted: owners.len(), holders: &held, known: true,
                leader: owners.first(), backing_off: false, scanned: true, room: DiskPressure::Low,
            }.action();
            let fetches = all.iter().filter(|me| act(me) == Action::Fetch).count();
            prop_assert!(fetches <= 1);
            let trims: Vec<_> = all.iter().filter(|me| act(me) == Action::Trim).collect();
            prop_assert!(trims.iter().all(|me| !owners.contains(me)));
            if !trims.is_empty() {
                prop_assert!(owners.iter().all(|o| held.contains(&(o.clone(), HolderState::Ready))));
            }
        }
    }
}
