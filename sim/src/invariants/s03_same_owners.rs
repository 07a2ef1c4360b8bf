//! 3: nodes with the same members on the ring compute the same owners, distinct, and min(R, members) of them; of new keys,
//! none that is full.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datad_gossip::{
    View,
    key::{Key, NodeName},
};

use crate::model::{Snapshot, Violation};

/// The members on the ring, and those among them that are full.
type Members = (Vec<NodeName>, Vec<NodeName>);
/// The owners of each key: if it is new, and if everybody has it.
type Owners = [Vec<Vec<NodeName>>; 2];

/// The owners that were computed from each set of members so far, by whom.
#[derive(Debug, Default)]
pub struct SameOwners {
    computed: BTreeMap<Members, (NodeName, Owners)>,
    /// The view of each machine that was looked at last: most of the time it is still the same.
    looked_at: BTreeMap<usize, Arc<View>>,
}

impl SameOwners {
    /// Compares the owners that the nodes compute.
    ///
    /// # Errors
    /// Two nodes disagree, or there are too few owners.
    pub fn check(&mut self, seen: &Snapshot, keys: &[Key]) -> Result<(), Violation> {
        let replicas = seen.replicas;
        for node in &seen.nodes {
            let view = &node.view;
            if self.looked_at.get(&node.machine).is_some_and(|other| Arc::ptr_eq(other, view)) {
                continue;
            }
            let members = members_of(view);
            if self.looked_at.insert(node.machine, view.clone()).is_some_and(|other| members_of(&other) == members) {
                continue;
            }
            let owners =
                |has: bool| keys.iter().map(|key| view.owners(key, replicas, |_| has).cloned().collect()).collect();
            self.compare(&node.name, members, [owners(false), owners(true)], replicas)?;
        }
        Ok(())
    }

    fn compare(&mut self, who: &NodeName, members: Members, owners: Owners, replicas: usize) -> Result<(), Violation> {
        let (on_ring, full) = &members;
        let [new, held] = &owners;
        for (owners, expected) in [(new, on_ring.len() - full.len()), (held, on_ring.len())] {
            let right = |owners: &&Vec<NodeName>| {
                owners.len() == replicas.min(expected) && owners.iter().collect::<BTreeSet<_>>().len() == owners.len()
            };
            if let Some(wrong) = owners.iter().find(|owners| !right(owners)) {
                return Err(Violation::safety(3, format!("{who} sees {members:?} and owners {wrong:?}")));
            }
        }
        if let Some(wrong) = new.iter().find(|owners| owners.iter().any(|owner| full.contains(owner))) {
            return Err(Violation::safety(3, format!("{who} sees that {full:?} are full, and owners {wrong:?}")));
        }
        let (other, same) = self.computed.entry(members).or_insert_with(|| (who.clone(), owners.clone()));
        if *same != owners {
            let detail = format!("{who} and {other} see the same members and different owners");
            return Err(Violation::safety(3, detail));
        }
        Ok(())
    }
}

fn members_of(view: &View) -> Members {
    let on_ring = view.ring().nodes().to_vec();
    let is_full = |name: &&NodeName| view.member(name).is_some_and(|member| !member.accepting);
    let full = on_ring.iter().filter(is_full).cloned().collect();
    (on_ring, full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<NodeName> {
        list.iter().map(|name| NodeName::new(*name).unwrap()).collect()
    }

    #[test]
    fn different_owners_from_the_same_members_are_found_and_so_are_too_few() {
        let a = NodeName::new("a").unwrap();
        let members = || (names(&["a", "b", "c"]), Vec::new());
        let mut checker = SameOwners::default();
        let both = |list: &[&str]| [vec![names(list)], vec![names(list)]];
        checker.compare(&a, members(), both(&["a", "b"]), 2).unwrap();
        checker.compare(&a, (names(&["a", "b"]), Vec::new()), both(&["b", "a"]), 2).unwrap();
        assert_eq!(checker.compare(&a, members(), both(&["b", "a"]), 2).unwrap_err().property, 3);
        assert_eq!(checker.compare(&a, members(), both(&["a", "a"]), 2).unwrap_err().property, 3);
    }

    #[test]
    fn a_full_owner_of_a_new_key_is_found() {
        let a = NodeName::new("a").unwrap();
        let members = || (names(&["a", "b", "c"]), names(&["b"]));
        let owners = |new: &[&str]| [vec![names(new)], vec![names(&["a", "b"])]];
        SameOwners::default().compare(&a, members(), owners(&["a", "c"]), 2).unwrap();
        for wrong in [["a", "b"].as_slice(), &["a"], &["a", "c", "c"]] {
            assert_eq!(SameOwners::default().compare(&a, members(), owners(wrong), 2).unwrap_err().property, 3);
        }
    }
}
