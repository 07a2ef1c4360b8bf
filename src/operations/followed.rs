//! The news that a member sends to an observer about the members, and how the observer merges it
//! (pure).
//!
//! The member tells everything once, and then what has changed since. Both sides keep a [`Told`]: applied in order, the news
//! make the observer's equal to the member's. An observer that follows several members [merges](merge) what they tell: a node
//! is alive if one of them sees it alive, so that a member that is cut off from the others takes none of them away.

use std::collections::BTreeMap;

use crate::{
    core::membership::{NodeInfo, Observation, Role},
    key::NodeName,
    net::wire::{MemberNews, MemberSeen},
};

/// Nodes in one frame. Their hot keys take most of it, some kilobytes for a node.
const SEEN_MAX: usize = 32;
/// Nodes that an observer takes from one member; beyond this it takes no new ones. A few hundred members are usual.
const NODES_MAX: usize = 8_192;

/// What was told so far, by name and incarnation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Told(BTreeMap<(NodeName, u64), Observation>);

impl Told {
    /// What has to be told so that the other side sees `now`, without those that only observe. Empty if it does.
    pub(crate) fn news(&mut self, now: &[Observation]) -> Vec<MemberNews> {
        let now = now.iter().filter(|seen| seen.facts.role == Role::Holder);
        let now: BTreeMap<_, _> = now.map(|seen| ((seen.name.clone(), seen.incarnation), seen.clone())).collect();
        let unseen: Vec<_> = self.0.keys().filter(|id| !now.contains_key(*id)).cloned().collect();
        let changed = now.iter().filter(|(id, seen)| self.0.get(*id) != Some(*seen));
        let changed: Vec<MemberSeen> = changed.map(|(_, seen)| to_wire(seen)).collect();
        self.0 = now;
        let mut parts: Vec<MemberNews> = changed
            .chunks(SEEN_MAX)
            .map(|seen| MemberNews { seen: seen.to_vec(), unseen: Vec::new(), more: true })
            .collect();
        if parts.is_empty() && !unseen.is_empty() {
            parts.push(MemberNews { seen: Vec::new(), unseen: Vec::new(), more: true });
        }
        if let Some(last) = parts.last_mut() {
            (last.unseen, last.more) = (unseen, false);
        }
        parts
    }

    /// Takes in a part. It leaves out entries that are invalid or from a later version.
    pub(crate) fn apply(&mut self, news: MemberNews) {
        for id in &news.unseen {
            self.0.remove(id);
        }
        for seen in news.seen.into_iter().filter_map(from_wire) {
            let id = (seen.name.clone(), seen.incarnation);
            if self.0.len() < NODES_MAX || self.0.contains_key(&id) {
                self.0.insert(id, seen);
            }
        }
    }

    /// The same, with no node alive.
    pub(crate) fn lost(mut self) -> Self {
        self.0.values_mut().for_each(|seen| seen.alive = false);
        self
    }
}

/// The merged view of several members.
pub(crate) fn merge<'a>(told: impl IntoIterator<Item = &'a Told>) -> Told {
    let mut merged: BTreeMap<(NodeName, u64), Observation> = BTreeMap::new();
    for (id, seen) in told.into_iter().flat_map(|told| &told.0) {
        match merged.get(id) {
            Some(known) if freshness(known) >= freshness(seen) => {}
            _ => drop(merged.insert(id.clone(), seen.clone())),
        }
    }
    Told(merged)
}

/// Of two things that are said of one start of a node, that of the higher freshness counts. States and versions only grow.
fn freshness(seen: &Observation) -> (bool, crate::core::membership::AdvertisedState, u64, Option<u64>) {
    (seen.alive, seen.facts.state, seen.facts.ledger.version, seen.facts.clock)
}

impl From<Told> for Vec<Observation> {
    fn from(told: Told) -> Self {
        told.0.into_values().collect()
    }
}

