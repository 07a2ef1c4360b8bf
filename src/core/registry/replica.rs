//! What one node knows of another's ledger, across that node's restarts.
//!
//! A node that restarts begins an empty ledger and fills it as it scans its disk. If its peers forgot the old claims at
//! once, every restart would look like the loss of all replicas. So the `Ready` claims that a copy had when it was
//! started over stand as *presumed* until the key is claimed or taken back in the new ledger, or until the new ledger
//! is settled (complete, its first scan ended): what it does not claim by then is gone. The same covers a copy that has
//! to begin anew in the middle of an incarnation, because its tombstones were dropped meanwhile.
//!
//! Invariants: a presumed key was `Ready` by that node's own word; it is never also claimed; a settled copy presumes
//! nothing.

use std::collections::BTreeSet;

use super::{
    claim::HolderState,
    ledger::{ApplyError, Changed, Delta, Ledger, LedgerOptions, Outcome},
};
use crate::key::Key;

/// How a node stands to a key from now on: to be written into the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexChange {
    /// The key.
    pub key: Key,
    /// `None`: nothing to do with it.
    pub after: Option<HolderState>,
}

/// The followed ledger of one node, and what is presumed of it.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    ledger: Ledger,
    presumed: BTreeSet<Key>,
}

impl Replica {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(options: LedgerOptions) -> Self {
        Self { ledger: Ledger::new(options), presumed: BTreeSet::new() }
    }

    /// The copy of the ledger, to read and to relay.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes a step and returns how the node stands to every key that the step concerned, each key once.
    ///
    /// # Errors
    /// [`ApplyError`]; the replica is then unchanged.
    pub fn apply(&mut self, delta: Delta) -> Result<Vec<IndexChange>, ApplyError> {
        let applied = self.ledger.apply(delta)?;
        if applied.outcome == Outcome::Stale {
            return Ok(Vec::new());
        }
        let ready = |changed: &&Changed| changed.before == Some(HolderState::Ready);
        self.presumed.extend(applied.discarded.iter().filter(ready).map(|changed| changed.key.clone()));
        if !self.presumed.is_empty() {
            for changed in &applied.changed {
                self.presumed.remove(&changed.key);
            }
        }
        let given_up = if self.ledger.is_settled() { std::mem::take(&mut self.presumed) } else { BTreeSet::new() };
        Ok(self.index_changes(applied.discarded, applied.changed, given_up))
    }

    fn index_changes(
        &self,
        discarded: Vec<Changed>,
        changed: Vec<Changed>,
        given_up: BTreeSet<Key>,
    ) -> Vec<IndexChange> {
        let mut mentioned: BTreeSet<&Key> = BTreeSet::new();
        let mut changes = Vec::with_capacity(changed.len() + discarded.len() + given_up.len());
        if !discarded.is_empty() {
            mentioned.extend(changed.iter().map(|changed| &changed.key));
            let gone = |key: &Key| IndexChange { key: key.clone(), after: self.state(key) };
            changes.extend(discarded.iter().map(|d| &d.key).filter(|key| !mentioned.contains(key)).map(gone));
            mentioned.extend(discarded.iter().map(|discarded| &discarded.key));
        }
        let unmentioned = given_up.iter().filter(|key| !mentioned.contains(key)).cloned();
        changes.extend(unmentioned.map(|key| IndexChange { key, after: None }));
        changes.extend(changed.into_iter().map(|Changed { key, after, .. }| IndexChange { key, after }));
        changes
    }

    /// How the node stands to `key`.
    #[must_use]
    pub fn state(&self, key: &Key) -> Option<HolderState> {
        match self.ledger.claim(key) {
            Some((_, state)) => Some(state.tag()),
            None => self.presumed.contains(key).then_some(HolderState::Presumed),
        }
    }

    /// All keys the node has to do with: its claims in the order they were made, then what is presumed, by key.
    pub fn states(&self) -> impl Iterator<Item = (&Key, HolderState)> {
        let claims = self.ledger.claims().map(|(key, _, state)| (key, state.tag()));
        claims.chain(self.presumed.iter().map(|key| (key, HolderState::Presumed)))
    }

    /// Number of keys in this state.
    #[must_use]
    pub fn count(&self, state: HolderState) -> usize {
        if state == HolderState::Presumed { self.presumed.len() } else { self.ledger.count(state) }
    }
}
