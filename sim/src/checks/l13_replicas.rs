//! 13: once healed, every key that anybody in the core has or that is pinned is on all of its owners, and nowhere else. An
//! owner with little room need not have what is on enough other disks, which then keep it.

use std::collections::BTreeSet;

use datad_gossip::{
    Status,
    key::{Key, NodeName},
};

use super::Violation;
use crate::run::Core;

/// Compares data, claims and owners of every key.
///
/// # Errors
/// A replica is missing, or surplus.
pub fn check(core: &Core<'_>, keys: &[Key], disk_low: f64) -> Result<(), Violation> {
    let missing = |detail: String| Err(Violation::liveness(13, detail));
    let is_tight = |status: &Status| status.disk.is_some_and(|disk| disk.share() >= disk_low);
    let statuses = core.statuses()?.into_iter();
    let tight: BTreeSet<NodeName> = statuses.filter(|(_, status)| is_tight(status)).map(|(name, _)| name).collect();
    for key in keys {
        let have: BTreeSet<NodeName> = core.holders(key);
        for (name, client) in core.clients()? {
            let ready: BTreeSet<NodeName> = client.nodes_for_key(key).into_iter().collect();
            if ready != have {
                return missing(format!("{key}: {name} sees it on {ready:?}, but it is on {have:?}"));
            }
            let located = client.locate(key);
            let owners: BTreeSet<NodeName> = located.owners.into_iter().collect();
            let in_its_place = owners == have
                || (have.len() >= owners.len() && owners.difference(&have).all(|owner| tight.contains(owner)));
            if (!have.is_empty() || located.pinned) && !in_its_place {
                return missing(format!("{key}: owned by {owners:?}, but on {have:?}"));
            }
        }
    }
    Ok(())
}
