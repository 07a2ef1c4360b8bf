//! 1: a view of node M's ledger only ever contains what M wrote, and what a node knows of a member never goes back, as
//! long as the node itself runs.

use std::{collections::BTreeMap, time::Duration};

use datad_gossip::key::{Key, NodeName};

use super::Violation;
use crate::run::cluster::Cluster;

/// What was seen last: by which start of which machine, of whom.
#[derive(Debug, Default)]
pub struct NoGoingBack(BTreeMap<(usize, Duration, NodeName), u64>);

impl NoGoingBack {
    /// Compares with what was seen last.
    ///
    /// # Errors
    /// An incarnation went back, or somebody is said to have what it never had.
    pub fn check(&mut self, cluster: &Cluster, keys: &[Key]) -> Result<(), Violation> {
        for (number, machine, client) in cluster.up() {
            let view = client.view();
            let started = machine.started().unwrap_or_default();
            for member in view.members() {
                let last = self.0.insert((number, started, member.name.clone()), member.incarnation);
                if let Some(last) = last.filter(|last| *last > member.incarnation) {
                    let (who, of, now) = (&machine.name, &member.name, member.incarnation);
                    let detail = format!("{who} saw incarnation {last} of {of}, and now {now}");
                    return Err(Violation::safety(1, detail));
                }
            }
        }
        let truth = cluster.oracle.truth();
        for key in keys {
            for (_, machine, client) in cluster.up() {
                let never = |name: &&NodeName| !truth.had(cluster.number(name.as_str()), key);
                if let Some(name) = client.nodes_for_key(key).iter().find(never) {
                    let detail = format!("{} sees {key} on {name}, which never had it", machine.name);
                    return Err(Violation::safety(1, detail));
                }
            }
        }
        Ok(())
    }
}
