//! 17: what gossip tells of follows the members that are alive, and those that ended a moment ago; no message exceeds its
//! limit.

use std::time::Duration;

use crate::model::{Snapshot, Violation};

/// A node tells of an identity for this long after the identity has ended, at most.
pub const TOLD_FOR: Duration = Duration::from_secs(45);
/// Largest message, in bytes: chitchat's limit of a datagram.
const MESSAGE_BYTES_MAX: u64 = 65_507;

/// Compares what nodes tell of with the machines that there are. `begun`: processes that began within [`TOLD_FOR`]; each counts as
/// a new identity.
///
/// # Errors
/// A node tells of more identities than there can be, or has sent a message that is too long.
pub fn check(seen: &Snapshot, begun: usize) -> Result<(), Violation> {
    let lately = seen.now.saturating_sub(Duration::from_secs(1));
    let most = seen.machines.iter().filter(|machine| machine.is_node).count() + begun;
    for machine in seen.machines.iter().filter(|machine| machine.is_well && machine.unwell + TOLD_FOR <= seen.now) {
        let Some((_, status)) = machine.status.as_ref().filter(|(asked, _)| *asked >= lately) else { continue };
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
