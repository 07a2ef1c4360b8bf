//! 17: what gossip tells of follows the members that are alive, and those that ended a moment ago; no message exceeds its
//! limit.

use std::time::Duration;

use super::Violation;
use crate::run::cluster::Cluster;

/// A node tells of an identity for this long after the identity has ended, at most.
const TOLD_FOR: Duration = Duration::from_secs(45);
/// Largest message, in bytes: chitchat's limit of a datagram.
const MESSAGE_BYTES_MAX: u64 = 65_507;

/// Compares what nodes tell of with the machines that there are. A process that begins anew counts as a new identity.
///
/// # Errors
/// A node tells of more identities than there can be, or has sent a message that is too long.
pub fn check(cluster: &Cluster) -> Result<(), Violation> {
    let now = cluster.clock.now();
    let lately = cluster.begun_since(now.saturating_sub(TOLD_FOR));
    let most = cluster.machines.iter().filter(|machine| machine.is_node).count() + lately;
    for machine in cluster.machines.iter().filter(|machine| machine.is_well() && machine.unwell + TOLD_FOR <= now) {
        let Some(status) = machine.status(now.saturating_sub(Duration::from_secs(1))) else { continue };
        if status.gossip_identities > most {
            let (name, identities) = (&machine.name, status.gossip_identities);
            let detail = format!("{name} gossips of {identities} identities, though there are {most} at most");
            return Err(Violation::safety(17, detail));
        }
        if status.gossip_largest > MESSAGE_BYTES_MAX {
            let detail = format!("{} has sent a gossip message of {} bytes", machine.name, status.gossip_largest);
            return Err(Violation::safety(17, detail));
        }
    }
    Ok(())
}
