//! 11: tasks, connections and retries stay within bounds, whatever happens. That no node ends by itself is seen to
//! elsewhere.

use std::time::Duration;

use datad_gossip::key::Key;

use super::Violation;
use crate::{
    run::cluster::{Cluster, Machine},
    script::MACHINES_MAX,
};

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
pub fn check(cluster: &Cluster, requests: usize) -> Result<(), Violation> {
    let machines = cluster.machines.len();
    let most = TASKS + TASKS_EACH * (machines + requests);
    // What stands still only collects what it is asked, and then has to work it off.
    let now = cluster.clock.now();
    let has_caught_up = |machine: &&Machine| machine.unwell.is_zero() || machine.unwell + CATCH_UP <= now;
    for machine in cluster.machines.iter().filter(|machine| machine.is_well()).filter(has_caught_up) {
        let tasks = machine.tasks();
        if tasks > most {
            return Err(Violation::safety(11, format!("{} runs {tasks} tasks, more than {most}", machine.name)));
        }
        let status = machine.status(Duration::ZERO);
        if let Some(status) = status.filter(|status| status.connections > 2 * machines.min(MACHINES_MAX)) {
            let detail = format!("{} has {} connections to {machines} machines", machine.name, status.connections);
            return Err(Violation::safety(11, detail));
        }
    }
    Ok(())
}
