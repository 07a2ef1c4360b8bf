//! The latest entry of every key, in the order of versions: what a ledger is made of.
//!
//! A ledger is asked two things: "what of this key?" and "what changed after version V?". Versions only grow, so the
//! entries are kept as a log (a vector sorted by version, appended at its end, with dead slots where an entry was
//! superseded) and a hash table of positions in it. Catch-up then reads memory in order, and an entry costs its slot of 16
//! bytes and about ten bytes of table instead of a node in each of two maps. The log is rewritten without its dead slots
//! once they are a third of it, which costs each change a constant on average: the idea of Rosenblum and Ousterhout,
//! *The Design and Implementation of a Log-Structured File System* (SOSP 1991), section 3, in memory.
//!
//! Invariants: live slots have distinct keys and strictly growing versions; the table points at live slots only.

use std::collections::BTreeMap;

use hashbrown::{HashTable, hash_table::Entry};

use super::{
    claim::{ClaimState, Version},
    hash::KeyHasher,
};
use crate::key::Key;

/// Dead slots are not worth collecting below this number.
const DEAD_MIN: usize = 64;

/// Bits of a slot that say which state it is in.
const STATE_BITS: u32 = 2;
const STATES: [Option<&ClaimState>; 3] = [None, Some(&ClaimState::Fetching), Some(&ClaimState::Ready)];
/// What a failure was stands elsewhere, since failures are rare.
const FAILED: u64 = STATES.len() as u64;

#[derive(Debug, Clone)]
struct Slot {
    /// The version, and below it the state: a place in [`STATES`], or [`FAILED`].
    packed: u64,
    /// `None` in a dead slot.
    key: Option<Key>,
}

impl Slot {
    fn version(&self) -> Version {
        Version(self.packed >> STATE_BITS)
    }
}

/// A live entry, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogEntry<'a> {
    pub(crate) version: Version,
    pub(crate) key: &'a Key,
    /// `None` in a tombstone.
    pub(crate) state: Option<&'a ClaimState>,
}

/// Tables of positions. When a table grows it looks at all of its keys again, which takes a quarter of a second for a
/// million; so there are many small ones, which grow one after the other.
const TABLES: usize = 512;

/// The latest entry of every key, by version.
#[derive(Debug, Clone)]
pub(crate) struct ClaimLog {
    slots: Vec<Slot>,
    failures: BTreeMap<Version, ClaimState>,
    /// Of one part of the keys each.
    positions: Vec<HashTable<u32>>,
    live: usize,
    hasher: KeyHasher,
    dead: usize,
}

