//! What a change of the members would move, without moving anything: both rings are built, and every key is looked up on
//! each. Pure; the keys are fed in parts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;
use siphasher::sip::SipHasher13;

use super::ring::{Ring, RingOptions};
use crate::key::{Key, NodeName};

/// Keys whose sizes an estimate follows from.
const SAMPLE_KEYS: usize = 64;

/// Members that are thought away or added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Who goes.
    pub without: Vec<NodeName>,
    /// Who comes, or gets another weight.
    pub with: Vec<(NodeName, u32)>,
}

/// What would be different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Forecast {
    /// Known keys.
    pub keys: u64,
    /// Those that would be copied at least once.
    pub keys_moved: u64,
    /// Copies that would be made, of all keys together.
    pub copies: u64,
    /// Of how many of the keys that would move the size is known. They are drawn at random, and all estimates of bytes
    /// follow from them; with none, there is no estimate.
    pub sampled: u64,
    /// Bytes of all copies together, about.
    pub bytes: Option<u64>,
    /// Every member of either ring.
    pub nodes: Vec<NodeForecast>,
}

/// What would be different on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NodeForecast {
    /// Its name; empty in the default.
    pub node: String,
    /// Keys that it owns now.
    pub owned_now: u64,
    /// Keys that it would own.
    pub owned_then: u64,
    /// Keys that it would copy from others.
    pub gained: u64,
    /// Bytes of these, about.
    pub bytes_gained: Option<u64>,
    /// Keys that it would let go, or take away with it.
    pub lost: u64,
}

/// Two rings and the count so far.
#[derive(Debug)]
pub(crate) struct Forecaster {
    now: Arc<Ring>,
    then: Ring,
    nodes: BTreeMap<NodeName, NodeForecast>,
    keys: u64,
    keys_moved: u64,
    copies: u64,
    /// Of the keys that would move, those whose hashes are the smallest (a bottom-k sample: one pass, no chance involved).
    sample: BTreeSet<(u64, Key)>,
}

impl Forecaster {
    /// Compares `now`, whose members have these weights, with what it would be after `change`.
    pub(crate) fn new(now: Arc<Ring>, members: impl IntoIterator<Item = (NodeName, u32)>, change: &Change) -> Self {
        let mut weights: BTreeMap<NodeName, u32> = members.into_iter().collect();
        weights.retain(|name, _| !change.without.contains(name));
        weights.extend(change.with.iter().cloned());
        let then = Ring::build(weights, RingOptions::default());
        let named =
            |name: &NodeName| (name.clone(), NodeForecast { node: name.to_string(), ..NodeForecast::default() });
        let nodes = now.nodes().iter().chain(then.nodes()).map(named).collect();
        Self { now, then, nodes, keys: 0, keys_moved: 0, copies: 0, sample: BTreeSet::new() }
    }

    /// Counts a key that `replicas` nodes should keep.
    pub(crate) fn add(&mut self, key: &Key, replicas: usize) {
        let (now, then) = (self.now.owners(key, replicas), self.then.owners(key, replicas));
        let mut copies = 0;
        for owner in then.clone() {
            let Some(node) = self.nodes.get_mut(owner) else { continue };
            node.owned_then += 1;
            if now.clone().all(|other| other != owner) {
                node.gained += 1;
                copies += 1;
            }
        }
        for owner in now {
            let Some(node) = self.nodes.get_mut(owner) else { continue };
            node.owned_now += 1;
            node.lost += u64::from(then.clone().all(|other| other != owner));
        }
        self.keys += 1;
        self.keys_moved += u64::from(copies > 0);
        self.copies += copies;
        if copies > 0 {
            let hash = SipHasher13::new().hash(key.as_str().as_bytes());
            if self.sample.len() < SAMPLE_KEYS || self.sample.last().is_some_and(|(largest, _)| hash < *largest) {
                self.sample.insert((hash, key.clone()));
            }
            if self.sample.len() > SAMPLE_KEYS {
                self.sample.pop_last();
            }
        }
    }

    /// Some of the keys that would move, drawn without regard to their names.
    pub(crate) fn sample(&self) -> impl Iterator<Item = &Key> {
        self.sample.iter().map(|(_, key)| key)
    }

    /// The result, with estimates from these sizes of keys in the sample, in bytes.
    pub(crate) fn finish(self, sizes: impl IntoIterator<Item = u64>) -> Forecast {
        let Self { mut nodes, keys, keys_moved, copies, .. } = self;
        let (sampled, sum) = sizes.into_iter().fold((0u64, 0u64), |(count, sum), size| (count + 1, sum + size));
        let estimate = |copies: u64| match (copies, sampled) {
            (0, _) => Some(0),
            (_, 0) => None,
            _ => Some((sum as f64 / sampled as f64 * copies as f64) as u64),
        };
        for node in nodes.values_mut() {
            node.bytes_gained = estimate(node.gained);
        }
        Forecast { keys, keys_moved, copies, sampled, bytes: estimate(copies), nodes: nodes.into_values().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn forecast(members: &str, change: &Change, replicas: usize) -> Forecast {
        let members: Vec<(NodeName, u32)> = members.split_whitespace().map(|text| (name(text), 100)).collect();
        let ring = Arc::new(Ring::build(members.clone(), RingOptions::default()));
        let mut forecaster = Forecaster::new(ring, members, change);
        for number in 0..3_000 {
            forecaster.add(&Key::new(format!("org/repo-{number}")).unwrap(), replicas);
        }
        assert!(forecaster.sample().count() <= SAMPLE_KEYS);
        let sizes: Vec<u64> = forecaster.sample().map(|_| 100).collect();
        forecaster.finish(sizes)
    }

    #[test]
    fn without_a_node_its_keys_and_no_others_are_copied() {
        let found = forecast("a b c d", &Change { without: vec![name("c")], ..Change::default() }, 2);
        let gone = found.nodes.iter().find(|node| node.node == "c").unwrap();
        assert_eq!((gone.owned_then, gone.gained, gone.lost), (0, 0, gone.owned_now));
        assert_eq!(found.copies, gone.lost, "one copy for each that is gone");
        assert_eq!((found.sampled, found.bytes), (64, Some(100 * found.copies)));
        assert!(found.nodes.iter().all(|node| node.bytes_gained == Some(100 * node.gained)));
        assert_eq!(found.nodes.iter().map(|node| node.owned_then).sum::<u64>(), 6_000);
        assert!((1_200..1_800).contains(&gone.lost), "about half of the keys have one of their two replicas there");
    }

    #[test]
    fn with_another_node_keys_move_to_it_alone() {
        let found = forecast("a b c", &Change { with: vec![(name("d"), 200)], ..Change::default() }, 1);
        for node in &found.nodes {
            assert_eq!(node.gained > 0, node.node == "d", "{node:?}");
        }
        let share = found.copies as f64 / 3_000.0;
        assert!((0.3..0.5).contains(&share), "two of five shares: {share}");
    }

    #[test]
    fn without_any_change_nothing_moves() {
        let found = forecast("a b c", &Change::default(), 2);
        assert_eq!((found.keys, found.keys_moved, found.copies), (3_000, 0, 0));
    }
}
