//! 10: whoever a node takes for a member is one, and is where that member is.

use super::Violation;
use crate::run::cluster::Cluster;

/// Looks for members that are none.
///
/// # Errors
/// There is one.
pub fn check(cluster: &Cluster) -> Result<(), Violation> {
    for (_, machine, client) in cluster.up() {
        for member in client.view().members() {
            let known = cluster.machines.iter().find(|known| known.name == member.name);
            if known.is_none_or(|known| known.address != member.address) {
                let detail = format!("{} takes {} at {} for a member", machine.name, member.name, member.address);
                return Err(Violation::safety(10, detail));
            }
        }
    }
    Ok(())
}
