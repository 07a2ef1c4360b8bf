//! The calls that a node makes to another node, and their answers.

use serde::{Deserialize, Serialize};

use super::{
    ensured::Ensured,
    members::{GoneMember, RemovedMember},
    refusal::Refusal,
};

use crate::{
    catalog::{Page, Record, Time},
    explain::Insight,
    key::{Key, NodeName},
    registry::{Delta, Position},
};

/// A short question to one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Have the key, fetching it if need be, and say when you do.
    Ensure {
        key: Key,
        /// How long the caller waits, in milliseconds.
        patience_ms: u32,
        /// How often the call may still be passed on.
        hops: u8,
        /// Fingerprint of the ring the caller planned on.
        ring: u64,
    },
    /// Bring a key you hold up to date; `from` empty means from the origin.
    Refresh { key: Key, from: Vec<NodeName>, patience_ms: u32 },
    /// What do you know of `node`'s ledger beyond `position`?
    Pull { node: NodeName, position: Position },
    /// Are you a ready owner of these keys, and will you stay so for a while?
    Vouch { keys: Vec<Key>, ring: u64 },
    /// Write these intents down, and say when they are durable.
    Intend { records: Vec<Record> },
    /// What do you know of the intents about keys after `after`?
    PullCatalog { after: Option<Key> },
    /// Hand over what only you hold, and leave.
    Drain { force: bool, patience_ms: u32 },
    /// What have you of the key, and what are you about to do with it?
    Explain { key: Key },
    /// Which members do you remember that are gone, and which were removed?
    PullGone,
    /// Keep a copy of the key, which only the caller has, while the caller is away; answered with `Ensured`.
    Copy { key: Key },
    /// As [`Call::Ensure`], but ask the origin also if you remember that it did not give the key.
    Create { key: Key, patience_ms: u32, hops: u8, ring: u64 },
    /// How far is your update of the key?
    Progress { key: Key },
}

/// The answer to a [`Call`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Ensured(Ensured),
    Delta(Option<Box<Delta>>),
    Vouched(Vec<bool>),
    Refused(Refusal),
    Intended,
    Catalog(Box<Page>),
    /// Whether the node left, how many keys no other live node has, and some of them.
    Drained {
        left: bool,
        remaining: u64,
        keys: Vec<Key>,
    },
    Explained(Box<Insight>),
    /// Written down, but something later is known of the same key: of this time.
    Superseded(Time),
    /// Members that are gone, and those that were removed.
    Gone {
        gone: Vec<GoneMember>,
        removed: Vec<RemovedMember>,
    },
    /// The bytes that an update has brought so far, if one runs.
    Progress(Option<u64>),
}
