//! 2: a node claims a key as ready only while it has the data: the claim comes after it and goes before it.

use std::collections::BTreeMap;

use datad_gossip::{HoldingState, key::Key};

use super::Violation;
use crate::{run::cluster::Cluster, trace::What};

/// What every node said of every key when it was last looked at.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<(usize, Key), &'static str>);

impl Claims {
    /// Compares every node's claims with its data, and writes down the changes.
    ///
    /// # Errors
    /// A claim without data.
    pub fn check(&mut self, cluster: &Cluster, keys: &[Key]) -> Result<(), Violation> {
        for (number, machine, client) in cluster.up().filter(|(_, machine, _)| machine.is_node) {
            for key in keys {
                let holders = client.locate(key).holders;
                let holding = holders.iter().find(|holding| holding.node == machine.name).map(|holding| holding.state);
                let mut truth = cluster.oracle.truth();
                // A node need not know of data that vanished behind its back before it is asked for it.
                let vanished = truth.vanished(number, key);
                if holding == Some(HoldingState::Ready) && !truth.holds(number, key) && !vanished {
                    return Err(Violation::safety(2, format!("{} claims {key} without having it", machine.name)));
                }
                let state = match holding {
                    None => "absent",
                    Some(HoldingState::Ready) => "ready",
                    Some(HoldingState::Failed) => "failed",
                    Some(_) => "fetching",
                };
                let before = self.0.insert((number, key.clone()), state).unwrap_or("absent");
                if before == state {
                    continue;
                }
                if before == "ready" && vanished {
                    truth.probes.hit("loss noticed");
                }
                // A fault may come between what happens to the data and the claim that says so. So only a claim that goes
                // tells that a loss was noticed, and only one that comes that a find was.
                if before == "ready" {
                    truth.loss_noticed(number, key);
                }
                if state == "ready" {
                    truth.find_noticed(number, key);
                }
                drop(truth);
                let (machine, key) = (machine.name.to_string(), key.to_string());
                cluster.trace.tell(What::Claim { machine, key, state });
            }
        }
        Ok(())
    }
}
