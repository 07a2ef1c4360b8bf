//! 8: a drain does not end as the last live holder of a key, unless it says so.

use datad_gossip::{
    Drained,
    key::{Key, NodeName},
};

use crate::model::Violation;

/// Judges a drain of `name` that has just ended. `alone` are keys that it holds and that no other node has that is alive, or
/// was until lately.
///
/// # Errors
/// Something is nowhere else, and the node has left without saying so.
pub fn check(name: &NodeName, drained: &Drained, mut alone: impl Iterator<Item = Key>) -> Result<(), Violation> {
    if !drained.left || drained.remaining > 0 {
        return Ok(());
    }
    match alone.next() {
        Some(key) => Err(Violation::safety(8, format!("{name} left as the last live holder of {key}"))),
        None => Ok(()),
    }
}
