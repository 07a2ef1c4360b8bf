//! 14: once healed, a request for any key succeeds at any node of the core.

use datad_gossip::key::Key;
use http::StatusCode;

use crate::model::{Answer, Violation};

/// Judges the answer of `name` about `key`. `was_published`: its bytes are a value that the key ever had.
///
/// # Errors
/// It is not the data.
pub fn check(name: &str, key: &Key, answer: &Answer, was_published: bool) -> Result<(), Violation> {
    match answer {
        Answer::Body(StatusCode::OK, _) if was_published => Ok(()),
        answer => Err(Violation::liveness(14, format!("asked at {name} for {key}: {answer}"))),
    }
}
