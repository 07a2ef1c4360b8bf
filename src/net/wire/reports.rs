//! What a node says about itself and a key, as it travels.
//!
//! The public reports have the same fields, but a field that is added to one of those must not change what travels: the
//! encoding goes by position, and a node of the version before would misread it.

use serde::{Deserialize, Serialize};

use crate::{
    core::balancer::{IntendedAction, PlannedAction},
    key::NodeName,
    provider::Description,
};

/// The answer to [`Explain`](super::calls::Explain).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyReport {
    pub(crate) node: NodeName,
    pub(crate) state: Option<Holding>,
    pub(crate) data: Option<Data>,
    pub(crate) refresh_in_ms: Option<u64>,
    pub(crate) intention: Intended,
    pub(crate) ring: u64,
}

/// What a node claims of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Holding {
    Fetching,
    Ready,
    Failed,
}

/// What a node has of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) version: Option<String>,
    pub(crate) bytes: Option<u64>,
    pub(crate) updated_ms: Option<u64>,
}

/// What a node is about to do with a key, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intended {
    pub(crate) action: Action,
    pub(crate) waits_for: Option<String>,
}

/// What a node may intend to do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    Nothing,
    Copy,
    Fetch,
    Release,
}

impl From<Description> for Data {
    fn from(Description { version, bytes, updated_ms }: Description) -> Self {
        Self { version, bytes, updated_ms }
    }
}

impl From<Data> for Description {
    fn from(Data { version, bytes, updated_ms }: Data) -> Self {
        Self { version, bytes, updated_ms }
    }
}

impl From<PlannedAction> for Intended {
    fn from(PlannedAction { action, waits_for }: PlannedAction) -> Self {
        let action = match action {
            IntendedAction::Nothing => Action::Nothing,
            IntendedAction::Copy => Action::Copy,
            IntendedAction::Fetch => Action::Fetch,
            IntendedAction::Release => Action::Release,
        };
        Self { action, waits_for }
    }
}

impl From<Intended> for PlannedAction {
    fn from(Intended { action, waits_for }: Intended) -> Self {
        let action = match action {
            Action::Nothing => IntendedAction::Nothing,
            Action::Copy => IntendedAction::Copy,
            Action::Fetch => IntendedAction::Fetch,
            Action::Release => IntendedAction::Release,
        };
        Self { action, waits_for }
    }
}
