//! What to do about the ledgers of others, by what gossip says of them and by what of them is known here. Pure.
//!
//! - The ledger of every live member that can hold keys is followed ([`to_follow`]).
//! - One that stays behind what gossip says, round after round, is pulled from another member: its own node may be out of
//!   reach from here. One that differs at the same version is read anew.
//! - Members that are gone are asked about in turn, one a round. What such a member said last may have reached only some, and a
//!   node that came after it was gone knows nothing of it.
//! - A node that joins serves once it knows what the others hold ([`Arrival`]).

use std::{collections::BTreeMap, time::Duration};

use super::Ledger;
use crate::{
    core::membership::{LedgerDigest, View},
    key::NodeName,
};

/// A ledger that stays behind its mark for more rounds of gossip than this is pulled from another member.
const ROUNDS_BEFORE_PULL: u32 = 5;
/// A joining node that has seeds and hears of no other member serves alone after more looks than this.
const ALONE_LOOKS: u32 = 15;

/// The members whose ledgers are followed, with their incarnations: all that are alive and can hold keys, without this node.
pub(crate) fn to_follow(view: &View) -> BTreeMap<&NodeName, u64> {
    let others = view.alive().filter(|member| member.name != *view.me() && !member.observer);
    others.map(|member| (&member.name, member.incarnation)).collect()
}

/// The members that may be asked for the ledger of `name`, apart from its own node.
pub(crate) fn relays(view: &View, name: &NodeName) -> Vec<NodeName> {
    let others = view.alive().filter(|member| member.name != *name && member.name != *view.me());
    others.map(|member| member.name.clone()).collect()
}

/// How far the copy of a ledger has come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Known {
    /// Incarnation and version up to which it is known.
    position: (u64, u64),
    /// Of its content, if the copy is complete.
    digest: Option<u64>,
}

impl Known {
    /// Of this copy, if there is one.
    pub(crate) fn of(copy: Option<&Ledger>) -> Self {
        let Some(ledger) = copy else { return Self::default() };
        let position = ledger.position();
        Self {
            position: (position.incarnation.0, position.version.0),
            digest: ledger.is_complete().then(|| ledger.digest()),
        }
    }
}

/// What is to be done after a round of gossip.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Steps {
    /// Ledgers to pull from another member. [`Following::pull_ended`] is to be told of the end of each.
    pub(crate) pull: Vec<NodeName>,
    /// Ledgers whose copies are to be dropped and read anew: same version, other content, which is a defect somewhere.
    pub(crate) start_over: Vec<NodeName>,
}

/// What is known of the ledgers of others, apart from their content.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// What gossip says: incarnation and mark.
    marks: BTreeMap<NodeName, (u64, LedgerDigest)>,
    behind: BTreeMap<NodeName, Behind>,
    /// Members whose ledgers were read to the end as another member knows them, and when that began last.
    pulled: BTreeMap<NodeName, Duration>,
    /// The gone member that was asked about last.
    asked_about: Option<NodeName>,
}

#[derive(Debug, Default)]
struct Behind {
    /// Incarnation and version up to which the ledger is known, and for how many rounds that has been so.
    position: (u64, u64),
    rounds: u32,
    pulling: bool,
}

impl Following {
    /// Takes in what gossip says of the other ledgers, while `known` says how far each has come here.
    pub(crate) fn marks_seen(
        &mut self,
        marks: Vec<(NodeName, u64, LedgerDigest)>,
        view: &View,
        known: impl Fn(&NodeName) -> Known,
    ) -> Steps {
        self.marks = marks.into_iter().map(|(name, incarnation, mark)| (name, (incarnation, mark))).collect();
        let mut steps = Steps::default();
        for (name, (incarnation, mark)) in &self.marks {
            let Known { position, digest } = known(name);
            if position >= (*incarnation, mark.version) {
                self.behind.remove(name);
                let same = position == (*incarnation, mark.version);
                if same && digest.is_some_and(|digest| digest != mark.digest) {
                    steps.start_over.push(name.clone());
                }
                continue;
            }
            let behind = self.behind.entry(name.clone()).or_default();
            if behind.position != position {
                (behind.position, behind.rounds) = (position, 0);
            }
            behind.rounds += 1;
            if behind.rounds > ROUNDS_BEFORE_PULL && !behind.pulling {
                behind.pulling = true;
                steps.pull.push(name.clone());
            }
        }
        steps.pull.extend(self.next_gone(view));
        steps
    }

