//! What stands where in etcd, and in which words: the ancestor's layout, which others read and write too.
//!
//! ```text
//!   PREFIX nodes/NODE                              the member, as JSON, under its lease
//!   PREFIX registry/data/KEY/$$nodes/NODE          what NODE claims of KEY
//!   PREFIX registry/nodes/NODE/$$keys/KEY          the same; a value of another program makes NODE update KEY
//!   PREFIX pins/KEY                                a pin, or a pattern of pins, as JSON: a mirror, see `pins`
//! ```
//!
//! The ancestor read the names and ignored the values, so the values are ours: the state of the claim, in words, with the
//! incarnation where the state does not outlive it. `ready` does, for it speaks of a disk, so a restart writes nothing.
//!
//! Names come from strangers too, so they are read with care: a node's name has no `/`, which makes the last
//! `/$$nodes/` and the first `/$$keys/` the separators whatever the key looks like.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    core::{
        membership::{AdvertisedState, LedgerDigest, NodeInfo, Role, Serves},
        registry::{ClaimState, HolderState},
    },
    key::{Key, NodeName},
};

const NODES: &str = "/$$nodes/";
const KEYS: &str = "/$$keys/";

/// Names under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    prefix: String,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Member(NodeName),
    /// A key or pattern that is always kept.
    Pin(Key),
    /// In the mapping from keys to nodes.
    Holder {
        key: Key,
        node: NodeName,
    },
    /// In the mapping from nodes to keys.
    Assignment {
        node: NodeName,
        key: Key,
    },
}

impl Layout {
    /// Names below `prefix`, with a slash in between whether or not it ends in one.
    pub(crate) fn new(prefix: &str) -> Self {
        let slash = if prefix.ends_with('/') { "" } else { "/" };
        Self { prefix: format!("{prefix}{slash}") }
    }

    pub(crate) fn members(&self) -> String {
        format!("{}nodes/", self.prefix)
    }

    pub(crate) fn member(&self, node: &NodeName) -> String {
        format!("{}nodes/{node}", self.prefix)
    }

    /// Both mappings.
    pub(crate) fn registry(&self) -> String {
        format!("{}registry/", self.prefix)
    }

    /// The mapping from keys to nodes.
    pub(crate) fn data(&self) -> String {
        format!("{}registry/data/", self.prefix)
    }

    pub(crate) fn holder(&self, key: &Key, node: &NodeName) -> String {
        format!("{}registry/data/{key}{NODES}{node}", self.prefix)
    }

    /// The part of the mapping from nodes to keys that is about `node`.
    pub(crate) fn assignments(&self, node: &NodeName) -> String {
        format!("{}registry/nodes/{node}{KEYS}", self.prefix)
    }

    pub(crate) fn assignment(&self, node: &NodeName, key: &Key) -> String {
        format!("{}registry/nodes/{node}{KEYS}{key}", self.prefix)
    }

    /// All pins.
    pub(crate) fn pins(&self) -> String {
        format!("{}pins/", self.prefix)
    }

    pub(crate) fn pin(&self, key: &Key) -> String {
        format!("{}pins/{key}", self.prefix)
    }

    /// What `name` stands for, if it is one of ours.
    pub(crate) fn place(&self, name: &[u8]) -> Option<Place> {
        let rest = std::str::from_utf8(name).ok()?.strip_prefix(&self.prefix)?;
        if let Some(node) = rest.strip_prefix("nodes/") {
            return Some(Place::Member(NodeName::new(node).ok()?));
        }
        if let Some(key) = rest.strip_prefix("pins/") {
            return Some(Place::Pin(Key::new(key).ok()?));
        }
        let rest = rest.strip_prefix("registry/")?;
        if let Some(holder) = rest.strip_prefix("data/") {
            let (key, node) = holder.rsplit_once(NODES)?;
            return Some(Place::Holder { key: Key::new(key).ok()?, node: NodeName::new(node).ok()? });
        }
        let (node, key) = rest.strip_prefix("nodes/")?.split_once(KEYS)?;
        Some(Place::Assignment { node: NodeName::new(node).ok()?, key: Key::new(key).ok()? })
    }
}

/// A claim as both mappings carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// 0 for `Ready`, which outlives incarnations.
    pub(crate) incarnation: u64,
    pub(crate) state: ClaimState,
}

impl Written {
    pub(crate) fn new(incarnation: u64, state: ClaimState) -> Self {
        let incarnation = if state == ClaimState::Ready { 0 } else { incarnation };
        Self { incarnation, state }
    }

    /// `None` for a value that this program did not write: another program's assignment, or an
    /// ancestor's.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut words = text.splitn(4, ' ');
        let state = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        match state {
            "ready" => Some(Self::new(0, ClaimState::Ready)),
            "fetching" => Some(Self::new(number()?, ClaimState::Fetching)),
            "failed" => {
                let (incarnation, retry_at_ms) = (number()?, number()?);
                Some(Self::new(incarnation, ClaimState::failed(words.next().unwrap_or_default(), retry_at_ms)))
            }
            _ => None,
        }
    }

    pub(crate) fn tag(&self) -> HolderState {
        self.state.tag()
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            ClaimState::Ready => f.write_str("ready"),
            ClaimState::Fetching => write!(f, "fetching {}", self.incarnation),
            ClaimState::Failed(failure) => {
                write!(f, "failed {} {} {}", self.incarnation, failure.retry_at_ms(), failure.reason())
            }
        }
    }
}

/// A member as its record tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberRecord {
    pub(crate) incarnation: u64,
    pub(crate) address: SocketAddr,
    pub(crate) facts: NodeInfo,
}

