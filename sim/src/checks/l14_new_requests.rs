//! 14: once healed, a request for any key succeeds at any node of the core.

use datad_gossip::key::Key;

use super::Violation;
use crate::{data::Data, run::requests::Answer};

/// Judges the answer of `name` about `key`.
///
/// # Errors
/// It is not the data.
pub fn check(name: &str, key: &Key, data: &dyn Data, answer: &Answer) -> Result<(), Violation> {
    match answer {
        Answer::Body(http::StatusCode::OK, bytes) if data.was_published(key, bytes) => Ok(()),
        answer => Err(Violation::liveness(14, format!("asked at {name} for {key}: {answer}"))),
    }
}
