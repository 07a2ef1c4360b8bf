//! A ledger: all claims of one node. Only that node writes it
//! ([`LedgerWriter`](super::LedgerWriter)). Every other node holds a copy, follows it by version,
//! and may pass it on.
//!
//! ```text
//!   follower                                   sender: the writer, or anyone who follows it too
//!      | -- Position { incarnation, version, base } ->|
//!      | <- Delta (from, to], at most `limit` --------|   repeated until it says `None`,
//!      | <- Delta (from, to] -------------------------|   then again whenever it changes
//! ```
//!
//! A delta `(from, to]` has every key whose *latest* change lies in that range, removals as tombstones. This is
//! anti-entropy by version as in van Renesse et al., *Efficient Reconciliation and Flow Control for Anti-Entropy
//! Protocols* (LADIS 2008), section 3 (precise reconciliation, ordered by version), for one writer and with tombstones
//! that are dropped as in its section on deletion: bounded here, so a floor says from where on they are complete.
//!
//! # The numbers of a copy
//!
//! - `version`: it went through all changes up to here.
//! - `base`: where the writer was when this copy began from nothing. A copy that began late never saw what was removed
//!   before, so it does not need those tombstones, even while its `version` is still small.
//! - `reach` = max(`version`, `base`). *No claim in the copy was removed by the writer at or below
//!   its reach*, or its key changed again above it, and that change is to come. So a follower needs
//!   tombstones above its reach only. It must not take claims from a sender with a smaller reach,
//!   because that sender may still have claims that were removed before the follower began.
//! - `floor`: tombstones at or below it may be missing. A follower whose reach is below a sender's floor begins anew.
//! - `head`: how far the writer was, as far as is known. A copy below its head has gaps, because what changed since
//!   was left out of earlier deltas; at its head it is equal to the ledger as written, and its digest is too.
//!
//! `floor <= reach <= head` always, and `(incarnation, reach)` of a copy never goes back. A node
//! may relay a copy that is still catching up: it passes on the copy's own numbers, so no follower
//! takes the copy for more than it is. Beginning anew needs no message of its own: a delta from 0
//! continues the copies it can continue, and replaces the others.

use std::{collections::BTreeSet, hash::Hasher};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::{
    claim::{ClaimState, HolderState, Incarnation, Version},
    hash::KeyHasher,
    log::ClaimLog,
};
use crate::key::Key;

/// Bounds and hashing of a ledger.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    /// So many tombstones are kept in any case; beyond, one for every eight live claims. Default 1024. More lets
    /// followers be away longer without starting over, at about 50 bytes each.
    pub tombstones_kept_min: usize,
    /// How keys are hashed in memory.
    pub hasher: KeyHasher,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self { tombstones_kept_min: 1024, hasher: KeyHasher::default() }
    }
}

/// What a follower has, so what it names when it subscribes or resumes. The default is: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The incarnation followed, 0 for none.
    pub incarnation: Incarnation,
    /// All changes up to here were seen.
    pub version: Version,
    /// Where the writer was when this copy began.
    pub base: Version,
}

impl Position {
    /// No claim at this position was removed by the writer at or below this version. Never goes back.
    #[must_use]
    pub fn reach(&self) -> Version {
        self.version.max(self.base)
    }
}

/// The latest change of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The version it made.
    pub version: Version,
    /// The key.
    pub key: Key,
    /// Its new state; `None` if the claim was removed.
    pub state: Option<ClaimState>,
}

/// A step from one version to a later one: what a feed and a pull carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Of the writer.
    pub incarnation: Incarnation,
    /// For followers that are at this version, or beyond it but below `to`. From 0 it also starts a
    /// follower over.
    pub from: Version,
    /// Where it takes them.
    pub to: Version,
    /// The sender's reach: no claim in here was removed at or below it. Who starts over takes it for its base.
    pub reach: Version,
    /// How far the writer was, as far as the sender knows. Below it, more is to come, here or elsewhere.
    pub head: Version,
    /// Tombstones at or below this may be missing.
    pub floor: Version,
    /// The version at which the writer's first scan of its disk ended, if it has.
    pub scanned: Option<Version>,
    /// By version, each key at most once.
    pub changes: Vec<Change>,
}

/// Why a delta was not applied. The ledger is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Deltas in between are missing, were reordered, or start from tombstones that we lack. Ask again from our
    /// [`Ledger::position`].
    #[error("the delta continues version {from} of incarnation {incarnation}, which is not what we have")]
    Gap {
        /// Its incarnation.
        incarnation: Incarnation,
        /// Where it starts.
        from: Version,
    },
    /// The sender does not keep the protocol; retrying does not help.
    #[error("the delta is malformed: {0}")]
    Malformed(&'static str),
}

/// What applying a delta did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: we have it already, or something newer. A late or repeated delivery, not an error.
    Stale,
    /// The copy went on.
    Continued,
    /// What the copy had was discarded first.
    StartedOver,
}

/// One key whose claim is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The key.
    pub key: Key,
    /// Its state before, `None` if there was no claim.
    pub before: Option<HolderState>,
    /// Its state now.
    pub after: Option<HolderState>,
}

