//! Where a key is, and what was asked to be done about it.

use serde::{Deserialize, Serialize};

use super::{Text, documents};
use crate::{
    core::{
        balancer::{self, IntendedAction},
        catalog::PendingMember,
        registry::HoldingState,
    },
    key::{Key, NodeName},
    operations::explain,
    provider::Description,
};

/// `/-/locate/KEY`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Location {
    /// The key.
    pub key: Key,
    /// Members that should keep it, best first.
    pub owners: Vec<NodeName>,
    /// Live members that are owners or holders of it, by name.
    pub holders: Vec<Holding>,
    /// Whether a pin keeps it always.
    pub pinned: bool,
}

impl From<crate::client::Location> for Location {
    fn from(location: crate::client::Location) -> Self {
        let crate::client::Location { key, owners, holders, pinned } = location;
        Self { key, owners, holders: documents(holders), pinned }
    }
}

/// How a node stands to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Holding {
    /// The node.
    pub node: NodeName,
    /// `fetching`, `ready` or `failed`.
    pub state: Text,
}

impl From<crate::client::Holding> for Holding {
    fn from(holding: crate::client::Holding) -> Self {
        Self { node: holding.node, state: holding_name(holding.state) }
    }
}

fn holding_name(state: HoldingState) -> Text {
    match state {
        HoldingState::Fetching => "fetching",
        HoldingState::Ready => "ready",
        HoldingState::Failed => "failed",
    }
    .into()
}

/// `/-/locate/KEY?explain=true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The key.
    pub key: Key,
    /// How many nodes should keep it.
    pub replicas: usize,
    /// The rule that says so: `pinned`, `prefix` or `default`.
    pub replicas_from: Text,
    /// How many of them there are only because it is hot.
    #[serde(default)]
    pub extra: usize,
    /// The walk around the ring until there are enough owners.
    pub places: Vec<RingStep>,
    /// What the nodes concerned say of themselves, by name.
    pub nodes: Vec<NodeReport>,
    /// Live nodes that did not answer.
    pub silent: Vec<Unanswered>,
}

impl From<explain::Explanation> for Explanation {
    fn from(explanation: explain::Explanation) -> Self {
        let explain::Explanation { key, replicas, replicas_from, extra, places, nodes, silent } = explanation;
        Self {
            key,
            replicas,
            replicas_from: replicas_from.into(),
            extra,
            places: documents(places),
            nodes: documents(nodes),
            silent: documents(silent),
        }
    }
}

/// A node on the key's walk around the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RingStep {
    /// The node.
    pub node: NodeName,
    /// Whether it is an owner, or passed over.
    pub owner: bool,
    /// Why.
    pub why: String,
}

impl From<explain::RingStep> for RingStep {
    fn from(step: explain::RingStep) -> Self {
        let explain::RingStep { node, owner, why } = step;
        Self { node, owner, why }
    }
}

/// What one node says about itself and a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeReport {
    /// The node.
    pub node: NodeName,
    /// What it claims: a state as in [`Holding`].
    pub state: Option<Text>,
    /// What is on its disk, if it has the key and its provider tells.
    pub data: Option<Data>,
    /// Milliseconds until it asks the origin for something new, if a policy says that it does.
    #[serde(default)]
    pub refresh_in_ms: Option<u64>,
    /// What it is about to do.
    pub intention: PlannedAction,
    /// The ring that this follows from; nodes with different ones know of different members.
    pub ring: u64,
}

impl From<explain::NodeReport> for NodeReport {
    fn from(report: explain::NodeReport) -> Self {
        let explain::NodeReport { node, state, data, refresh_in_ms, intention, ring } = report;
        let (state, data) = (state.map(holding_name), data.map(Data::from));
        Self { node, state, data, refresh_in_ms, intention: intention.into(), ring }
    }
}

