//! The writing end of a ledger: the only code that makes claims, and it makes them for this node only.
//!
//! Invariants: every change, and the end of the first scan, raises the version by exactly one; a node that starts again
//! starts an empty ledger under a higher incarnation.

use super::{
    claim::{ClaimState, Incarnation, Version},
    ledger::{Change, Ledger, LedgerOptions},
};
use crate::key::Key;

/// This node's own ledger.
#[derive(Debug, Clone)]
pub struct LedgerWriter(Ledger);

impl LedgerWriter {
    /// An empty ledger.
    ///
    /// # Panics
    /// If `incarnation` is 0, which means "none" to followers.
    #[must_use]
    pub fn new(incarnation: Incarnation, options: LedgerOptions) -> Self {
        assert!(incarnation > Incarnation(0), "incarnation 0 means none");
        let mut ledger = Ledger::new(options);
        ledger.incarnation = incarnation;
        Self(ledger)
    }

    /// The ledger, to read and to send.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.0
    }

    /// Claims `key`. `None` if that is what was claimed already.
    pub fn set(&mut self, key: &Key, state: ClaimState) -> Option<Change> {
        let same = self.0.claim(key).is_some_and(|(_, old)| *old == state);
        (!same).then(|| self.write(key, Some(state)))
    }

    /// Takes the claim on `key` back. `None` if there was none.
    pub fn remove(&mut self, key: &Key) -> Option<Change> {
        self.0.claim(key)?;
        Some(self.write(key, None))
    }

    /// The first scan of the disk has ended: from here on, what is not claimed is not held. `None` if it had before.
    pub fn mark_scanned(&mut self) -> Option<Version> {
        if self.0.scanned.is_some() {
            return None;
        }
        self.0.scanned = Some(self.advance());
        self.0.scanned
    }

    fn write(&mut self, key: &Key, state: Option<ClaimState>) -> Change {
        let version = self.advance();
        self.0.record(version, key, state.clone());
        self.0.prune();
        Change { version, key: key.clone(), state }
    }

    fn advance(&mut self) -> Version {
        self.0.version = self.0.version.next();
        self.0.head = self.0.version;
        self.0.version
    }
}
