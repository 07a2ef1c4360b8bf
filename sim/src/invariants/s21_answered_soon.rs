//! 21: a request that a reachable holder can answer is answered soon after that has become true.

use std::time::Duration;

use datad_gossip::key::{Key, NodeName};

use crate::model::Violation;

/// How soon: a second, and the time between two looks.
const SOON: Duration = Duration::from_millis(1_200);
/// What a link that has just come up, and that many answers share, carries at least, in bytes per second.
const BYTES_PER_SECOND: u64 = 1_000_000;

/// Judges a request about `key` at `asked` that has not ended at `now`, and that `holder` could have answered since then.
/// `bytes`: what all answers together may take that are under way.
///
/// # Errors
/// It should have ended.
pub fn check(
    now: Duration,
    asked: &NodeName,
    key: &Key,
    holder: &NodeName,
    answerable_since: Duration,
    bytes: u64,
) -> Result<(), Violation> {
    let waited = now.saturating_sub(answerable_since);
    if waited <= SOON + Duration::from_millis(bytes * 1_000 / BYTES_PER_SECOND) {
        return Ok(());
    }
    let detail = format!("{asked} has not answered for {key}, though it could have asked {holder} for {waited:?}");
    Err(Violation::safety(21, detail))
}