    /// The member to ask about this time of those that are gone, unless an answer is still awaited.
    fn next_gone(&mut self, view: &View) -> Option<NodeName> {
        let gone = || view.members().filter(|member| !member.state.is_alive() && !member.observer);
        let next = gone().find(|member| self.asked_about.as_ref() < Some(&member.name)).or_else(|| gone().next());
        let name = next?.name.clone();
        let behind = self.behind.entry(name.clone()).or_default();
        let idle = !std::mem::replace(&mut behind.pulling, true);
        self.asked_about = Some(name.clone());
        idle.then_some(name)
    }

    /// A pull of the ledger of `name` is over. `complete`: when it began, if it got to the end.
    pub(crate) fn pull_ended(&mut self, name: &NodeName, complete: Option<Duration>) {
        if let Some(began) = complete {
            self.pulled.insert(name.clone(), began);
        }
        if !self.marks.contains_key(name) {
            self.behind.remove(name);
        } else if let Some(behind) = self.behind.get_mut(name) {
            behind.pulling = false;
        }
    }

    /// Forgets members that are in `view` no more.
    pub(crate) fn forget_strangers(&mut self, view: &View) {
        self.pulled.retain(|name, _| view.member(name).is_some());
    }

    /// Members whose ledgers were read to the end as another member knows them, and when that began last.
    pub(crate) fn pulled(&self) -> &BTreeMap<NodeName, Duration> {
        &self.pulled
    }

    /// Whether every ledger is known as far as gossip says that it has come.
    pub(crate) fn is_caught_up(&self, known: impl Fn(&NodeName) -> Known) -> bool {
        self.marks.iter().all(|(name, (incarnation, mark))| known(name).position >= (*incarnation, mark.version))
    }
}

/// Whom a joining node can learn from what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Company {
    /// From other members, or from etcd; `told`: all of it is known here.
    Others { told: bool },
    /// The node knows of no other member; `expected`: it has seeds that may answer yet.
    Nobody { expected: bool },
}

/// When a joining node begins to serve: once it knows what the others hold; or alone, if there is
/// no other member to ask.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    looks_alone: u32,
    serves: bool,
}

impl Arrival {
    /// Whether the node should say now that it serves; each call is a look. Once it has said so, `company` is not asked for.
    pub(crate) fn is_due(&mut self, company: impl FnOnce() -> Company) -> bool {
        if self.serves {
            return false;
        }
        match company() {
            Company::Others { told } => told,
            Company::Nobody { expected } => {
                self.looks_alone += 1;
                self.looks_alone > if expected { ALONE_LOOKS } else { 0 }
            }
        }
    }

