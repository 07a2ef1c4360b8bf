//! 9: a request ends in time, with what was published or with a typed error; in a calm cluster with the former.

use datad_gossip::{RouteError, key::Key};
use http::StatusCode;

use crate::model::{Answer, Violation};

/// What is true of a key and of an answer about it.
#[derive(Debug, Clone, Copy)]
pub struct Truth {
    /// Whether the bytes of the answer are a value that the key ever had.
    pub was_published: bool,
    /// Whether the upstream lacks the key, or said so lately enough for an answer to rest on it.
    pub may_lack: bool,
    /// Whether nothing is wrong with the cluster.
    pub is_calm: bool,
}

/// Judges an answer about `key`.
///
/// # Errors
/// The answer is wrong.
pub fn check(key: &Key, answer: &Answer, truth: Truth) -> Result<(), Violation> {
    let Truth { was_published, may_lack, is_calm } = truth;
    let wrong = |what: String| Err(Violation::safety(9, format!("{key}: {what}")));
    match answer {
        Answer::Body(StatusCode::OK, _) if was_published => Ok(()),
        Answer::Body(status, bytes) => wrong(format!("{status} with {} bytes that nobody published", bytes.len())),
        Answer::Error(RouteError::NotFound { .. }) if may_lack => Ok(()),
        Answer::Error(RouteError::NotFound { .. }) => wrong("not found, but it is there".into()),
        Answer::Hangs => wrong("no answer long after the deadline".into()),
        Answer::Error(error) if is_calm && !may_lack => wrong(format!("nothing is wrong, and yet: {error}")),
        Answer::BrokenOff(error) if is_calm => wrong(format!("nothing is wrong, and yet it broke off: {error}")),
        Answer::NotRecorded(error) if is_calm => {
            wrong(format!("nothing is wrong, and yet an intent is refused: {error}"))
        }
        Answer::Error(_) | Answer::BrokenOff(_) | Answer::Updated(..) => Ok(()),
        Answer::Recorded(_) | Answer::NotRecorded(_) => Ok(()),
    }
}
