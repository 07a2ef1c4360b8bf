//! What readers see of the catalog: how many replicas a key should have, and whether it is to be dropped. Without a lock,
//! a wait or an allocation, since every lookup of owners asks it.
//!
//! Replicas of a key, first match: its own pin; the largest count of the patterns that match it; the longest prefix of the
//! settings that it begins with; the setting for all keys.

use std::collections::{BTreeMap, BTreeSet};

use arc_swap::ArcSwap;
use papaya::HashMap;
use wildmatch::WildMatch;

use super::{
    intent::is_pattern,
    state::{Catalog, KeyPolicy},
};
use crate::{
    config::{NodeConfig, of_prefix},
    core::registry::KeyHasher,
    key::Key,
};

#[derive(Debug)]
struct Pattern {
    matcher: WildMatch,
    replicas: u8,
}

/// Only the catalog actor writes it; all other parts of the node read it.
#[derive(Debug)]
pub(crate) struct PolicyIndex {
    standings: HashMap<Key, KeyPolicy, KeyHasher>,
    patterns: ArcSwap<Vec<Pattern>>,
    prefixes: BTreeMap<String, usize>,
    replicas: usize,
}

impl PolicyIndex {
    pub(crate) fn new(config: &NodeConfig, hasher: KeyHasher) -> Self {
        Self {
            standings: HashMap::with_hasher(hasher),
            patterns: ArcSwap::default(),
            prefixes: config.prefix_replicas.clone(),
            replicas: config.replicas,
        }
    }

    /// How many nodes should keep `key`.
    pub(crate) fn replicas(&self, key: &Key) -> usize {
        self.pinned(key).map_or_else(|| self.configured(key), usize::from)
    }

    /// How many nodes should keep `key` if it is not pinned.
    pub(crate) fn configured(&self, key: &Key) -> usize {
        of_prefix(&self.prefixes, key).map_or(self.replicas, |(_, replicas)| *replicas)
    }

    /// Whether a prefix says how many nodes should keep `key` if it is not pinned.
    pub(crate) fn has_prefix(&self, key: &Key) -> bool {
        of_prefix(&self.prefixes, key).is_some()
    }

    /// On how many nodes `key` is pinned, by itself or by a pattern.
    pub(crate) fn pinned(&self, key: &Key) -> Option<u8> {
        let patterns = self.patterns.load();
        let matching = patterns.iter().filter(|pattern| pattern.matcher.matches(key.as_str()));
        self.standing(key).pinned.or_else(|| matching.map(|pattern| pattern.replicas).max())
    }

    /// What the catalog says of `key` itself.
    pub(crate) fn standing(&self, key: &Key) -> KeyPolicy {
        self.standings.pin().get(key).copied().unwrap_or_default()
    }

    /// Keys that are pinned by themselves, in no order.
    pub(crate) fn pinned_keys(&self) -> Vec<Key> {
        let standings = self.standings.pin();
        standings.iter().filter(|(_, standing)| standing.pinned.is_some()).map(|(key, _)| key.clone()).collect()
    }

    /// Shows what `catalog` says of `keys` from now on.
    pub(crate) fn show<'a>(&self, catalog: &Catalog, keys: impl IntoIterator<Item = &'a Key>) {
        let (standings, mut patterns) = (self.standings.pin(), false);
        for key in keys {
            patterns |= is_pattern(key);
            match catalog.standing(key) {
                nothing if nothing == KeyPolicy::default() => drop(standings.remove(key)),
                standing => drop(standings.insert(key.clone(), standing)),
            }
        }
        if patterns {
            self.patterns.store(Self::patterns_of(catalog).into());
        }
    }

    /// Shows `catalog` and nothing else, never less than what both say.
    pub(crate) fn show_all(&self, catalog: &Catalog) {
        let before: BTreeSet<Key> = self.standings.pin().keys().cloned().collect();
        self.show(catalog, catalog.keys().chain(&before));
        self.patterns.store(Self::patterns_of(catalog).into());
    }

    fn patterns_of(catalog: &Catalog) -> Vec<Pattern> {
        let patterns = catalog.pins().filter(|(key, _)| is_pattern(key));
        patterns.map(|(key, replicas)| Pattern { matcher: WildMatch::new(key.as_str()), replicas }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::catalog::{
            hlc::HlcTimestamp,
            intent::{Intent, Record, Stamp},
        },
        key::NodeName,
    };

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn the_count_is_the_pins_then_the_patterns_then_the_prefixes_then_everybodys() {
        let prefix_replicas = [("a/".to_owned(), 3), ("a/b/".to_owned(), 4)].into();
        let config = NodeConfig { replicas: 2, prefix_replicas, ..NodeConfig::default() };
        let intents = PolicyIndex::new(&config, KeyHasher::default());
        let mut catalog = Catalog::default();
        for (ms, (text, intent)) in (1..).zip([
            ("a/x", Intent::Pin { replicas: 1 }),
            ("a/*", Intent::Pin { replicas: 5 }),
            ("*/y", Intent::Pin { replicas: 6 }),
            ("z", Intent::Pin { replicas: 8 }),
            ("z", Intent::Unpin),
        ]) {
            let stamp = Stamp { time: HlcTimestamp { ms, count: 0 }, node: NodeName::new("n").unwrap() };
            catalog.apply(&Record { key: key(text), stamp, intent });
        }
        let counts = |expected: [usize; 6]| {
            let found = ["a/x", "a/y", "a/b/c", "c/y", "a", "z"].map(|text| intents.replicas(&key(text)));
            assert_eq!(found, expected);
        };
        counts([3, 3, 4, 2, 2, 2]);
        intents.show_all(&catalog);
        counts([1, 6, 5, 6, 2, 2]);
        assert!(intents.pinned(&key("a/b/c")).is_some() && intents.standing(&key("a/*")).pinned.is_none());
        intents.show_all(&Catalog::default());
        counts([3, 3, 4, 2, 2, 2]);
    }
}
