//! 7: dropping a replica leaves at least R others; of a node whose disk is full, at least one, unless the upstream has just said
//! that it has the key, and nobody pinned it.

use std::time::Duration;

use datad_gossip::key::Key;

use crate::model::Violation;

/// What a fault took away this recently, like room that came back so recently, may have been counted when the drop was decided.
pub const LATELY: Duration = Duration::from_secs(15);

/// Judges that `machine` drops `key` while it is on so many other disks, and has to be on so many.
///
/// # Errors
/// They are too few.
pub fn check(machine: &str, key: &Key, others: usize, needed: usize) -> Result<(), Violation> {
    if others < needed {
        return Err(Violation::safety(7, format!("{machine} drops {key}, which is on {others} other disks")));
    }
    Ok(())
}
