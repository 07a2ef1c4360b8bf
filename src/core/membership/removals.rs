//! The pure core of taking dead members off the list: the removed members, for as long as any node
//! may still tell of them.
//!
//! Members tell each other of the dead, so one node alone cannot forget a member: the next one that remembers it would bring
//! it back. A removal therefore spreads the same way (`actors/membership/departed.rs`) and counts for more than a report that this start
//! of the member, or an earlier one, is dead. A sign of life counts for more than a removal.
//!
//! Every removal carries its age from node to node, so all nodes let go of it at about the same time: after [`TOLD_FOR`] a
//! node neither tells of it nor takes it in, and after [`KEPT_FOR`] it forgets it. Without the gap, a node that has just
//! forgotten a removal would take it in again from one whose clock runs a little behind, for ever.

use std::{collections::BTreeMap, time::Duration};

use super::gone::{GONE_MAX, digest_of};
use crate::key::NodeName;

/// How long a removal spreads. Longer than nodes are usually cut off from each other.
pub(crate) const TOLD_FOR: Duration = Duration::from_secs(23 * 3600);
/// How long a removal counts here.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// Removals that are kept; beyond, the oldest go first. As many as members that are remembered after their death.
pub(crate) const REMOVALS_MAX: usize = GONE_MAX;

/// Why a member was not taken off the list. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// No member of this name is known.
    #[error("no member is called {0}")]
    Unknown(NodeName),
    /// It is there. Drain it and stop it first.
    #[error("{0} is alive: let it leave with `drain {0}`, and stop it; only a member that is gone can be removed")]
    Alive(NodeName),
    /// Where etcd coordinates, nothing is remembered from node to node, and etcd keeps what the member registered.
    #[error(
        "etcd coordinates this cluster: a member that is gone is listed until the nodes restart, and what {0} registered \
         stays in etcd, below registry/nodes/{0}/, until it returns or you delete it there"
    )]
    InEtcd(NodeName),
    /// This program only observes: ask a member.
    #[error("an observer cannot remove {0}: ask a member")]
    Observer(NodeName),
    /// This node is stopping or recovering. Ask again, or another one.
    #[error("this node is stopping or recovering; ask again, or another one")]
    Stopping,
}

/// That a start of a member, and all before it, are not to be listed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Removal {
    incarnation: u64,
    /// When this node learned of it, on its monotonic clock.
    learned: Duration,
    /// How old it was then.
    age: Duration,
}

impl Removal {
    fn age(&self, now: Duration) -> Duration {
        self.age.saturating_add(now.saturating_sub(self.learned))
    }
}

/// The removals that one node knows of.
#[derive(Debug, Default)]
pub(crate) struct Removals(BTreeMap<NodeName, Removal>);

impl Removals {
    /// Takes in at `now` that `name` was removed so long ago, up to this start of it. Whether that is news.
    pub(crate) fn learn(&mut self, now: Duration, name: &NodeName, incarnation: u64, age: Duration) -> bool {
        let known = self.0.get(name).is_some_and(|known| known.incarnation >= incarnation);
        if known || age >= TOLD_FOR {
            return false;
        }
        self.0.insert(name.clone(), Removal { incarnation, learned: now, age });
        if self.0.len() > REMOVALS_MAX {
            let oldest = self.0.iter().max_by_key(|(_, removal)| removal.age(now)).map(|(name, _)| name.clone());
            oldest.map(|name| self.0.remove(&name));
        }
        true
    }

    /// Whether this start of `name` is one that was removed.
    pub(crate) fn covers(&self, name: &NodeName, incarnation: u64) -> bool {
        self.0.get(name).is_some_and(|removal| incarnation <= removal.incarnation)
    }

    /// `name` is there, or was after it was removed.
    pub(crate) fn lift(&mut self, name: &NodeName) {
        self.0.remove(name);
    }

    /// Forgets removals of members that no node tells of any more.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.0.retain(|_, removal| removal.age(now) < KEPT_FOR);
    }

    /// What is told at `now`: names, incarnations and ages.
    pub(crate) fn told(&self, now: Duration) -> impl Iterator<Item = (&NodeName, u64, Duration)> {
        let each = self.0.iter().map(move |(name, removal)| (name, removal.incarnation, removal.age(now)));
        each.filter(|(.., age)| *age < TOLD_FOR)
    }

    /// Digest of what is told at `now`.
    pub(crate) fn digest(&self, now: Duration) -> u64 {
        let each = self.told(now).map(|(name, incarnation, _)| digest_of(REMOVED, name, incarnation));
        each.fold(0, |digest, hash| digest ^ hash)
    }
}

/// Sets removals apart from deaths in a digest.
const REMOVED: u64 = 0x7265_6d6f_7665_6421;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: usize) -> NodeName {
        NodeName::new(format!("n{number}")).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_removal_covers_the_start_it_was_said_of_and_those_before() {
        let mut removals = Removals::default();
        assert!(removals.learn(at(1), &name(1), 5, Duration::ZERO));
        assert!(!removals.learn(at(2), &name(1), 4, Duration::ZERO), "the later one counts");
        assert!(removals.covers(&name(1), 5) && removals.covers(&name(1), 4));
        assert!(!removals.covers(&name(1), 6) && !removals.covers(&name(2), 1));
        removals.lift(&name(1));
        assert!(!removals.covers(&name(1), 5));
    }

    #[test]
    fn beyond_the_bound_the_oldest_goes() {
        let mut removals = Removals::default();
        for number in 0..=REMOVALS_MAX {
            removals.learn(at(number as u64), &name(number), 1, Duration::ZERO);
        }
        assert!(!removals.covers(&name(0), 1));
        assert_eq!(removals.told(at(2_000)).count(), REMOVALS_MAX);
    }

    proptest! {
        /// Whichever nodes tell each other of removals, in whatever order: after a day, none is left anywhere, although the
        /// nodes' monotonic clocks began at different times and a removal takes up to `slowest` on its way.
        #[test]
        fn no_removal_outlives_its_time(
            starts in proptest::collection::vec(0..100_000u64, 2..5),
            removed in 0..3_600u64,
            slowest in 0..60u64,
            asks in proptest::collection::vec((0..5usize, 0..5usize, 0..100_000u64, 0..60u64), 0..80),
        ) {
            let mut nodes: Vec<Removals> = starts.iter().map(|_| Removals::default()).collect();
            let clock = |node: usize, time: u64| at(time + starts[node]);
            nodes[0].learn(clock(0, removed), &name(1), 7, Duration::ZERO);
            let mut asks: Vec<_> = asks;
            asks.sort_by_key(|ask| ask.2);
            let end = removed + KEPT_FOR.as_secs() + slowest + 1;
            for (from, to, time, takes) in asks {
                let (from, to, arrives) = (from % nodes.len(), to % nodes.len(), time + takes.min(slowest));
                let told: Vec<_> = nodes[from].told(clock(from, time)).map(|(n, i, age)| (n.clone(), i, age)).collect();
                for (who, incarnation, age) in told {
                    nodes[to].learn(clock(to, arrives), &who, incarnation, age);
                }
                nodes[to].expire(clock(to, arrives));
            }
            for (node, removals) in nodes.iter_mut().enumerate() {
                removals.expire(clock(node, end + 60 * 80));
                prop_assert!(!removals.covers(&name(1), 7));
            }
        }
    }
}