/// What a node has of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Data {
    /// A short text that is the same for replicas with the same data.
    pub version: Option<String>,
    /// Bytes that it takes there, about.
    pub bytes: Option<u64>,
    /// When it was last brought up to date: milliseconds since the Unix epoch, by that machine's clock.
    pub updated_ms: Option<u64>,
}

impl From<Description> for Data {
    fn from(description: Description) -> Self {
        let Description { version, bytes, updated_ms } = description;
        Self { version, bytes, updated_ms }
    }
}

/// What a node is about to do with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedAction {
    /// `nothing`, `copy`, `fetch` or `release`.
    pub action: Text,
    /// Why not yet, if something stands in the way.
    pub waits_for: Option<String>,
}

impl From<balancer::PlannedAction> for PlannedAction {
    fn from(intention: balancer::PlannedAction) -> Self {
        let action = match intention.action {
            IntendedAction::Nothing => "nothing",
            IntendedAction::Copy => "copy",
            IntendedAction::Fetch => "fetch",
            IntendedAction::Release => "release",
        };
        Self { action: action.into(), waits_for: intention.waits_for }
    }
}

/// A live node that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unanswered {
    /// The node.
    pub node: NodeName,
    /// Why not.
    pub reason: String,
}

impl From<explain::Unanswered> for Unanswered {
    fn from(silent: explain::Unanswered) -> Self {
        let explain::Unanswered { node, reason } = silent;
        Self { node, reason }
    }
}

/// An entry of `/-/pins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pin {
    /// The key or pattern.
    pub key: Key,
    /// How many nodes keep it.
    pub replicas: usize,
}

impl From<crate::core::catalog::Pin> for Pin {
    fn from(pin: crate::core::catalog::Pin) -> Self {
        let crate::core::catalog::Pin { key, replicas } = pin;
        Self { key, replicas }
    }
}

/// Which members have written a pin, an unpin or a forget down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IntentAck {
    /// The key or pattern.
    pub key: Key,
    /// Members that have.
    pub confirmed: Vec<NodeName>,
    /// Members that have not said so.
    pub lacking: Vec<Unconfirmed>,
}

impl From<crate::core::catalog::IntentAck> for IntentAck {
    fn from(recorded: crate::core::catalog::IntentAck) -> Self {
        let crate::core::catalog::IntentAck { key, confirmed, pending } = recorded;
        Self { key, confirmed, lacking: documents(pending) }
    }
}

/// A member that has not said that it has written something down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unconfirmed {
    /// The member.
    pub node: NodeName,
    /// What is known about why.
    pub reason: String,
}

impl From<PendingMember> for Unconfirmed {
    fn from(lacking: PendingMember) -> Self {
        let PendingMember { node, reason } = lacking;
        Self { node, reason }
    }
}

/// An update goes on, or there was nothing to do: `POST /-/update/KEY` and `POST /-/webhook`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Started {
    /// The key, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Why nothing was started, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
    /// Whether an update was started.
    pub started: bool,
}

impl Started {
    /// An update of `key` goes on.
    pub(crate) fn of(key: Key) -> Self {
        Self { key: Some(key), reason: None, started: true }
    }

    /// Nothing was started, for this reason.
    pub(crate) fn nothing(key: Option<Key>, reason: &'static str) -> Self {
        Self { key, reason: Some(reason.into()), started: false }
    }
}

/// An update has ended: `POST /-/update/KEY?wait=true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UpdatedKey {
    /// The key.
    pub key: Key,
    /// How it went on each node that has it.
    pub replicas: Vec<UpdatedReplica>,
}

/// How the update of one replica went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UpdatedReplica {
    /// The node.
    pub node: NodeName,
    /// Why it is not up to date, if it is not.
    pub error: Option<String>,
}

impl From<crate::operations::update::UpdatedReplica> for UpdatedReplica {
    fn from(replica: crate::operations::update::UpdatedReplica) -> Self {
        let crate::operations::update::UpdatedReplica { node, error } = replica;
        Self { node, error }
    }
}