impl ClaimLog {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        let positions = (0..TABLES).map(|_| HashTable::new()).collect();
        Self { slots: Vec::new(), failures: BTreeMap::new(), positions, live: 0, hasher, dead: 0 }
    }

    /// An empty log that hashes like this one.
    pub(crate) fn emptied(&mut self) -> Self {
        let hasher = self.hasher.clone();
        std::mem::replace(self, Self::new(hasher))
    }

    /// Number of entries, tombstones included.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn find(&self, key: &Key) -> Option<LogEntry<'_>> {
        let same = |&at: &u32| self.slots[at as usize].key.as_ref() == Some(key);
        let hash = self.hasher.hash(key);
        self.positions[table_of(hash)].find(hash, same).and_then(|&at| self.entry(&self.slots[at as usize]))
    }

    /// Appends the latest entry of `key` and returns what it supersedes. `version` must be above all others.
    pub(crate) fn push(
        &mut self,
        version: Version,
        key: &Key,
        state: Option<ClaimState>,
    ) -> Option<(Version, Option<ClaimState>)> {
        assert!(self.slots.last().is_none_or(|last| last.version() < version), "a log grows at its end");
        let at = u32::try_from(self.slots.len()).expect("fewer than 2^32 claims of one node");
        // A quarter at a time: a vector that doubles is half empty on average.
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(DEAD_MIN.max(self.slots.len() / 4));
        }
        let packed = self.pack(version, state);
        let Self { slots, positions, live, hasher, .. } = self;
        let hash = hasher.hash(key);
        let old = match positions[table_of(hash)].entry(
            hash,
            |&at| slots[at as usize].key.as_ref() == Some(key),
            |&at| slots[at as usize].key.as_ref().map_or(0, |key| hasher.hash(key)),
        ) {
            Entry::Vacant(vacant) => {
                vacant.insert(at);
                *live += 1;
                slots.push(Slot { packed, key: Some(key.clone()) });
                return None;
            }
            Entry::Occupied(mut occupied) => {
                let old = &mut slots[std::mem::replace(occupied.get_mut(), at) as usize];
                let packed_before = old.packed;
                // The allocation of the first mention stays, so that a key that keeps changing is stored once.
                let key = old.key.take();
                slots.push(Slot { packed, key });
                packed_before
            }
        };
        let superseded = (Version(old >> STATE_BITS), self.unpack(old).cloned());
        self.failures.remove(&superseded.0);
        self.mark_gone();
        Some(superseded)
    }

    fn pack(&mut self, version: Version, state: Option<ClaimState>) -> u64 {
        assert!(version.0 < 1 << (u64::BITS - STATE_BITS), "no ledger sees so many changes");
        let code = match &state {
            None => 0,
            Some(ClaimState::Fetching) => 1,
            Some(ClaimState::Ready) => 2,
            Some(ClaimState::Failed(_)) => FAILED,
        };
        self.failures.extend(state.filter(|_| code == FAILED).map(|failed| (version, failed)));
        version.0 << STATE_BITS | code
    }

    fn unpack(&self, packed: u64) -> Option<&ClaimState> {
        match packed & FAILED {
            FAILED => self.failures.get(&Version(packed >> STATE_BITS)),
            code => STATES[code as usize],
        }
    }

    /// Forgets the entry at `version`, if there is one.
    pub(crate) fn remove(&mut self, version: Version) {
        let Ok(at) = self.slots.binary_search_by_key(&version, Slot::version) else { return };
        let Some(key) = self.slots[at].key.take() else { return };
        let hash = self.hasher.hash(&key);
        if let Ok(found) = self.positions[table_of(hash)].find_entry(hash, |&other| other as usize == at) {
            found.remove();
            self.live -= 1;
        }
        self.failures.remove(&version);
        self.mark_gone();
    }

    /// The entries above `version`, in the order of versions.
    pub(crate) fn after(&self, version: Version) -> impl Iterator<Item = LogEntry<'_>> {
        let start = self.slots.partition_point(|slot| slot.version() <= version);
        self.slots[start..].iter().filter_map(|slot| self.entry(slot))
    }

    fn entry<'a>(&'a self, slot: &'a Slot) -> Option<LogEntry<'a>> {
        slot.key.as_ref().map(|key| LogEntry { version: slot.version(), key, state: self.unpack(slot.packed) })
    }

    fn mark_gone(&mut self) {
        self.dead += 1;
        if self.dead > DEAD_MIN.max(self.slots.len() / 3) {
            self.compact();
        }
    }

    /// Rewrites the log without dead slots. Positions are translated, not hashed again: no key is touched.
    fn compact(&mut self) {
        let mut moved = Vec::with_capacity(self.slots.len());
        let mut live = 0u32;
        for slot in &self.slots {
            moved.push(live);
            live += u32::from(slot.key.is_some());
        }
        self.slots.retain(|slot| slot.key.is_some());
        self.positions.iter_mut().flat_map(HashTable::iter_mut).for_each(|at| *at = moved[*at as usize]);
        self.dead = 0;
    }
}

impl Default for ClaimLog {
    fn default() -> Self {
        Self::new(KeyHasher::default())
    }
}

/// The table for keys of this hash: by bits that the table itself does not look at before it is very large.
fn table_of(hash: u64) -> usize {
    (hash >> 40) as usize % TABLES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_has_sixteen_bytes() {
        assert_eq!(size_of::<Slot>(), 16);
    }

    proptest! {
        #[test]
        fn a_log_answers_like_two_maps(
            steps in proptest::collection::vec((0..40u8, proptest::option::weighted(0.8, 0..3u64), 0..9u8), 0..800),
        ) {
            let mut log = ClaimLog::default();
            let mut model = BTreeMap::<Key, (Version, Option<ClaimState>)>::new();
            let states = |number| [ClaimState::Ready, ClaimState::Fetching, ClaimState::failed("no", number)];
            for (number, (name, state, also_remove)) in (1..).zip(steps) {
                let state = state.map(|which| states(number)[which as usize].clone());
                let (key, version) = (Key::new(format!("k{name}")).unwrap(), Version(number));
                prop_assert_eq!(log.push(version, &key, state.clone()), model.insert(key, (version, state)));
                if also_remove == 0 {
                    let removed = Version(number / 2 + 1);
                    log.remove(removed);
                    model.retain(|_, (version, _)| *version != removed);
                }
                let failed = model.values().filter(|(_, state)| matches!(state, Some(ClaimState::Failed(_)))).count();
                prop_assert_eq!((log.len(), log.failures.len()), (model.len(), failed));
                prop_assert!(log.slots.len() <= model.len() + DEAD_MIN.max(log.slots.len() / 3));
            }
            for name in 0..40 {
                let key = Key::new(format!("k{name}")).unwrap();
                let found = log.find(&key).map(|entry| (entry.version, entry.state.cloned()));
                prop_assert_eq!(found, model.get(&key).cloned());
            }
            let mut by_version: Vec<_> = model.into_iter().map(|(key, (version, _))| (version, key)).collect();
            by_version.sort();
            for from in [0, 7, 100, 1000] {
                let after: Vec<_> = log.after(Version(from)).map(|entry| (entry.version, entry.key.clone())).collect();
                let expected: Vec<_> = by_version.iter().filter(|(version, _)| version.0 > from).cloned().collect();
                prop_assert_eq!(after, expected);
            }
        }
    }
}
