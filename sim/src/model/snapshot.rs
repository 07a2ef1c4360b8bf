//! What was seen of a run at one moment. Properties are judged by this, never by the cluster itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use datad_gossip::{
    Location, Pin, Status, View,
    key::{Key, NodeName},
};

use super::Violation;

/// An update that has not ended.
#[derive(Debug, Clone)]
pub struct Running {
    /// Of what.
    pub key: Key,
    /// On which machine.
    pub machine: usize,
    /// Whether it asks the upstream, and not another node.
    pub upstream: bool,
    /// When it began.
    pub began: Duration,
    /// Its number among all updates of the run.
    pub id: u64,
}

/// A machine, as seen from outside.
#[derive(Debug, Clone)]
pub struct MachineSeen {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it has a provider.
    pub is_node: bool,
    /// Whether its process exists and neither stands still nor is slow nor about to go.
    pub is_well: bool,
    /// When it was last stopped, slow, or without power.
    pub unwell: Duration,
    /// Tasks that its process runs.
    pub tasks: usize,
    /// What its node last said of itself, and when it was asked.
    pub status: Option<(Duration, Status)>,
}

/// What one running node sees.
#[derive(Debug, Clone)]
pub struct NodeSeen {
    /// The number of its machine.
    pub machine: usize,
    /// Its name.
    pub name: NodeName,
    /// Whether it has a provider.
    pub is_node: bool,
    /// When its process began.
    pub started: Duration,
    /// The members.
    pub view: Arc<View>,
    /// Owners and holders of each key of the snapshot, in its order.
    pub located: Vec<Location>,
}

impl NodeSeen {
    /// The nodes that it takes for ready holders of the key at this place of the snapshot.
    pub fn ready(&self, at: usize) -> impl Iterator<Item = &NodeName> {
        let holders = self.located[at].holders.iter();
        holders.filter(|holding| holding.state == datad_gossip::HoldingState::Ready).map(|holding| &holding.node)
    }
}

/// What a node said of itself, and the pins that it knows.
pub type Said = (Status, Vec<Pin>);

/// All machines at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When.
    pub now: Duration,
    /// Replicas that each key should have.
    pub replicas: usize,
    /// The keys that were looked at.
    pub keys: Vec<Key>,
    /// All machines, by number.
    pub machines: Vec<MachineSeen>,
    /// The nodes that run.
    pub nodes: Vec<NodeSeen>,
}

/// The machines that have to be well in the end, once everything was healed.
#[derive(Debug, Clone)]
pub struct CoreSeen {
    /// Their names.
    pub names: BTreeSet<NodeName>,
    /// Names of those with a provider, in order.
    pub nodes: Vec<NodeName>,
    /// The keys that were looked at.
    pub keys: Vec<Key>,
    /// What they see. Fewer than `names` if some do not serve.
    pub seen: Vec<NodeSeen>,
    /// What each said of itself lately, and the pins that it knows; `None` for one that did not answer.
    pub said: Vec<(NodeName, Option<Said>)>,
    /// Who should say that it has each key, in the order of `keys`.
    pub holders: Vec<BTreeSet<NodeName>>,
    /// Updates that they run.
    pub running: usize,
    /// Tasks of each.
    pub tasks: Vec<(NodeName, usize)>,
    /// When the disk of a machine was last lost, of those where it was.
    pub disks_lost: BTreeMap<NodeName, Duration>,
    /// Whether no wall clock has ever been wrong.
    pub clocks_are_right: bool,
}

impl CoreSeen {
    /// What all of them see.
    ///
    /// # Errors
    /// A node does not serve.
    pub fn all(&self) -> Result<&[NodeSeen], Violation> {
        let serves = |name: &&NodeName| !self.seen.iter().any(|seen| seen.name == **name);
        match self.names.iter().find(serves) {
            Some(name) => Err(Violation::liveness(12, format!("{name} does not serve"))),
            None => Ok(&self.seen),
        }
    }

    /// What they say of themselves, and the pins that they know.
    ///
    /// # Errors
    /// A node does not answer.
    pub fn words(&self) -> Result<impl Iterator<Item = (&NodeName, &Status, &[Pin])>, Violation> {
        if let Some((name, _)) = self.said.iter().find(|(_, said)| said.is_none()) {
            return Err(Violation::liveness(15, format!("{name} does not say how it is")));
        }
        Ok(self.said.iter().filter_map(|(name, said)| {
            let (status, pins) = said.as_ref()?;
            Some((name, status, pins.as_slice()))
        }))
    }

    /// Whether this one is among them and has not lost its disk since that moment.
    #[must_use]
    pub fn kept_disk_since(&self, name: &NodeName, moment: Duration) -> bool {
        self.names.contains(name) && self.disks_lost.get(name).is_none_or(|at| *at < moment)
    }
}
