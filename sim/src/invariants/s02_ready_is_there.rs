//! 2: a node claims a key as ready only while it has the data: the claim comes after it and goes before it.

use datad_gossip::key::{Key, NodeName};

use crate::model::Violation;

/// Judges that `name` claims `key` as ready. `holds`: the data is there; `vanished`: it was, and went behind the node's back,
/// which need not know that before it is asked for it.
///
/// # Errors
/// A claim without data.
pub fn check(name: &NodeName, key: &Key, holds: bool, vanished: bool) -> Result<(), Violation> {
    if holds || vanished {
        return Ok(());
    }
    Err(Violation::safety(2, format!("{name} claims {key} without having it")))
}
