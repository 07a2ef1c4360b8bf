//! 9: a request ends in time, with what was published or with a typed error; in a calm cluster with the former.

use std::time::Duration;

use datad_gossip::{RouteError, key::Key};
use http::StatusCode;

use super::Violation;
use crate::{data::Data, run::requests::Answer};

/// Judges an answer about `key`. An answer that there is none may rest on what the upstream said within `memory`.
///
/// # Errors
/// The answer is wrong.
pub fn check(key: &Key, data: &dyn Data, answer: &Answer, calm: bool, memory: Duration) -> Result<(), Violation> {
    let wrong = |what: String| Err(Violation::safety(9, format!("{key}: {what}")));
    match answer {
        Answer::Body(StatusCode::OK, bytes) if data.was_published(key, bytes) => Ok(()),
        Answer::Body(status, bytes) => wrong(format!("{status} with {} bytes that nobody published", bytes.len())),
        Answer::Error(RouteError::NotFound { .. }) if data.may_lack(key, memory) => Ok(()),
        Answer::Error(RouteError::NotFound { .. }) => wrong("not found, but it is there".into()),
        Answer::Hangs => wrong("no answer long after the deadline".into()),
        Answer::Error(error) if calm && !data.may_lack(key, memory) => {
            wrong(format!("nothing is wrong, and yet: {error}"))
        }
        Answer::BrokenOff(error) if calm => wrong(format!("nothing is wrong, and yet it broke off: {error}")),
        Answer::NotRecorded(error) if calm => wrong(format!("nothing is wrong, and yet an intent is refused: {error}")),
        Answer::Error(_) | Answer::BrokenOff(_) | Answer::Updated(..) => Ok(()),
        Answer::Recorded(_) | Answer::NotRecorded(_) => Ok(()),
    }
}
