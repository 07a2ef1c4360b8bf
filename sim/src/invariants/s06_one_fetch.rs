//! 6: at most one fetch of a key from the upstream in flight. On one machine always; in the whole cluster while it is
//! calm, since parts that cannot talk to each other may well fetch the same key, and so may those that have not found each
//! other again yet.

use std::time::Duration;

use datad_gossip::key::Key;

use super::CALM;
use crate::model::{Running, Violation};

/// Judges a fetch of `key` that begins on `machine` while others run, after nothing was wrong for `calm`.
///
/// # Errors
/// There should not be another.
pub fn check(running: &[Running], machine: usize, key: &Key, calm: Option<Duration>) -> Result<(), Violation> {
    let mut fetches = running.iter().filter(|other| other.upstream && other.key == *key);
    match fetches.next() {
        Some(other) if calm.is_some_and(|calm| calm >= CALM) || other.machine == machine => {
            let other = other.machine;
            Err(Violation::safety(6, format!("machine {machine} fetches {key} while machine {other} does")))
        }
        _ => Ok(()),
    }
}
