//! The sum of all replicas, turned round: from a key to the nodes that have to do with it.
//!
//! One actor writes ([`IndexWriter`]); every request reads ([`Index`]), from any thread, without a lock, a wait or an
//! allocation. The maps are papaya's, concurrent hash tables whose readers only load pointers. A value is the holders of
//! a key in four bytes each, four of them inline, which is more than keys usually have replicas.
//!
//! Nodes are named by *slots*, numbers that index a table of names. A reader loads the entry first and the table
//! second, and a slot is published before any entry that uses it and never given to another name, so a slot that was
//! read always has its name. A node that comes back under its name gets its slot back; the table grows only with names
//! never seen before, by some 80 bytes each.
//!
//! Listing keys in order is not a request's business, so it is kept aside, by the writer alone, and read in slices.
//!
//! Invariant: a key is in its map if and only if it has a holder in some state, and the ordered keys are the same set.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use arc_swap::ArcSwap;
use papaya::{HashMap, ResizeMode};
use smallvec::SmallVec;

use super::{claim::HolderState, hash::KeyHasher};
use crate::key::{Key, NodeName};

/// A slot has 24 bits: more names than a cluster sees in its life.
const SLOTS_MAX: usize = 1 << 24;

/// Entries that a write moves while a table grows.
const MOVED_AT_ONCE: usize = 8;

/// Tables of entries. One that grows gets new memory in one go, which takes tens of milliseconds for a million keys; so
/// there are many small ones.
const TABLES: usize = 64;

/// A node's slot and its state, in four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder(u32);

impl Holder {
    fn new(slot: u32, state: HolderState) -> Self {
        Self(slot << 8 | state as u32)
    }

    fn slot(self) -> u32 {
        self.0 >> 8
    }

    fn state(self) -> HolderState {
        HolderState::ALL[(self.0 & 0xff) as usize]
    }
}

/// Sorted by slot.
type Entry = SmallVec<[Holder; 4]>;

type Table = HashMap<Key, Entry, KeyHasher>;

#[derive(Debug)]
struct Shared {
    /// Of one part of the keys each.
    tables: Vec<Table>,
    hasher: KeyHasher,
    names: ArcSwap<Vec<NodeName>>,
}

impl Shared {
    fn table(&self, key: &Key) -> &Table {
        // Within a table, the lowest and the highest bits decide.
        &self.tables[(self.hasher.hash(key) >> 32) as usize % TABLES]
    }
}

/// The readers' end. Cheap to clone; all clones see the same.
#[derive(Debug, Clone)]
pub struct Index(Arc<Shared>);

impl Index {
    /// Calls `read` with the nodes that hold `key` or have any other state for it; there may be
    /// none. Keep `read` short: it borrows a snapshot, and holds memory back for as long as it
    /// runs.
    pub fn lookup<R>(&self, key: &Key, read: impl FnOnce(Holders<'_>) -> R) -> R {
        let entries = self.0.table(key).pin();
        let Some(entry) = entries.get(key) else { return read(Holders { entry: &[], names: &[] }) };
        let names = self.0.names.load();
        read(Holders { entry, names: &names })
    }

    /// How `node` stands to `key`.
    #[must_use]
    pub fn state(&self, key: &Key, node: &NodeName) -> Option<HolderState> {
        self.lookup(key, |mut holders| holders.find(|(name, _)| *name == node).map(|(_, state)| state))
    }

    /// Whether any node has a state for `key`.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        self.0.table(key).pin().contains_key(key)
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.tables.iter().map(HashMap::len).sum()
    }

    /// Whether the index has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.tables.iter().all(HashMap::is_empty)
    }
}

/// The nodes that have a state for a key, in the order in which this process first heard of them.
/// Two nodes do not share that order, so never decide by it.
#[derive(Debug, Clone)]
pub struct Holders<'a> {
    entry: &'a [Holder],
    names: &'a [NodeName],
}

