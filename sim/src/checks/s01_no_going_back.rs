//! 1: what a node knows of a member's incarnation never goes back, as long as the node itself runs.

use std::collections::BTreeMap;

use datad_gossip::key::NodeName;

use super::Violation;
use crate::cluster::Cluster;

/// What was seen last: by observer with its own incarnation, of whom.
#[derive(Debug, Default)]
pub struct NoGoingBack {
    seen: BTreeMap<(NodeName, u64, NodeName), u64>,
}

impl NoGoingBack {
    /// Compares with what was seen last.
    ///
    /// # Errors
    /// An incarnation went back.
    pub fn check(&mut self, cluster: &Cluster) -> Result<(), Violation> {
        for (_, machine, client) in cluster.up() {
            let view = client.view();
            let Some(me) = view.member(&machine.name) else { continue };
            for member in view.members() {
                let place = (machine.name.clone(), me.incarnation, member.name.clone());
                let last = self.seen.insert(place, member.incarnation);
                if let Some(last) = last.filter(|last| *last > member.incarnation) {
                    let (who, of, now) = (&machine.name, &member.name, member.incarnation);
                    let detail = format!("{who} saw incarnation {last} of {of}, and now {now}");
                    return Err(Violation::safety(1, detail));
                }
            }
        }
        Ok(())
    }
}
