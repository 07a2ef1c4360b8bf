//! 13: once healed, every key that anybody in the core has or that is pinned is on all of its owners, and nowhere else.

use std::collections::BTreeSet;

use datad_gossip::key::{Key, NodeName};

use super::Violation;
use crate::run::Core;

/// Compares data, claims and owners of every key.
///
/// # Errors
/// A replica is missing, or surplus.
pub fn check(core: &Core<'_>, keys: &[Key]) -> Result<(), Violation> {
    let missing = |detail: String| Err(Violation::liveness(13, detail));
    for key in keys {
        let have: BTreeSet<NodeName> = core.holders(key);
        for (name, client) in core.clients()? {
            let ready: BTreeSet<NodeName> = client.nodes_for_key(key).into_iter().collect();
            if ready != have {
                return missing(format!("{key}: {name} sees it on {ready:?}, but it is on {have:?}"));
            }
            let located = client.locate(key);
            let owners: BTreeSet<NodeName> = located.owners.into_iter().collect();
            if (!have.is_empty() || located.pinned) && owners != have {
                return missing(format!("{key}: owned by {owners:?}, but on {have:?}"));
            }
        }
    }
    Ok(())
}
