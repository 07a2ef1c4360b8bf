//! What a member says of itself, and how gossip carries it: as names and values.

use std::collections::BTreeMap;

use super::serves::Serves;
use crate::key::Key;

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeInfo {
    pub(crate) state: AdvertisedState,
    pub(crate) role: Role,
    pub(crate) weight: u32,
    pub(crate) accepting: bool,
    pub(crate) http: Option<String>,
    pub(crate) ledger: LedgerDigest,
    /// Digest of its catalog; `None` of a version that has none.
    pub(crate) catalog: Option<u64>,
    /// How many replicas more than usual which keys should have, for they are asked for very often there.
    pub(crate) hot: BTreeMap<Key, u8>,
    /// Digest of the dead that it remembers; `None` of a version that does not tell.
    pub(crate) gone: Option<u64>,
    /// What its wall clock said a while ago, in milliseconds since 1970; `None` of a version that does not tell.
    pub(crate) clock: Option<u64>,
    /// The kind of data that the node serves. `None` for observers, for providers that do not say,
    /// and for versions that do not tell.
    pub(crate) serves: Option<Serves>,
}

/// The states that a member can announce, in their order; death it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AdvertisedState {
    Joining,
    Serving,
    /// About to stop, to be back soon.
    Leaving,
    /// Goodbye, until soon.
    Away,
    Draining,
    /// Goodbye for good.
    Left,
}

/// What a member is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Holder,
    Observer,
}

/// How far a ledger has come, and a digest of what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LedgerDigest {
    pub(crate) version: u64,
    pub(crate) digest: u64,
}

impl NodeInfo {
    /// As gossip carries them.
    pub(crate) fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let state = match self.state {
            AdvertisedState::Joining => "joining",
            AdvertisedState::Serving => "serving",
            AdvertisedState::Leaving => "leaving",
            AdvertisedState::Away => "away",
            AdvertisedState::Draining => "draining",
            AdvertisedState::Left => "left",
        };
        let role = match self.role {
            Role::Holder => "holder",
            Role::Observer => "observer",
        };
        let catalog = self.catalog.map(|digest| ("catalog", format!("{digest:016x}")));
        let gone = self.gone.map(|digest| ("gone", format!("{digest:016x}")));
        let clock = self.clock.map(|ms| ("clock", ms.to_string()));
        let serves = self.serves.as_ref().map(|serves| ("serves", serves.to_text()));
        let pairs = vec![
            ("state", state.into()),
            ("role", role.into()),
            ("weight", self.weight.to_string()),
            ("accepting", self.accepting.to_string()),
            ("http", self.http.clone().unwrap_or_default()),
            ("ledger", format!("{}:{:016x}", self.ledger.version, self.ledger.digest)),
        ];
        let hot: Vec<String> = self.hot.iter().map(|(key, extra)| format!("{extra} {key}")).collect();
        pairs
            .into_iter()
            .chain(catalog)
            .chain(gone)
            .chain(clock)
            .chain(serves)
            .chain([("hot", hot.join("\n"))])
            .collect()
    }

    /// Reads them back. `None` while some have not arrived yet, or if they make no sense.
    pub(crate) fn parse<'a>(read: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let (version, digest) = read("ledger")?.split_once(':')?;
        Some(Self {
            state: match read("state")? {
                "joining" => AdvertisedState::Joining,
                "serving" => AdvertisedState::Serving,
                "leaving" => AdvertisedState::Leaving,
                "away" => AdvertisedState::Away,
                "draining" => AdvertisedState::Draining,
                "left" => AdvertisedState::Left,
                _ => return None,
            },
            role: if read("role")? == "observer" { Role::Observer } else { Role::Holder },
            weight: read("weight")?.parse().ok()?,
            accepting: read("accepting")?.parse().ok()?,
            http: read("http").filter(|http| !http.is_empty()).map(str::to_owned),
            ledger: LedgerDigest { version: version.parse().ok()?, digest: u64::from_str_radix(digest, 16).ok()? },
            catalog: read("catalog").and_then(|digest| u64::from_str_radix(digest, 16).ok()),
            gone: read("gone").and_then(|digest| u64::from_str_radix(digest, 16).ok()),
            clock: read("clock").and_then(|ms| ms.parse().ok()),
            serves: read("serves").map(Serves::parse),
            hot: read("hot").unwrap_or_default().lines().filter_map(hot_key).collect(),
        })
    }
}

fn hot_key(line: &str) -> Option<(Key, u8)> {
    let (extra, key) = line.split_once(' ')?;
    Some((Key::new(key).ok()?, extra.parse().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Something in every field.
    pub(in crate::core::membership) fn facts(state: AdvertisedState) -> NodeInfo {
        let ledger = LedgerDigest { version: 3, digest: 9 };
        NodeInfo {
            state,
            role: Role::Holder,
            weight: 100,
            accepting: true,
            http: Some("http://h:1".into()),
            ledger,
            catalog: Some(7),
            hot: [(Key::new("a key").unwrap(), 1), (Key::new("b").unwrap(), 2)].into(),
            gone: Some(3),
            clock: Some(1_800_000_000_000),
            serves: Some(Serves::everywhere("git")),
        }
    }

    #[test]
    fn facts_survive_gossip() {
        let facts = facts(AdvertisedState::Draining);
        let pairs = facts.to_pairs();
        let read = |key: &str| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
        assert_eq!(NodeInfo::parse(read), Some(facts.clone()));
        assert_eq!(NodeInfo::parse(|key| read(key).filter(|_| key != "weight")), None);
        let older = NodeInfo::parse(|key| read(key).filter(|_| !matches!(key, "catalog" | "hot" | "gone" | "clock")));
        assert_eq!(
            older,
            Some(NodeInfo { catalog: None, hot: BTreeMap::new(), gone: None, clock: None, ..facts }),
            "a version without catalogs is a member all the same"
        );
    }
}