/// The effect of a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What happened.
    pub outcome: Outcome,
    /// After [`Outcome::StartedOver`]: all former claims that were discarded, by version. Some may be back in `changed`.
    pub discarded: Vec<Changed>,
    /// What the changes of the delta did, by version: each key at most once, also where its state is what it was.
    pub changed: Vec<Changed>,
}

/// A copy of all claims of one node, and the numbers that say how much it is worth: see the head of this file.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) incarnation: Incarnation,
    pub(crate) version: Version,
    base: Version,
    pub(crate) head: Version,
    floor: Version,
    pub(crate) scanned: Option<Version>,
    log: ClaimLog,
    tombstones: BTreeSet<Version>,
    tombstones_kept_min: usize,
    counts: [usize; 3],
    digest: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(LedgerOptions::default())
    }
}

impl Ledger {
    /// A copy of nothing yet: its first delta is one from 0, of any incarnation.
    #[must_use]
    pub fn new(options: LedgerOptions) -> Self {
        let LedgerOptions { tombstones_kept_min, hasher } = options;
        Self {
            incarnation: Incarnation(0),
            version: Version(0),
            base: Version(0),
            head: Version(0),
            floor: Version(0),
            scanned: None,
            log: ClaimLog::new(hasher),
            tombstones: BTreeSet::new(),
            tombstones_kept_min,
            counts: [0; 3],
            digest: 0,
        }
    }

