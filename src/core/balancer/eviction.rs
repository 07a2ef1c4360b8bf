//! Which keys a node without free disk space gives up, and in which order. Pure.
//!
//! First go copies that the node only happens to hold, as the plan would decide, but at once. Then
//! go copies that no client asked for lately, as long as another owner has the key. Last, and only
//! while no node takes new keys, go copies that no other node has. A pinned key goes only in the
//! first way. These are grounds to *ask*: each node that is relied upon then has to vouch for its
//! copy (see `actors/balancer`), because views differ. For the only copy the origin has to say that
//! it has the key (see `actors/balancer/eviction.rs`).

use super::plan::{Action, PlanInput};
use crate::{
    core::registry::HolderState,
    key::{Key, NodeName},
};

/// Why a copy may be given up; better reasons first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EvictionReason {
    /// All owners have the key, and this node is not an owner.
    Surplus,
    /// Another owner has the key, if not all have, no client pinned it, and there is no disk space.
    NoRoom,
    /// No other node has the key, no client pinned it or asked for it lately, and no node takes new
    /// keys.
    LastCopy,
}

/// A key that may be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) key: Key,
    pub(crate) grounds: EvictionReason,
    /// The second of its last use, if that was lately.
    pub(crate) last_use: Option<u32>,
}

impl PlanInput<'_> {
    /// On what grounds this node, which is full, may give up its copy. `full` tells which other
    /// nodes are full; `expendable`, whether the only copy may go as well, as far as that does not
    /// follow from the claims of live nodes.
    pub(crate) fn grounds(
        &self,
        pinned: bool,
        expendable: bool,
        full: impl Fn(&NodeName) -> bool,
    ) -> Option<EvictionReason> {
        let is_ready = |name: &NodeName| self.holders.contains(&(name.clone(), HolderState::Ready));
        if self.action() == Action::Trim {
            return Some(EvictionReason::Surplus);
        }
        if pinned || !self.scanned || !is_ready(self.me) {
            return None;
        }
        // Who holds it without being an owner comes after all owners.
        let mine = self.owners.iter().position(|owner| owner == self.me).unwrap_or(self.owners.len());
        let others = || self.owners.iter().enumerate().filter(|(place, owner)| *place != mine && is_ready(owner));
        if expendable && !self.is_elsewhere() {
            return Some(EvictionReason::LastCopy);
        }
        // Of several full ones only the last gives it up. If each relied on the other, both would vouch and neither could.
        let waits = others().any(|(place, owner)| place > mine && full(owner));
        (others().next().is_some() && !waits).then_some(EvictionReason::NoRoom)
    }
}

impl PlanInput<'_> {
    /// Whether another live node has the key, or will in a moment.
    fn is_elsewhere(&self) -> bool {
        let has = |state: &HolderState| *state != HolderState::Failed;
        self.holders.iter().any(|(name, state)| name != self.me && has(state))
    }
}

/// The best `count` of all candidates that are offered.
#[derive(Debug)]
pub(crate) struct Choice {
    count: usize,
    best: Vec<Candidate>,
}

