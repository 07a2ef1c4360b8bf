//! 2: a node claims a key as ready only while it has the data: the claim comes after it and goes before it.

use super::Violation;
use crate::cluster::Cluster;

/// Compares every node's claims with its data.
///
/// # Errors
/// A claim without data.
pub fn check(cluster: &Cluster) -> Result<(), Violation> {
    for key in cluster.origin.keys() {
        for (_, machine, client) in cluster.up() {
            if client.nodes_for_key(&key).contains(&machine.name) && machine.memory.bytes(&key).is_none() {
                let detail = format!("{} claims {key} without having it", machine.name);
                return Err(Violation::safety(2, detail));
            }
        }
    }
    Ok(())
}
