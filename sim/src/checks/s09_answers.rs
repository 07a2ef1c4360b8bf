//! 9: a request ends in time, with what the origin published or with a typed error; in a calm cluster with the former.

use bytes::Bytes;
use datad_gossip::{RouteError, key::Key};
use http::StatusCode;

use super::Violation;
use crate::request::Answer;

/// Judges an answer about `key`, of which the origin has `value`.
///
/// # Errors
/// The answer is wrong.
pub fn check(key: &Key, value: Option<&Bytes>, answer: &Answer, calm: bool) -> Result<(), Violation> {
    let wrong = |what: String| Err(Violation::safety(9, format!("{key}: {what}")));
    match (answer, value) {
        (Answer::Body(StatusCode::OK, bytes), Some(value)) if bytes == value => Ok(()),
        (Answer::Body(status, bytes), _) => wrong(format!("{status} with {} bytes that nobody published", bytes.len())),
        (Answer::Error(RouteError::NotFound { .. }), None) => Ok(()),
        (Answer::Error(RouteError::NotFound { .. }), Some(_)) => wrong("not found, but it is there".into()),
        (Answer::Error(error), _) if calm => wrong(format!("nothing is wrong, and yet: {error}")),
        (Answer::BrokenOff(error), _) if calm => wrong(format!("nothing is wrong, and yet it broke off: {error}")),
        (Answer::Error(_) | Answer::BrokenOff(_), _) => Ok(()),
        (Answer::Hangs, _) => wrong("no answer long after the deadline".into()),
    }
}
