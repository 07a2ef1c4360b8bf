//! What every node says of every key, written down as it changes.

use std::collections::BTreeMap;

use datad_gossip::{HoldingState, key::Key};

use crate::{
    cluster::Cluster,
    invariants::s02_ready_is_there,
    model::{Snapshot, Violation, What},
};

/// What every node said of every key when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<(usize, Key), &'static str>);

impl Claims {
    /// Compares every node's claims with its data, and writes down the changes.
    ///
    /// # Errors
    /// A claim without data.
    pub(super) fn look(&mut self, seen: &Snapshot, cluster: &Cluster) -> Result<(), Violation> {
        for node in seen.nodes.iter().filter(|node| node.is_node) {
            for (key, located) in seen.keys.iter().zip(&node.located) {
                let mut holders = located.holders.iter();
                let holding = holders.find(|holding| holding.node == node.name).map(|holding| holding.state);
                let mut truth = cluster.oracle.truth();
                let vanished = truth.vanished(node.machine, key);
                if holding == Some(HoldingState::Ready) {
                    s02_ready_is_there::check(&node.name, key, truth.holds(node.machine, key), vanished)?;
                }
                let state = match holding {
                    None => "absent",
                    Some(HoldingState::Ready) => "ready",
                    Some(HoldingState::Failed) => "failed",
                    Some(_) => "fetching",
                };
                let before = self.0.insert((node.machine, key.clone()), state).unwrap_or("absent");
                if before == state {
                    continue;
                }
                if before == "ready" && vanished {
                    truth.probes.hit("loss noticed");
                }
                // A fault may come between what happens to the data and the claim that says so. So only a claim that goes
                // tells that a loss was noticed, and only one that comes that a find was.
                if before == "ready" {
                    truth.loss_noticed(node.machine, key);
                }
                if state == "ready" {
                    truth.find_noticed(node.machine, key);
                }
                drop(truth);
                let (machine, key) = (node.name.to_string(), key.to_string());
                cluster.trace.tell(What::Claim { machine, key, state });
            }
        }
        Ok(())
    }
}
