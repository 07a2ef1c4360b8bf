//! 5: updates that run at once are at most as many as there are updaters, and at most one for each key.

use datad_gossip::key::Key;

use crate::model::{Running, Violation};

/// Judges an update of `key` that begins on `machine` while others run.
///
/// # Errors
/// There are too many.
pub fn check(running: &[Running], machine: usize, key: &Key, updaters: usize) -> Result<(), Violation> {
    let here = || running.iter().filter(|other| other.machine == machine);
    if here().any(|other| other.key == *key) {
        return Err(Violation::safety(5, format!("machine {machine} updates {key} twice at once")));
    }
    if here().count() >= updaters {
        return Err(Violation::safety(5, format!("machine {machine} runs more than {updaters} updates")));
    }
    Ok(())
}
