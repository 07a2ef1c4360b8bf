//! 4: when one node joins or leaves the ring, no key moves between two nodes that stayed.

use std::{collections::BTreeMap, sync::Arc};

use datad_gossip::{
    key::{Key, NodeName},
    placement::Ring,
};

use crate::model::{Snapshot, Violation};

/// The ring that each machine saw last.
#[derive(Debug, Default)]
pub struct FewMove(BTreeMap<usize, Arc<Ring>>);

impl FewMove {
    /// Compares each machine's ring with its last one.
    ///
    /// # Errors
    /// A key moved for no reason.
    pub fn check(&mut self, seen: &Snapshot, keys: &[Key]) -> Result<(), Violation> {
        for node in &seen.nodes {
            let ring = node.view.ring().clone();
            let before = self.0.insert(node.machine, ring.clone());
            let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &ring)) else { continue };
            if let Some(key) = moved_for_nothing(&before, &ring, keys, seen.replicas) {
                let detail = format!("{} moved {key} between nodes that stayed", node.name);
                return Err(Violation::safety(4, detail));
            }
        }
        Ok(())
    }
}

/// A key that went from one node to another that were both there before and after, if just one node joined or left.
fn moved_for_nothing<'a>(before: &Ring, after: &Ring, keys: &'a [Key], replicas: usize) -> Option<&'a Key> {
    let gone = difference(before, after);
    let come = difference(after, before);
    if gone.len() + come.len() != 1 {
        return None;
    }
    keys.iter().find(|key| {
        let owners = |ring: &Ring| -> Vec<NodeName> { ring.owners(key, replicas).cloned().collect() };
        let (before, after) = (owners(before), owners(after));
        let new = after.iter().filter(|name| !before.contains(name) && !come.contains(name)).count();
        let old = before.iter().filter(|name| !after.contains(name) && !gone.contains(name)).count();
        // Who joins pushes at most one out; who leaves lets at most one in.
        new > usize::from(before.iter().any(|name| gone.contains(name)))
            || old > usize::from(after.iter().any(|name| come.contains(name)))
    })
}

fn difference(one: &Ring, other: &Ring) -> Vec<NodeName> {
    one.nodes().iter().filter(|name| !other.nodes().contains(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use datad_gossip::placement::RingOptions;

    use super::*;

    fn ring(names: &[&str]) -> Ring {
        Ring::build(names.iter().map(|name| (NodeName::new(*name).unwrap(), 100)), RingOptions::default())
    }

    #[test]
    fn a_ring_made_anew_from_other_names_is_found_to_move_keys_and_a_joining_node_is_not() {
        let keys: Vec<Key> = (0..200).map(|number| Key::new(format!("key/{number}")).unwrap()).collect();
        let (before, after) = (ring(&["a", "b", "c"]), ring(&["a", "b", "c", "d"]));
        assert_eq!(moved_for_nothing(&before, &after, &keys, 2), None);
        assert_eq!(moved_for_nothing(&after, &before, &keys, 2), None);
        let few = RingOptions { virtual_nodes: 1, ..RingOptions::default() };
        let names = ["a", "b", "c", "d"].map(|name| (NodeName::new(name).unwrap(), 100));
        let other = Ring::build(names, few);
        assert!(moved_for_nothing(&before, &other, &keys, 2).is_some());
    }
}