impl Choice {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, best: Vec::new() }
    }

    pub(crate) fn offer(&mut self, candidate: Candidate) {
        self.best.push(candidate);
        if self.best.len() >= 2 * self.count.max(64) {
            self.cut();
        }
    }

    /// Those that go first, first.
    pub(crate) fn into_best(mut self) -> Vec<Candidate> {
        self.cut();
        self.best
    }

    fn cut(&mut self) {
        // Of surplus copies too, those that no client asked for go first. `None` sorts before every
        // second.
        self.best.sort_by(|a, b| (a.grounds, a.last_use, &a.key).cmp(&(b.grounds, b.last_use, &b.key)));
        self.best.truncate(self.count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::balancer::watermarks::DiskPressure;

    fn name(number: usize) -> NodeName {
        NodeName::new(format!("n{number}")).unwrap()
    }

    type Held = Vec<(NodeName, HolderState)>;

    fn situation<'a>(me: &'a NodeName, owners: &'a [NodeName], held: &'a Held) -> PlanInput<'a> {
        PlanInput {
            me,
            owners,
            owners_wanted: owners.len(),
            holders: held,
            known: true,
            leader: owners.first(),
            backing_off: false,
            scanned: true,
            room: DiskPressure::Full,
        }
    }

    fn ready(numbers: &[usize]) -> Held {
        numbers.iter().map(|number| (name(*number), HolderState::Ready)).collect()
    }

    fn grounds(me: usize, owners: &[usize], held: &Held, pinned: bool, full: &[usize]) -> Option<EvictionReason> {
        let owners: Vec<NodeName> = owners.iter().map(|number| name(*number)).collect();
        let full: Vec<NodeName> = full.iter().map(|number| name(*number)).collect();
        situation(&name(me), &owners, held).grounds(pinned, false, |name| full.contains(name))
    }

    #[test]
    fn the_only_copy_goes_if_it_is_expendable_and_nobody_pinned_it() {
        let only = |held: &Held, pinned, expendable| {
            let (me, owners) = (name(1), [name(1), name(2)]);
            situation(&me, &owners, held).grounds(pinned, expendable, |_| true)
        };
        assert_eq!(only(&ready(&[1]), false, true), Some(EvictionReason::LastCopy));
        assert_eq!(only(&ready(&[1]), true, true), None);
        assert_eq!(only(&ready(&[1]), false, false), None);
        for (state, goes) in
            [(HolderState::Failed, true), (HolderState::Fetching, false), (HolderState::Presumed, false)]
        {
            let held = vec![(name(1), HolderState::Ready), (name(2), state)];
            assert_eq!(only(&held, false, true), goes.then_some(EvictionReason::LastCopy), "{state:?}");
        }
        // The first of two owners keeps it, and the second relies on the first, not on the origin.
        assert_eq!(only(&ready(&[1, 2]), false, true), None);
        let (me, owners) = (name(2), [name(1), name(2)]);
        assert_eq!(
            situation(&me, &owners, &ready(&[1, 2])).grounds(false, true, |_| true),
            Some(EvictionReason::NoRoom)
        );
    }

    #[test]
    fn a_surplus_copy_goes_when_all_owners_have_it_pinned_or_not() {
        for pinned in [false, true] {
            assert_eq!(grounds(3, &[1, 2], &ready(&[1, 2, 3]), pinned, &[3]), Some(EvictionReason::Surplus));
            assert_eq!(grounds(3, &[1, 2], &ready(&[3]), pinned, &[3]), None);
        }
    }

    #[test]
    fn an_owners_copy_goes_when_another_owner_has_it_and_it_is_not_pinned() {
        assert_eq!(grounds(1, &[1, 2], &ready(&[1, 2]), false, &[1]), Some(EvictionReason::NoRoom));
        assert_eq!(grounds(1, &[1, 2], &ready(&[1, 2]), true, &[1]), None);
        assert_eq!(grounds(1, &[1, 2], &ready(&[1]), false, &[1]), None);
        let presumed = vec![(name(1), HolderState::Ready), (name(2), HolderState::Presumed)];
        assert_eq!(grounds(1, &[1, 2], &presumed, false, &[1]), None);
    }

    #[test]
    fn a_copy_that_waits_for_a_tight_owner_goes_when_another_owner_has_it() {
        assert_eq!(grounds(3, &[1, 2], &ready(&[1, 3]), false, &[3]), Some(EvictionReason::NoRoom));
        assert_eq!(grounds(3, &[1, 2], &ready(&[1, 3]), true, &[3]), None);
    }

    #[test]
    fn of_two_full_owners_the_last_gives_it_up() {
        let held = ready(&[1, 2]);
        assert_eq!(grounds(1, &[1, 2], &held, false, &[1, 2]), None);
        assert_eq!(grounds(2, &[1, 2], &held, false, &[1, 2]), Some(EvictionReason::NoRoom));
    }

    #[test]
    fn surplus_goes_before_what_is_owned_and_the_cold_before_the_warm() {
        let candidate = |text: &str, grounds, last_use| Candidate { key: Key::new(text).unwrap(), grounds, last_use };
        let mut choice = Choice::new(4);
        for offered in [
            candidate("warm", EvictionReason::NoRoom, Some(9)),
            candidate("cold", EvictionReason::NoRoom, Some(3)),
            candidate("never", EvictionReason::NoRoom, None),
            candidate("only", EvictionReason::LastCopy, None),
            candidate("spare", EvictionReason::Surplus, Some(9)),
            candidate("spare-cold", EvictionReason::Surplus, None),
        ] {
            choice.offer(offered);
        }
        let order: Vec<String> = choice.into_best().into_iter().map(|candidate| candidate.key.to_string()).collect();
        assert_eq!(order, ["spare-cold", "spare", "never", "cold"]);
    }

    fn any_state() -> impl Strategy<Value = Option<HolderState>> {
        prop_oneof![
            1 => Just(None),
            1 => Just(Some(HolderState::Fetching)),
            2 => Just(Some(HolderState::Ready)),
            1 => Just(Some(HolderState::Failed)),
            1 => Just(Some(HolderState::Presumed)),
        ]
    }

    proptest! {
        /// If all nodes that are full give up at once whatever they have grounds for, on one view, a copy remains, unless there
        /// was one alone that may go; and of a pinned key as many as there should be.
        #[test]
        fn nodes_that_agree_never_give_up_the_last_copy(
            states in proptest::collection::vec(any_state(), 6),
            owners in 1..5usize,
            full in proptest::collection::btree_set(0..6usize, 0..6),
            pinned in any::<bool>(),
            expendable in any::<bool>(),
        ) {
            let all: Vec<NodeName> = (0..6).map(name).collect();
            let held: Held = all.iter().cloned().zip(&states).filter_map(|(n, s)| s.map(|s| (n, s))).collect();
            let owners = &all[..owners];
            let is_full = |name: &NodeName| full.iter().any(|number| all[*number] == *name);
            let grounds = |me: &NodeName| situation(me, owners, &held).grounds(pinned, expendable, is_full);
            let gives_up = |me: &NodeName| is_full(me) && grounds(me).is_some();
            let ready = |name: &&NodeName| held.contains(&((*name).clone(), HolderState::Ready));
            let (before, after): (Vec<_>, Vec<_>) =
                (all.iter().filter(ready).collect(), all.iter().filter(ready).filter(|me| !gives_up(me)).collect());
            let went_last = before.iter().any(|me| gives_up(me) && grounds(me) == Some(EvictionReason::LastCopy));
            prop_assert!(before.is_empty() || !after.is_empty() || went_last);
            prop_assert!(!went_last || (expendable && !pinned && before.len() == 1), "only one that is alone");
            if pinned {
                let kept = owners.iter().filter(ready).filter(|owner| !gives_up(owner)).count();
                prop_assert_eq!(kept, owners.iter().filter(ready).count());
                prop_assert!(after.len() == before.len() || kept == owners.len());
            }
        }

        /// Offering in any order and any number chooses what sorting everything would.
        #[test]
        fn the_choice_does_not_depend_on_the_order(
            (one, other) in proptest::collection::vec((any::<bool>(), proptest::option::of(0..5u32)), 0..300).prop_flat_map(|drawn| {
                let offered: Vec<Candidate> = drawn.into_iter().enumerate().map(|(number, (spare, last_use))| {
                    let grounds = if spare { EvictionReason::Surplus } else { EvictionReason::NoRoom };
                    Candidate { key: Key::new(format!("k{number}")).unwrap(), grounds, last_use }
                }).collect();
                (Just(offered.clone()), Just(offered).prop_shuffle())
            }),
            count in 0..20usize,
        ) {
            let choose = |offered: &[Candidate]| {
                let mut choice = Choice::new(count);
                offered.iter().for_each(|candidate| choice.offer(candidate.clone()));
                choice.into_best()
            };
            prop_assert_eq!(choose(&one), choose(&other));
        }
    }
}
