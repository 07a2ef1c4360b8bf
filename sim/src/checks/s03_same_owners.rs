//! 3: nodes with the same members on the ring compute the same owners, distinct, and min(R, members) of them.

use std::collections::{BTreeMap, BTreeSet};

use datad_gossip::key::NodeName;

use super::Violation;
use crate::cluster::Cluster;

/// Compares the owners that the nodes compute.
///
/// # Errors
/// Two nodes disagree, or there are too few owners.
pub fn check(cluster: &Cluster) -> Result<(), Violation> {
    let replicas = cluster.config.replicas;
    let mut computed: BTreeMap<Vec<NodeName>, (NodeName, Vec<Vec<NodeName>>)> = BTreeMap::new();
    for (_, machine, client) in cluster.up() {
        let view = client.view();
        let members = view.ring().nodes().to_vec();
        let owners: Vec<Vec<NodeName>> =
            cluster.origin.keys().iter().map(|key| view.owners(key, replicas).cloned().collect()).collect();
        let expected = replicas.min(members.len());
        if let Some(wrong) = owners.iter().find(|owners| owners.iter().collect::<BTreeSet<_>>().len() != expected) {
            let detail = format!("{} sees {members:?} and owners {wrong:?}", machine.name);
            return Err(Violation::safety(3, detail));
        }
        let (other, same) = computed.entry(members).or_insert_with(|| (machine.name.clone(), owners.clone()));
        if *same != owners {
            let detail = format!("{} and {other} see the same members and different owners", machine.name);
            return Err(Violation::safety(3, detail));
        }
    }
    Ok(())
}
