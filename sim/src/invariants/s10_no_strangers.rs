//! 10: what a node takes for a member is one, and is where that member is.

use crate::model::{Snapshot, Violation};

/// Looks for members that are not.
///
/// # Errors
/// There is one.
pub fn check(seen: &Snapshot) -> Result<(), Violation> {
    for node in &seen.nodes {
        for member in node.view.members() {
            let known = seen.machines.iter().find(|known| known.name == member.name);
            if known.is_none_or(|known| known.address != member.address) {
                let detail = format!("{} takes {} at {} for a member", node.name, member.name, member.address);
                return Err(Violation::safety(10, detail));
            }
        }
    }
    Ok(())
}