    /// The node has said that it serves.
    pub(crate) fn announced(&mut self) {
        self.serves = true;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::core::{
        membership::{Member, MemberState},
        placement::{Ring, RingOptions},
    };

    fn name(number: u8) -> NodeName {
        NodeName::new(format!("n{number}")).unwrap()
    }

    /// This node is `n0`; members of these numbers, each alive or gone.
    fn view(members: &[(u8, bool)]) -> View {
        let member = |&(number, alive): &(u8, bool)| Member {
            name: name(number),
            incarnation: 1,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            http: None,
            state: if alive { MemberState::Serving } else { MemberState::Dead },
            weight: 100,
            accepting: true,
            observer: false,
            serves_other: false,
        };
        let members = members.iter().map(|each| (name(each.0), member(each))).collect();
        View::new(name(0), members, Arc::new(Ring::build([], RingOptions::default())), Duration::ZERO)
    }

    fn mark(number: u8, version: u64) -> (NodeName, u64, LedgerDigest) {
        (name(number), 1, LedgerDigest { version, digest: version })
    }

    fn up_to(version: u64) -> Known {
        Known { position: (1, version), digest: Some(version) }
    }

    #[test]
    fn a_ledger_that_stays_behind_is_pulled_and_one_that_gets_on_is_not() {
        let (view, mut following) = (view(&[(0, true), (1, true), (2, true)]), Following::default());
        let mut pulls = Vec::new();
        for round in 0..3 * u64::from(ROUNDS_BEFORE_PULL) {
            let known = |who: &NodeName| up_to(if *who == name(1) { 0 } else { round });
            let steps = following.marks_seen(vec![mark(1, 100), mark(2, 100)], &view, known);
            pulls.extend(steps.pull.into_iter().map(|pulled| (round, pulled)));
        }
        assert_eq!(pulls, [(u64::from(ROUNDS_BEFORE_PULL), name(1))], "once, as long as the pull has not ended");
    }

    #[test]
    fn a_complete_copy_of_other_content_is_read_anew() {
        let (view, mut following) = (view(&[(0, true), (1, true)]), Following::default());
        let differs = Known { position: (1, 7), digest: Some(1) };
        let start_over =
            |following: &mut Following, known| following.marks_seen(vec![mark(1, 7)], &view, |_| known).start_over;
        assert_eq!(start_over(&mut following, differs), [name(1)]);
        assert_eq!(start_over(&mut following, Known { digest: None, ..differs }), [], "it may just be on its way");
        assert_eq!(start_over(&mut following, Known { position: (2, 7), ..differs }), [], "it is of a later start");
        assert_eq!(start_over(&mut following, up_to(7)), []);
    }

    #[test]
    fn all_that_are_gone_are_asked_about_in_turn() {
        let (view, mut following) = (view(&[(0, true), (1, false), (2, true), (3, false)]), Following::default());
        let mut asked = Vec::new();
        for _ in 0..3 {
            let steps = following.marks_seen(vec![mark(2, 0)], &view, |_| up_to(0));
            for pulled in &steps.pull {
                following.pull_ended(pulled, Some(Duration::ZERO));
            }
            asked.extend(steps.pull);
        }
        assert_eq!(asked, [name(1), name(3), name(1)]);
        assert!(following.pulled().keys().eq(&[name(1), name(3)]));
    }

    #[test]
    fn a_node_serves_alone_at_once_only_without_seeds() {
        assert!(Arrival::default().is_due(|| Company::Nobody { expected: false }));
        let mut arrival = Arrival::default();
        let looks = (0..=ALONE_LOOKS).filter(|_| arrival.is_due(|| Company::Nobody { expected: true })).count();
        assert_eq!(looks, 1, "with the last of these looks");
        assert!(!Arrival::default().is_due(|| Company::Others { told: false }));
        assert!(arrival.is_due(|| Company::Others { told: true }));
        arrival.announced();
        assert!(!arrival.is_due(|| Company::Others { told: true }), "it has said so");
    }

    proptest! {
        /// Rounds of gossip, copies that get on, and pulls that end, in any order.
        #[test]
        fn nothing_is_pulled_twice_at_once_nor_without_need(
            steps in proptest::collection::vec((0..4u8, 1..5u8, 0..4u64), 0..120),
            gone in proptest::collection::btree_set(1..5u8, 0..4),
        ) {
            let members: Vec<(u8, bool)> = (0..5).map(|number| (number, !gone.contains(&number))).collect();
            let (view, mut following) = (view(&members), Following::default());
            let (mut said, mut copies) = ([0_u64; 5], [0_u64; 5]);
            let mut pulling = BTreeSet::new();
            for (kind, who, by) in steps {
                let at = usize::from(who);
                match kind {
                    0 => said[at] += by,
                    1 => copies[at] = (copies[at] + by).min(said[at]),
                    2 => {
                        pulling.remove(&who);
                        following.pull_ended(&name(who), None);
                    }
                    _ => {
                        let live = (1..5).filter(|number| !gone.contains(number));
                        let marks: Vec<_> = live.clone().map(|number| mark(number, said[usize::from(number)])).collect();
                        let copy = |who: &NodeName| {
                            let number = (0..5).find(|number| name(*number) == *who).unwrap();
                            up_to(copies[usize::from(number)])
                        };
                        let Steps { pull, start_over } = following.marks_seen(marks, &view, copy);
                        prop_assert!(start_over.is_empty());
                        let is_behind = |number: u8| copies[usize::from(number)] < said[usize::from(number)];
                        prop_assert_eq!(following.is_caught_up(copy), !live.clone().any(is_behind));
                        // A pull of what has been caught up with by another way may be forgotten while it ends.
                        pulling.retain(|number| gone.contains(number) || is_behind(*number));
                        for number in (1..5).filter(|number| pull.contains(&name(*number))) {
                            prop_assert!(gone.contains(&number) || is_behind(number));
                            prop_assert!(pulling.insert(number), "it is being pulled already");
                        }
                    }
                }
            }
        }
    }
}
