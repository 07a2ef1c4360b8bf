//! What happened at least sometimes, so that one sees whether runs bite: a property holds easily where nothing happens.

use std::collections::BTreeMap;

/// All probes with what they mean. A sweep of a thousand seeds in which one never fires has failed.
pub const ALL: [(&str, &str); 32] = [
    ("answered", "a request was answered with data"),
    ("refused", "a request was answered with an error"),
    ("intent recorded", "a pin, unpin or forget was acknowledged"),
    ("intent refused", "a pin, unpin or forget was not taken"),
    ("broken off", "a response broke off, and said so"),
    ("not found", "a key that the upstream has not was asked for, and the answer said so"),
    ("failover", "a request succeeded although a holder that the asked node knew was down, frozen or cut off"),
    ("cut off and serving", "a request succeeded at a node that was cut off from others"),
    ("fetch leader died", "a node lost its power while it fetched from the upstream"),
    ("copier died", "a node lost its power while it copied from another"),
    ("two fetchers", "two parts that could not talk fetched the same key"),
    ("false suspicion", "a healthy node was taken for dead, and came back"),
    ("repair", "a missing replica was made because a node was gone"),
    ("repairs held back", "so many nodes were lost at once that another waited before it repaired anything"),
    ("rebalance", "a key went to a node because the ring gave it to it"),
    ("trim", "a surplus replica was dropped"),
    ("drained", "a node handed over what only it held, and left"),
    ("drain refused", "a node would have been the last live holder of a key, and stayed"),
    ("copy failed", "a copy from another node failed"),
    ("full", "a node was told that its disk is full"),
    ("hot key", "a key was asked for so often that more nodes than usual were to keep it"),
    ("given up for room", "a node whose disk was full dropped a copy that it should have kept otherwise"),
    ("disk filled mid-write", "an update failed because the disk was full"),
    ("disk failed mid-write", "an update failed because the disk did"),
    ("upstream failed", "a fetch failed because the upstream did"),
    ("resumed", "a node that came back served what it had without copying it"),
    ("came back empty", "a node came back without the data that it had claimed"),
    ("loss noticed", "a node found out that it had lost a key, and withdrew its claim"),
    ("clock went back", "a node started at a wall clock before that of its last start"),
    ("actor recovered", "a node served again after one of its actors had panicked"),
    ("stranger knocked", "a machine that does not belong sent datagrams to a node"),
    ("all restarted", "the whole cluster lost its power at once, and served again"),
];

/// How often each probe fired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes(BTreeMap<&'static str, u64>);

impl Probes {
    /// It happened.
    ///
    /// # Panics
    /// There is no such probe.
    pub fn hit(&mut self, probe: &str) {
        let (name, _) = ALL.iter().find(|(name, _)| *name == probe).expect("a probe that is in the list");
        *self.0.entry(name).or_default() += 1;
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self, probe: &str) -> u64 {
        self.0.get(probe).copied().unwrap_or(0)
    }

    /// Adds what another run saw.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// Probes that never fired.
    #[must_use]
    pub fn silent(&self) -> Vec<&'static str> {
        ALL.iter().map(|(name, _)| *name).filter(|name| self.count(name) == 0).collect()
    }
}