fn to_wire(seen: &Observation) -> MemberSeen {
    let facts = seen.facts.to_pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let Observation { name, incarnation, address, alive, .. } = seen.clone();
    MemberSeen { name, incarnation, address, alive, facts }
}

fn from_wire(seen: MemberSeen) -> Option<Observation> {
    let MemberSeen { name, incarnation, address, alive, facts } = seen;
    let read = |wanted: &str| facts.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    Some(Observation { name, incarnation, address, alive, facts: NodeInfo::parse(read)? })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::core::membership::{AdvertisedState, LedgerDigest};

    fn seen(number: u8, incarnation: u64, alive: bool, version: u64) -> Observation {
        let facts = NodeInfo {
            state: AdvertisedState::Serving,
            role: Role::Holder,
            weight: 100,
            accepting: true,
            http: None,
            ledger: LedgerDigest { version, digest: version },
            catalog: Some(1),
            hot: BTreeMap::new(),
            gone: Some(2),
            clock: Some(3),
            serves: None,
        };
        let name = NodeName::new(format!("n{number}")).unwrap();
        Observation { name, incarnation, address: SocketAddr::from(([127, 0, 0, 1], 1)), alive, facts }
    }

    fn told(seen: Vec<Observation>) -> Told {
        let mut told = Told::default();
        told.news(&seen);
        told
    }

    #[test]
    fn nothing_is_told_twice() {
        let mut told = Told::default();
        assert_eq!(told.news(&[seen(1, 1, true, 1)]).len(), 1);
        assert_eq!(told.news(&[seen(1, 1, true, 1)]), []);
        assert_eq!(told.news(&[seen(1, 1, true, 2)]).len(), 1);
        let gone = told.news(&[]);
        assert_eq!((gone.len(), gone[0].unseen.len(), gone[0].more), (1, 1, false));
    }

    #[test]
    fn a_node_that_one_of_them_sees_alive_is_alive_and_the_latest_word_counts() {
        let (old, new) = (told(vec![seen(1, 1, true, 9)]), told(vec![seen(1, 1, false, 9), seen(2, 1, true, 4)]));
        let merged: Vec<Observation> = merge([&old, &new]).into();
        assert_eq!(merged, [seen(1, 1, true, 9), seen(2, 1, true, 4)]);
        let (behind, ahead) = (told(vec![seen(1, 1, true, 3)]), told(vec![seen(1, 1, true, 5)]));
        assert_eq!(merge([&behind, &ahead]), merge([&ahead, &behind]));
        let merged: Vec<Observation> = merge([&behind, &ahead]).into();
        assert_eq!(merged[0].facts.ledger.version, 5);
    }

    #[test]
    fn an_observer_takes_no_more_nodes_than_its_bound() {
        let mut told = Told::default();
        for incarnation in 0..NODES_MAX as u64 + 10 {
            told.apply(MemberNews { seen: vec![to_wire(&seen(1, incarnation, true, 1))], unseen: vec![], more: false });
        }
        assert_eq!(told.0.len(), NODES_MAX);
    }

    proptest! {
        /// Whatever a member sees one moment after the other, an observer that takes in all it is told sees the same.
        #[test]
        fn an_observer_sees_what_the_member_sees(
            moments in proptest::collection::vec(
                proptest::collection::vec((0..90u8, 1..3u64, any::<bool>(), 0..3u64), 0..120), 1..6),
        ) {
            let (mut member, mut observer) = (Told::default(), Told::default());
            for moment in moments {
                let now: Vec<Observation> =
                    moment.into_iter().map(|(number, incarnation, alive, version)| seen(number, incarnation, alive, version)).collect();
                let news = member.news(&now);
                let last = news.len().saturating_sub(1);
                for (number, part) in news.into_iter().enumerate() {
                    prop_assert!(part.seen.len() <= SEEN_MAX);
                    prop_assert_eq!(part.more, number < last);
                    observer.apply(part);
                }
                prop_assert_eq!(&observer, &member);
            }
        }
    }
}
