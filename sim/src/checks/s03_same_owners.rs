//! 3: nodes with the same members on the ring compute the same owners, distinct, and min(R, members) of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datad_gossip::{
    key::{Key, NodeName},
    placement::Ring,
};

use super::Violation;
use crate::run::cluster::Cluster;

/// The owners that were computed from each set of members so far, by whom.
#[derive(Debug, Default)]
pub struct SameOwners {
    computed: BTreeMap<Vec<NodeName>, (NodeName, Vec<Vec<NodeName>>)>,
    /// The ring of each machine that was looked at last: most of the time it is still the same.
    looked_at: BTreeMap<usize, Arc<Ring>>,
}

impl SameOwners {
    /// Compares the owners that the nodes compute.
    ///
    /// # Errors
    /// Two nodes disagree, or there are too few owners.
    pub fn check(&mut self, cluster: &Cluster, keys: &[Key]) -> Result<(), Violation> {
        for (number, machine, client) in cluster.up() {
            let view = client.view();
            if self.looked_at.get(&number).is_some_and(|ring| Arc::ptr_eq(ring, view.ring())) {
                continue;
            }
            self.looked_at.insert(number, view.ring().clone());
            let owners = keys.iter().map(|key| view.owners(key, cluster.config.replicas).cloned().collect()).collect();
            self.compare(&machine.name, view.ring().nodes().to_vec(), owners, cluster.config.replicas)?;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        who: &NodeName,
        members: Vec<NodeName>,
        owners: Vec<Vec<NodeName>>,
        replicas: usize,
    ) -> Result<(), Violation> {
        let expected = replicas.min(members.len());
        if let Some(wrong) = owners.iter().find(|owners| owners.iter().collect::<BTreeSet<_>>().len() != expected) {
            return Err(Violation::safety(3, format!("{who} sees {members:?} and owners {wrong:?}")));
        }
        let (other, same) = self.computed.entry(members).or_insert_with(|| (who.clone(), owners.clone()));
        if *same != owners {
            let detail = format!("{who} and {other} see the same members and different owners");
            return Err(Violation::safety(3, detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_owners_from_the_same_members_are_found_and_so_are_too_few() {
        let names =
            |list: &[&str]| -> Vec<NodeName> { list.iter().map(|name| NodeName::new(*name).unwrap()).collect() };
        let (a, members) = (NodeName::new("a").unwrap(), names(&["a", "b", "c"]));
        let mut checker = SameOwners::default();
        checker.compare(&a, members.clone(), vec![names(&["a", "b"])], 2).unwrap();
        checker.compare(&a, names(&["a", "b"]), vec![names(&["b", "a"])], 2).unwrap();
        assert_eq!(checker.compare(&a, members.clone(), vec![names(&["b", "a"])], 2).unwrap_err().property, 3);
        assert_eq!(checker.compare(&a, members, vec![names(&["a", "a"])], 2).unwrap_err().property, 3);
    }
}
