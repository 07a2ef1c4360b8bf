//! 6: at most one fetch of a key in flight. On one machine always; in the whole cluster while it is calm, since parts that
//! cannot talk to each other may well fetch the same key, and so may those that have not found each other again yet.

use datad_gossip::key::Key;
use tokio::time::Instant;

use super::{CALM, Violation};
use crate::origin::Fetch;

/// Judges a fetch of `key` that begins on `machine` while others are in flight.
///
/// # Errors
/// There should not be another.
pub fn check(in_flight: &[Fetch], machine: usize, key: &Key, calm_since: Option<Instant>) -> Result<(), Violation> {
    let Some(other) = in_flight.iter().find(|fetch| fetch.key == *key) else { return Ok(()) };
    let calm = calm_since.is_some_and(|since| since.elapsed() >= CALM);
    if calm || other.machine == machine {
        let (machine, other) = (machine + 1, other.machine + 1);
        return Err(Violation::safety(6, format!("n{machine} fetches {key} while n{other} fetches it")));
    }
    Ok(())
}
