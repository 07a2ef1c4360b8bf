//! 11: tasks, connections and retries stay within bounds, whatever happens. That no node ends by itself is seen to
//! elsewhere.

use std::time::Duration;

use datad_gossip::key::Key;

use crate::model::{MACHINES_MAX, MachineSeen, Snapshot, Violation};

/// Tasks of a node that has nothing to do with anybody, and for each other machine, request and update.
const TASKS: usize = 120;
const TASKS_EACH: usize = 40;
/// How long handshakes of those that have given up may wait for them.
const CATCH_UP: Duration = Duration::from_secs(7);

/// So many updates of one key may fail on one machine within this time; with pauses that grow they are far fewer.
pub const STORM: Duration = Duration::from_secs(10);
const FAILURES_MAX: usize = 15;

/// Judges how often an update of `key` has failed lately.
///
/// # Errors
/// It is tried again much too often.
pub fn check_storm(machine: &str, key: &Key, failures: usize) -> Result<(), Violation> {
    if failures > FAILURES_MAX {
        let detail = format!("{machine} tried to update {key} {failures} times in {STORM:?}");
        return Err(Violation::safety(11, detail));
    }
    Ok(())
}

/// Counts what nodes run.
///
/// # Errors
/// It is too much.
pub fn check(seen: &Snapshot, requests: usize) -> Result<(), Violation> {
    let machines = seen.machines.len();
    let most = TASKS + TASKS_EACH * (machines + requests);
    // What stands still only collects what it is asked, and then has to work it off.
    let has_caught_up = |machine: &&MachineSeen| machine.unwell.is_zero() || machine.unwell + CATCH_UP <= seen.now;
    for machine in seen.machines.iter().filter(|machine| machine.is_well).filter(has_caught_up) {
        if machine.tasks > most {
            let detail = format!("{} runs {} tasks, more than {most}", machine.name, machine.tasks);
            return Err(Violation::safety(11, detail));
        }
        let Some((_, status)) = &machine.status else { continue };
        if status.connections > 2 * machines.min(MACHINES_MAX) {
            let detail = format!("{} has {} connections to {machines} machines", machine.name, status.connections);
            return Err(Violation::safety(11, detail));
        }
    }
    Ok(())
}
