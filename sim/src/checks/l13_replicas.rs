//! 13: once healed, every key that anybody has is on all of its owners, complete, and nowhere else.

use std::collections::BTreeSet;

use datad_gossip::key::NodeName;

use super::Violation;
use crate::cluster::Cluster;

/// Compares data, claims and owners of every key.
///
/// # Errors
/// A replica is missing, or surplus, or not what was published.
pub fn check(cluster: &Cluster) -> Result<(), Violation> {
    let missing = |detail: String| Err(Violation::liveness(13, detail));
    for key in cluster.origin.keys() {
        let value = cluster.origin.value(&key);
        let data: Vec<_> = cluster.machines.iter().map(|machine| (&machine.name, machine.memory.bytes(&key))).collect();
        if let Some((name, _)) = data.iter().find(|(_, bytes)| bytes.is_some() && *bytes != value) {
            return Err(Violation::safety(9, format!("{name} has bytes of {key} that nobody published")));
        }
        let have: BTreeSet<NodeName> =
            data.iter().filter(|(_, bytes)| bytes.is_some()).map(|(name, _)| (*name).clone()).collect();
        for (_, machine, client) in cluster.up() {
            let ready: BTreeSet<NodeName> = client.nodes_for_key(&key).into_iter().collect();
            if ready != have {
                return missing(format!("{key}: {} sees it on {ready:?}, but it is on {have:?}", machine.name));
            }
            let owners: BTreeSet<NodeName> = client.locate(&key).owners.into_iter().collect();
            if !have.is_empty() && owners != have {
                return missing(format!("{key}: owned by {owners:?}, but on {have:?}"));
            }
        }
    }
    Ok(())
}