    /// The incarnation this is a copy of; 0 if of none.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// All changes up to here were seen.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What to name when asking for more.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { incarnation: self.incarnation, version: self.version, base: self.base }
    }

    /// Whether the copy is equal to the ledger as written at this version. While it catches up, it is not.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.incarnation != Incarnation(0) && self.version == self.head
    }

    /// Whether the copy is complete and the writer had looked at its whole disk by then: what is not claimed is not held.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_complete() && self.scanned.is_some()
    }

    /// A hash of all claims (key, version, state without details), kept up to date by every change. Complete copies of
    /// the same incarnation and version have the same digest, on every platform.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The claim on `key` and the version that made it.
    #[must_use]
    pub fn claim(&self, key: &Key) -> Option<(Version, &ClaimState)> {
        self.log.find(key).and_then(|entry| Some((entry.version, entry.state?)))
    }

    /// All claims, in the order they were made.
    pub fn claims(&self) -> impl Iterator<Item = (&Key, Version, &ClaimState)> {
        self.log.after(Version(0)).filter_map(|entry| Some((entry.key, entry.version, entry.state?)))
    }

    /// Number of claims.
    #[must_use]
    pub fn len(&self) -> usize {
        self.log.len() - self.tombstones.len()
    }

    /// Whether there is no claim.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of claims in this state; none is [`HolderState::Presumed`].
    #[must_use]
    pub fn count(&self, state: HolderState) -> usize {
        self.counts.get(state as usize).copied().unwrap_or(0)
    }

    /// The next step for a follower that is at `position`, with at most `limit` changes (at least one). `None` if there
    /// is nothing for it here: it has all of this, or more. Ask until then.
    #[must_use]
    pub fn delta_since(&self, position: &Position, limit: usize) -> Option<Delta> {
        let from = self.start_for(position)?;
        let mut rest = self.log.after(from);
        let change = |entry: crate::core::registry::log::LogEntry<'_>| Change {
            version: entry.version,
            key: entry.key.clone(),
            state: entry.state.cloned(),
        };
        let changes: Vec<_> = rest.by_ref().take(limit.max(1)).map(change).collect();
        let to = match (rest.next(), changes.last()) {
            (Some(_), Some(last)) => last.version,
            _ => self.version,
        };
        let (reach, head, floor) = (self.position().reach(), self.head, self.floor);
        Some(Delta { incarnation: self.incarnation, from, to, reach, head, floor, scanned: self.scanned, changes })
    }

    /// From where a follower at `position` can be served, if it can and needs to be.
    fn start_for(&self, position: &Position) -> Option<Version> {
        if self.incarnation == Incarnation(0) || self.incarnation < position.incarnation {
            return None;
        }
        if self.incarnation > position.incarnation {
            return Some(Version(0));
        }
        let ahead = self.version > position.version && self.position().reach() >= position.reach();
        let tombstones_suffice = self.floor <= position.reach();
        ahead.then_some(if tombstones_suffice { position.version } else { Version(0) })
    }

    /// Takes a step. Late and repeated deltas do nothing, whichever node sent them.
    ///
    /// # Errors
    /// [`ApplyError`]; the ledger is then unchanged.
    pub fn apply(&mut self, delta: Delta) -> Result<Applied, ApplyError> {
        delta.check()?;
        let outcome = self.outcome_of(&delta)?;
        if outcome == Outcome::Stale {
            return Ok(Applied { outcome, discarded: Vec::new(), changed: Vec::new() });
        }
        let discarded = if outcome == Outcome::StartedOver { self.start_over(&delta) } else { Vec::new() };
        let seen = self.version;
        let mut changed = Vec::with_capacity(delta.changes.len());
        for Change { version, key, state } in delta.changes.into_iter().filter(|change| change.version > seen) {
            let after = state.as_ref().map(ClaimState::tag);
            let before = self.record(version, &key, state);
            changed.push(Changed { key, before, after });
        }
        self.version = delta.to;
        self.head = self.head.max(delta.head);
        self.scanned = self.scanned.max(delta.scanned);
        self.raise_floor(delta.floor);
        self.prune();
        assert!(
            self.floor <= self.position().reach() && self.position().reach() <= self.head,
            "see the head of this file"
        );
        Ok(Applied { outcome, discarded, changed })
    }

    fn outcome_of(&self, delta: &Delta) -> Result<Outcome, ApplyError> {
        let gap = ApplyError::Gap { incarnation: delta.incarnation, from: delta.from };
        let reach = self.position().reach();
        let from_start = delta.from == Version(0);
        if delta.incarnation != self.incarnation {
            return match delta.incarnation > self.incarnation {
                true if from_start => Ok(Outcome::StartedOver),
                true => Err(gap),
                false => Ok(Outcome::Stale),
            };
        }
        if delta.reach < reach {
            return Ok(Outcome::Stale);
        }
        if delta.floor > reach {
            return if from_start { Ok(Outcome::StartedOver) } else { Err(gap) };
        }
        if delta.to <= self.version {
            return Ok(Outcome::Stale);
        }
        if delta.from <= self.version { Ok(Outcome::Continued) } else { Err(gap) }
    }

    fn start_over(&mut self, delta: &Delta) -> Vec<Changed> {
        let former = self.log.emptied();
        self.tombstones.clear();
        self.counts = [0; 3];
        self.digest = 0;
        (self.incarnation, self.version, self.base) = (delta.incarnation, Version(0), delta.reach);
        (self.head, self.floor, self.scanned) = (delta.head, Version(0), None);
        let discarded = |entry: crate::core::registry::log::LogEntry<'_>| {
            let before = Some(entry.state?.tag());
            Some(Changed { key: entry.key.clone(), before, after: None })
        };
        former.after(Version(0)).filter_map(discarded).collect()
    }

    /// Writes the latest entry of `key` and returns its former state.
    pub(crate) fn record(&mut self, version: Version, key: &Key, state: Option<ClaimState>) -> Option<HolderState> {
        match state.as_ref().map(ClaimState::tag) {
            Some(tag) => {
                self.counts[tag as usize] += 1;
                self.digest = self.digest.wrapping_add(claim_hash(key, version, tag));
            }
            None => {
                self.tombstones.insert(version);
            }
        }
        let (old_version, old_state) = self.log.push(version, key, state)?;
        let Some(old) = old_state else {
            self.tombstones.remove(&old_version);
            return None;
        };
        self.counts[old.tag() as usize] -= 1;
        self.digest = self.digest.wrapping_sub(claim_hash(key, old_version, old.tag()));
        Some(old.tag())
    }

    /// Drops the oldest tombstones beyond what is kept; the floor rises to the last one dropped.
    pub(crate) fn prune(&mut self) {
        while self.tombstones.len() > self.tombstones_kept_min.max(self.len() / 8) {
            if let Some(oldest) = self.tombstones.pop_first() {
                self.log.remove(oldest);
                self.floor = self.floor.max(oldest);
            }
        }
    }

    /// Drops the tombstones that a sender has dropped.
    fn raise_floor(&mut self, floor: Version) {
        self.floor = self.floor.max(floor);
        while self.tombstones.first().is_some_and(|&oldest| oldest <= floor) {
            if let Some(oldest) = self.tombstones.pop_first() {
                self.log.remove(oldest);
            }
        }
    }
}

impl Delta {
    /// What every sender that keeps the protocol promises.
    fn check(&self) -> Result<(), ApplyError> {
        let numbers = [
            (self.incarnation > Incarnation(0), "incarnation 0"),
            (self.from <= self.to, "it goes backwards"),
            (self.to <= self.reach && self.reach <= self.head, "it goes beyond what its sender has"),
            (self.floor <= self.reach, "its floor is beyond what its sender has"),
            (self.scanned <= Some(self.head), "its scan ended in the future"),
        ];
        let mut last = self.from;
        let ordered = self.changes.iter().all(|change| std::mem::replace(&mut last, change.version) < change.version);
        let versions = [(ordered, "versions out of order"), (last <= self.to, "a version beyond its end")];
        match numbers.into_iter().chain(versions).find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(ApplyError::Malformed(broken)),
            None => Ok(()),
        }
    }
}

/// What one claim adds to the digest: the same bytes, so the same number, on every node.
fn claim_hash(key: &Key, version: Version, tag: HolderState) -> u64 {
    let mut state = SipHasher13::new();
    state.write(key.as_str().as_bytes());
    state.write(&[0xff, tag as u8]);
    state.write(&version.0.to_le_bytes());
    state.finish()
}
