//! 15: once healed, backlogs drain to zero, and traffic and tasks return to their idle level.

use crate::model::{CoreSeen, Violation};

/// Datagrams that a machine sends in a second although nobody wants anything: gossip with three others and signs of life
/// on every connection, answered and acknowledged. After many restarts a message takes two datagrams, as it lists them all.
const DATAGRAMS: f64 = 300.0;
const DATAGRAMS_EACH: f64 = 12.0;
/// Tasks of a node without work, and for each other machine.
const TASKS: usize = 90;
const TASKS_EACH: usize = 15;

/// Looks for work that has not ended.
///
/// # Errors
/// There is some.
pub fn check_backlogs(core: &CoreSeen) -> Result<(), Violation> {
    if core.running > 0 {
        return Err(Violation::liveness(15, format!("{} updates still run", core.running)));
    }
    for (name, status, _) in core.words()? {
        // What is asked for beyond the members that are left stays lacking, and has to be said. That each key is on as many
        // as there are is for 13 to check.
        let lacks_more_than_members = status.under_replicated > 0 && status.waiting_for.is_empty();
        if status.fetching > 0 || lacks_more_than_members || !status.converged {
            return Err(Violation::liveness(15, format!("{name} is not idle: {status:?}")));
        }
    }
    Ok(())
}

/// Judges what an idle cluster does: datagrams that one machine sent in a second, on average, and tasks it has.
///
/// # Errors
/// Too much for one that has nothing to do.
pub fn check_level(core: &CoreSeen, datagrams_per_machine: f64) -> Result<(), Violation> {
    let others = core.names.len() as f64;
    let most = DATAGRAMS + DATAGRAMS_EACH * others;
    if datagrams_per_machine > most {
        let detail = format!("{datagrams_per_machine:.0} datagrams a second and machine in an idle cluster");
        return Err(Violation::liveness(15, detail));
    }
    let most = TASKS + TASKS_EACH * core.names.len();
    match core.tasks.iter().find(|(_, tasks)| *tasks > most) {
        Some((name, tasks)) => Err(Violation::liveness(15, format!("{name} has {tasks} tasks and nothing to do"))),
        None => Ok(()),
    }
}