/// The JSON of a [`MemberRecord`]. Unknown fields are skipped, so that later versions may add some.
#[derive(Serialize, Deserialize)]
struct RawMember {
    incarnation: u64,
    address: SocketAddr,
    state: String,
    weight: u32,
    accepting: bool,
    #[serde(default)]
    observer: bool,
    /// Keys that are asked for very often there, with how many replicas more than usual they should have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    hot: BTreeMap<Key, u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    /// Digest of the catalog, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    catalog: Option<String>,
    /// What it serves, as gossip carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serves: Option<String>,
}

impl MemberRecord {
    pub(crate) fn to_json(&self) -> String {
        let facts = &self.facts;
        let state = match facts.state {
            AdvertisedState::Joining => "joining",
            AdvertisedState::Serving => "serving",
            AdvertisedState::Leaving => "leaving",
            AdvertisedState::Away => "away",
            AdvertisedState::Draining => "draining",
            AdvertisedState::Left => "left",
        };
        let raw = RawMember {
            incarnation: self.incarnation,
            address: self.address,
            state: state.into(),
            weight: facts.weight,
            accepting: facts.accepting,
            observer: facts.role == Role::Observer,
            hot: facts.hot.clone(),
            http: facts.http.clone(),
            catalog: facts.catalog.map(|digest| format!("{digest:016x}")),
            serves: facts.serves.as_ref().map(Serves::to_text),
        };
        serde_json::to_string(&raw).expect("numbers and text are always JSON")
    }

    /// `None` for a value that is not a record of this program, such as an ancestor's member.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let raw: RawMember = serde_json::from_slice(value).ok()?;
        let state = match raw.state.as_str() {
            "joining" => AdvertisedState::Joining,
            "serving" => AdvertisedState::Serving,
            "leaving" => AdvertisedState::Leaving,
            "away" => AdvertisedState::Away,
            "draining" => AdvertisedState::Draining,
            "left" => AdvertisedState::Left,
            _ => return None,
        };
        let facts = NodeInfo {
            state,
            role: if raw.observer { Role::Observer } else { Role::Holder },
            weight: raw.weight,
            accepting: raw.accepting,
            http: raw.http,
            ledger: LedgerDigest::default(),
            hot: raw.hot,
            gone: None,
            clock: None,
            serves: raw.serves.as_deref().map(Serves::parse),
            catalog: raw.catalog.and_then(|digest| u64::from_str_radix(&digest, 16).ok()),
        };
        Some(Self { incarnation: raw.incarnation, address: raw.address, facts })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    #[test]
    fn the_layout_is_the_ancestors() {
        let layout = Layout::new("/datad/");
        let (key, n) = (Key::new("github.com/a/b").unwrap(), node("n1"));
        assert_eq!(layout.member(&n), "/datad/nodes/n1");
        assert_eq!(layout.holder(&key, &n), "/datad/registry/data/github.com/a/b/$$nodes/n1");
        assert_eq!(layout.assignment(&n, &key), "/datad/registry/nodes/n1/$$keys/github.com/a/b");
        assert_eq!(Layout::new("/datad").members(), "/datad/nodes/");
    }

    #[test]
    fn names_that_are_not_ours_are_nobodys() {
        let layout = Layout::new("/datad/");
        for name in [
            "/other/nodes/n1",
            "/datad/nodes/a/b",
            "/datad/nodes/Not A Name",
            "/datad/registry/data/a",
            "/datad/registry/data/../a/$$nodes/n1",
            "/datad/registry/nodes/n1/$$keys/",
            "/datad/pins/a//b",
            "/datad/",
        ] {
            assert_eq!(layout.place(name.as_bytes()), None, "{name}");
        }
        assert_eq!(layout.place(&[0xff]), None);
    }

    #[test]
    fn values_of_others_are_told_from_our_own() {
        for value in ["", "1", "Ready", "fetching", "fetching x", "failed 1"] {
            assert_eq!(Written::parse(value.as_bytes()), None, "{value:?}");
        }
        for state in [ClaimState::Ready, ClaimState::Fetching, ClaimState::failed("no such host: x", 17)] {
            let written = Written::new(5, state);
            assert_eq!(Written::parse(written.to_string().as_bytes()), Some(written));
        }
    }

    #[test]
    fn a_member_survives_its_record() {
        let facts = NodeInfo {
            state: AdvertisedState::Serving,
            role: Role::Holder,
            weight: 100,
            accepting: true,
            http: Some("http://h:1".into()),
            ledger: LedgerDigest::default(),
            catalog: Some(7),
            hot: [(Key::new("org/repo").unwrap(), 2)].into(),
            gone: None,
            clock: None,
            serves: Some(Serves::everywhere("git")),
        };
        let record = MemberRecord { incarnation: 7, address: "192.0.2.1:8400".parse().unwrap(), facts };
        assert_eq!(MemberRecord::parse(record.to_json().as_bytes()), Some(record));
        assert_eq!(MemberRecord::parse(b"http://10.0.0.1:80"), None);
    }

    proptest! {
        #[test]
        fn every_key_finds_its_way_back(text in "[a-z$/]{1,40}") {
            let layout = Layout::new("/p");
            if let Ok(key) = Key::new(&text) {
                let n = node("n.1");
                let holder = layout.holder(&key, &n);
                prop_assert_eq!(layout.place(holder.as_bytes()), Some(Place::Holder { key: key.clone(), node: n.clone() }));
                let assignment = layout.assignment(&n, &key);
                let pinned = Some(Place::Pin(key.clone()));
                prop_assert_eq!(layout.place(layout.pin(&key).as_bytes()), pinned);
                prop_assert_eq!(layout.place(assignment.as_bytes()), Some(Place::Assignment { node: n, key }));
            }
        }
    }
}
