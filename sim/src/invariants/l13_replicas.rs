//! 13: once healed, every key that anybody in the core has or that is pinned is on all of its owners, and nowhere else. An
//! owner with little room need not have what is on enough other disks, which then keep it.

use std::collections::BTreeSet;

use datad_gossip::{Status, key::NodeName};

use crate::model::{CoreSeen, Violation};

/// Compares data, claims and owners of every key.
///
/// # Errors
/// A replica is missing, or surplus.
pub fn check(core: &CoreSeen, disk_low: f64) -> Result<(), Violation> {
    let missing = |detail: String| Err(Violation::liveness(13, detail));
    let is_tight = |status: &Status| status.disk.is_some_and(|disk| disk.share() >= disk_low);
    let tight: BTreeSet<&NodeName> =
        core.words()?.filter(|(_, status, _)| is_tight(status)).map(|(name, ..)| name).collect();
    let seen = core.all()?;
    for (at, (key, have)) in core.keys.iter().zip(&core.holders).enumerate() {
        for node in seen {
            let (name, located) = (&node.name, &node.located[at]);
            let ready: BTreeSet<NodeName> = node.ready(at).cloned().collect();
            if ready != *have {
                return missing(format!("{key}: {name} sees it on {ready:?}, but it is on {have:?}"));
            }
            let owners: BTreeSet<NodeName> = located.owners.iter().cloned().collect();
            let in_its_place = owners == *have
                || (have.len() >= owners.len() && owners.difference(have).all(|owner| tight.contains(owner)));
            if (!have.is_empty() || located.pinned) && !in_its_place {
                return missing(format!("{key}: owned by {owners:?}, but on {have:?}"));
            }
        }
    }
    Ok(())
}
