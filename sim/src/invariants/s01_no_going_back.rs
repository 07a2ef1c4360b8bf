//! 1: a view of node M's ledger only ever contains what M wrote, and what a node knows of a member never goes back, as
//! long as the node itself runs.

use std::{collections::BTreeMap, time::Duration};

use datad_gossip::key::{Key, NodeName};

use crate::model::{Snapshot, Violation};

/// What was seen last: by which start of which machine, of whom.
#[derive(Debug, Default)]
pub struct NoGoingBack(BTreeMap<(usize, Duration, NodeName), u64>);

impl NoGoingBack {
    /// Compares with what was seen last. `had` tells whether a node ever had a key.
    ///
    /// # Errors
    /// An incarnation went back, or a node is said to have what it never had.
    pub fn check(&mut self, seen: &Snapshot, had: impl Fn(&NodeName, &Key) -> bool) -> Result<(), Violation> {
        for node in &seen.nodes {
            for member in node.view.members() {
                let last = self.0.insert((node.machine, node.started, member.name.clone()), member.incarnation);
                if let Some(last) = last.filter(|last| *last > member.incarnation) {
                    let (who, of, now) = (&node.name, &member.name, member.incarnation);
                    let detail = format!("{who} saw incarnation {last} of {of}, and now {now}");
                    return Err(Violation::safety(1, detail));
                }
            }
        }
        for (at, key) in seen.keys.iter().enumerate() {
            for node in &seen.nodes {
                if let Some(name) = node.ready(at).find(|name| !had(name, key)) {
                    let detail = format!("{} sees {key} on {name}, which never had it", node.name);
                    return Err(Violation::safety(1, detail));
                }
            }
        }
        Ok(())
    }
}
