//! 8: a drain does not end as the last live holder of a key, unless it says so.

use datad_gossip::Drained;

use super::{Violation, s07_enough_left::LATELY};
use crate::run::cluster::Cluster;

/// Judges a drain that has just ended: what is on that disk has to be on another that is alive, or was until lately.
///
/// # Errors
/// Something is nowhere else, and the drain has left without saying so.
pub fn check(cluster: &Cluster, number: usize, drained: &Drained) -> Result<(), Violation> {
    let mut truth = cluster.oracle.truth();
    truth.probes.hit(if drained.left { "drained" } else { "drain refused" });
    if !drained.left || drained.remaining > 0 {
        return Ok(());
    }
    let now = cluster.clock.now();
    let lives = |other: usize| {
        let machine = &cluster.machines[other];
        machine.started().is_some() || now.saturating_sub(machine.unwell) < LATELY
    };
    for key in cluster.data.keys() {
        // What came behind the node's back, or vanished there, it cannot hand over.
        if !truth.holds(number, &key) || !truth.is_believed(number, &key) || truth.forgotten.contains(&key) {
            continue;
        }
        let others = (0..cluster.machines.len()).filter(|other| *other != number);
        if !others.into_iter().any(|other| lives(other) && truth.had(other, &key)) {
            let name = &cluster.machines[number].name;
            return Err(Violation::safety(8, format!("{name} left as the last live holder of {key}")));
        }
    }
    Ok(())
}