impl<'a> Iterator for Holders<'a> {
    type Item = (&'a NodeName, HolderState);

    fn next(&mut self) -> Option<Self::Item> {
        let (first, rest) = self.entry.split_first()?;
        self.entry = rest;
        Some((&self.names[first.slot() as usize], first.state()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.entry.len(), Some(self.entry.len()))
    }
}

impl ExactSizeIterator for Holders<'_> {}

/// The writer's end. There is one for an index.
#[derive(Debug)]
pub struct IndexWriter {
    shared: Arc<Shared>,
    slots: BTreeMap<NodeName, u32>,
    ordered: BTreeSet<Key>,
}

impl IndexWriter {
    /// An empty index.
    #[must_use]
    pub fn new(hasher: KeyHasher) -> Self {
        // While a table grows, each write moves `MOVED_AT_ONCE` entries. A larger number would
        // finish sooner, and delay each write more.
        let mode = || ResizeMode::Incremental(MOVED_AT_ONCE);
        let table = |_| HashMap::builder().hasher(hasher.clone()).resize_mode(mode()).build();
        let shared = Shared { tables: (0..TABLES).map(table).collect(), hasher, names: ArcSwap::default() };
        Self { shared: Arc::new(shared), slots: BTreeMap::new(), ordered: BTreeSet::new() }
    }

    /// A writer for an index whose writer is gone. The index is emptied; readers keep their end.
    #[must_use]
    pub fn take_over(index: &Index) -> Self {
        index.0.tables.iter().for_each(|table| table.pin().clear());
        let names = index.0.names.load();
        let slots = names.iter().enumerate().map(|(slot, name)| (name.clone(), slot as u32)).collect();
        Self { shared: Arc::clone(&index.0), slots, ordered: BTreeSet::new() }
    }

    /// The readers' end of this index.
    #[must_use]
    pub fn index(&self) -> Index {
        Index(Arc::clone(&self.shared))
    }

    /// Writes how `node` stands to `key`; `None`: not at all.
    ///
    /// # Panics
    /// After 2^24 different node names in the life of a process.
    pub fn set(&mut self, key: &Key, node: &NodeName, state: Option<HolderState>) {
        match state {
            Some(state) => {
                let slot = self.slot(node);
                self.write(key, slot, Some(Holder::new(slot, state)));
            }
            None => {
                if let Some(&slot) = self.slots.get(node) {
                    self.write(key, slot, None);
                }
            }
        }
    }

    /// At most `limit` keys (at least one) that begin with `prefix`, in order, those up to `after` left out.
    #[must_use]
    pub fn keys_after(&self, after: Option<&Key>, prefix: &str, limit: usize) -> Vec<Key> {
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let from = self.ordered.range::<str, _>((start, Bound::Unbounded));
        from.take_while(|key| key.as_str().starts_with(prefix)).take(limit.max(1)).cloned().collect()
    }

    /// The allocation of `key` that the index already has, if it has one: pass incoming keys through here before they
    /// are stored, so that a key on three nodes is in memory once.
    #[must_use]
    pub fn interned(&self, key: Key) -> Key {
        match self.shared.table(&key).pin().get_key_value(&key) {
            Some((known, _)) => known.clone(),
            None => key,
        }
    }

    fn slot(&mut self, node: &NodeName) -> u32 {
        if let Some(&slot) = self.slots.get(node) {
            return slot;
        }
        let mut names = Vec::clone(&self.shared.names.load());
        assert!(names.len() < SLOTS_MAX, "a process that saw {SLOTS_MAX} node names");
        let slot = names.len() as u32;
        names.push(node.clone());
        self.shared.names.store(Arc::new(names));
        self.slots.insert(node.clone(), slot);
        slot
    }

    fn write(&mut self, key: &Key, slot: u32, holder: Option<Holder>) {
        let entries = self.shared.table(key).pin();
        let Some((key, old)) = entries.get_key_value(key) else {
            if let Some(holder) = holder {
                entries.insert(key.clone(), SmallVec::from_slice(&[holder]));
                self.ordered.insert(key.clone());
            }
            return;
        };
        let mut entry = old.clone();
        match (entry.binary_search_by_key(&slot, |holder| holder.slot()), holder) {
            (Ok(at), Some(holder)) if entry[at] == holder => return,
            (Ok(at), Some(holder)) => entry[at] = holder,
            (Ok(at), None) => drop(entry.remove(at)),
            (Err(at), Some(holder)) => entry.insert(at, holder),
            (Err(_), None) => return,
        }
        if entry.is_empty() {
            self.ordered.remove(key);
            entries.remove(key);
        } else {
            entries.insert(key.clone(), entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn node(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn holders(index: &Index, of: &str) -> Vec<(String, HolderState)> {
        index.lookup(&key(of), |holders| holders.map(|(node, state)| (node.to_string(), state)).collect())
    }

    #[test]
    fn a_key_has_the_holders_that_were_written() {
        let mut writer = IndexWriter::new(KeyHasher::default());
        let index = writer.index();
        assert_eq!(holders(&index, "k"), []);
        for name in ["a", "b", "c", "d", "e", "f"] {
            writer.set(&key("k"), &node(name), Some(HolderState::Fetching));
        }
        writer.set(&key("k"), &node("c"), Some(HolderState::Ready));
        for name in ["a", "b", "e"] {
            writer.set(&key("k"), &node(name), None);
        }
        let expected = [("c", HolderState::Ready), ("d", HolderState::Fetching), ("f", HolderState::Fetching)];
        assert_eq!(holders(&index, "k"), expected.map(|(name, state)| (name.to_owned(), state)));
        assert_eq!(index.state(&key("k"), &node("c")), Some(HolderState::Ready));
        assert_eq!(index.state(&key("k"), &node("a")), None);
    }

    #[test]
    fn a_key_without_holders_is_gone() {
        let mut writer = IndexWriter::new(KeyHasher::default());
        let index = writer.index();
        writer.set(&key("k"), &node("a"), Some(HolderState::Presumed));
        assert!(index.contains(&key("k")));
        writer.set(&key("k"), &node("b"), None);
        writer.set(&key("k"), &node("a"), None);
        assert!(index.is_empty() && !index.contains(&key("k")));
        assert_eq!(writer.keys_after(None, "", 9), []);
    }

    #[test]
    fn keys_are_listed_in_order_from_anywhere() {
        let mut writer = IndexWriter::new(KeyHasher::default());
        for text in ["b/2", "a", "b/1", "c", "b/3", "ba"] {
            writer.set(&key(text), &node("a"), Some(HolderState::Ready));
        }
        let list = |after: Option<&str>, prefix, limit| {
            let keys = writer.keys_after(after.map(key).as_ref(), prefix, limit);
            keys.iter().map(Key::to_string).collect::<Vec<_>>()
        };
        assert_eq!(list(None, "", 9), ["a", "b/1", "b/2", "b/3", "ba", "c"]);
        assert_eq!(list(None, "b/", 2), ["b/1", "b/2"]);
        assert_eq!(list(Some("b/2"), "b/", 2), ["b/3"]);
        assert_eq!(list(Some("a"), "b/", 1), ["b/1"]);
        assert_eq!(list(Some("c"), "b/", 9), Vec::<String>::new());
    }

    #[test]
    fn a_key_is_in_memory_once() {
        let mut writer = IndexWriter::new(KeyHasher::default());
        let first = key("k");
        writer.set(&first, &node("a"), Some(HolderState::Ready));
        let interned = writer.interned(key("k"));
        assert!(std::ptr::eq(interned.as_str(), first.as_str()));
        writer.set(&interned, &node("b"), Some(HolderState::Ready));
        assert!(std::ptr::eq(writer.keys_after(None, "", 1)[0].as_str(), first.as_str()));
    }

    #[test]
    fn readers_always_find_the_name_of_a_slot() {
        let mut writer = IndexWriter::new(KeyHasher::default());
        let (index, done) = (writer.index(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    index.lookup(&key("k"), |holders| {
                        holders.for_each(|(name, _)| assert!(name.as_str().starts_with('n')))
                    });
                }
            });
            for number in 0..2000 {
                writer.set(&key("k"), &node(&format!("n{number}")), Some(HolderState::Ready));
                if number % 3 == 0 {
                    writer.set(&key("k"), &node(&format!("n{}", number / 2)), None);
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
