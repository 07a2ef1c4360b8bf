//! The catalog itself, pure: a map of last-writer-wins registers that merges in any order to the same state.
//!
//! A key has two registers: its *pin* (on a number of nodes, or not at all) and its *forget*. They
//! are apart because a later pin must not make a node that was away miss a forget. A register holds
//! the record with the largest stamp, so merging is commutative, associative and idempotent
//! (Shapiro et al., *Conflict-free Replicated Data Types*, 2011, section 3). A pin counts if it is
//! later than the forget of the same key.
//!
//! **Garbage.** An unpin or a forget is a tombstone: dropped too early, a member that was away would bring the old pin
//! back. It is dropped when it is older than a *floor*, and the floor is raised only while all members that are known are
//! there and agree. The floor says: "what is older and not here is over". So a member that missed it all
//! is not believed about what is older than the floor of others and missing there; and it drops it too, when it pulls.
//!
//! **What is to be done.** A forget that this node learns of is *pending* until its own copy is gone. That is this node's
//! own business, not merged, but as durable as the rest.
//!
//! Invariants: the digest depends on the registers and the floor, not on the order in which they came; a register's stamp never
//! goes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher,
    ops::Bound,
};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::{
    hlc::HlcTimestamp,
    intent::{Intent, Record, Stamp, is_pattern},
};
use crate::key::Key;

/// Records in one page of a pull: a fraction of the largest frame, also with the longest keys.
pub(crate) const PAGE_RECORDS: usize = 1_024;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    pin: Option<(Stamp, Intent)>,
    forget: Option<Stamp>,
}

impl Entry {
    fn records(&self, key: &Key) -> impl Iterator<Item = Record> {
        let pin = self.pin.clone().map(|(stamp, intent)| Record { key: key.clone(), stamp, intent });
        let forget = self.forget.clone().map(|stamp| Record { key: key.clone(), stamp, intent: Intent::Forget });
        pin.into_iter().chain(forget)
    }

    fn pinned(&self) -> Option<u8> {
        match &self.pin {
            Some((stamp, Intent::Pin { replicas })) if self.forget.as_ref().is_none_or(|forget| forget < stamp) => {
                Some(*replicas)
            }
            _ => None,
        }
    }
}

/// What a key is meant to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyPolicy {
    /// How many nodes a pin of the key itself, not of a pattern, asks for.
    pub(crate) pinned: Option<u8>,
    /// Whether there is a forget on file.
    pub(crate) forgotten: bool,
    /// Whether a copy of before the forget may still be on this machine.
    pub(crate) pending: bool,
}

/// A part of a node's catalog: all records of the keys after one and up to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// What is older and not in here is over.
    pub(crate) floor: HlcTimestamp,
    pub(crate) records: Vec<Record>,
    /// Where the next page begins; `None` on the last.
    pub(crate) next: Option<Key>,
}

/// What a step changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Records that were news.
    pub(crate) news: Vec<Record>,
    /// Keys of which something was dropped as garbage.
    pub(crate) dropped: Vec<Key>,
}

/// All intents that one node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    entries: BTreeMap<Key, Entry>,
    pending: BTreeMap<Key, Stamp>,
    floor: HlcTimestamp,
    sum: u64,
    records: usize,
}

impl Catalog {
    /// Takes a record in; whether it was news.
    pub(crate) fn apply(&mut self, record: &Record) -> bool {
        let old = self.entries.get(&record.key);
        let pin = old.and_then(|entry| entry.pin.as_ref());
        let superseded = match record.intent {
            Intent::Forget => old.and_then(|entry| entry.forget.clone()).map(|stamp| (stamp, Intent::Forget)),
            Intent::Pin { .. } | Intent::Unpin => pin.cloned(),
        };
        let news = match &superseded {
            Some((stamp, intent)) => (&record.stamp, record.intent) > (stamp, *intent),
            None => record.stamp.time >= self.floor,
        };
        if !news || !record.is_valid() {
            return false;
        }
        if let Some((stamp, intent)) = superseded {
            self.account(&Record { key: record.key.clone(), stamp, intent }, false);
        }
        self.account(record, true);
        let entry = self.entries.entry(record.key.clone()).or_default();
        if record.intent == Intent::Forget {
            entry.forget = Some(record.stamp.clone());
        } else {
            entry.pin = Some((record.stamp.clone(), record.intent));
        }
        true
    }

    /// Merges what another node has of the keys after `after`.
    pub(crate) fn merge(&mut self, after: Option<&Key>, page: &Page) -> Merged {
        let there: BTreeSet<(&Key, bool)> =
            page.records.iter().map(|record| (&record.key, record.intent == Intent::Forget)).collect();
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let end = page.next.as_ref().map_or(Bound::Unbounded, Bound::Included);
        let over: Vec<Record> = match (begin, end) {
            (Bound::Excluded(begin), Bound::Included(end)) if begin >= end => Vec::new(),
            range => self
                .entries
                .range::<Key, _>(range)
                .flat_map(|(key, entry)| entry.records(key))
                .filter(|record| record.stamp.time < page.floor)
                .filter(|record| !there.contains(&(&record.key, record.intent == Intent::Forget)))
                .collect(),
        };
        for record in &over {
            self.drop_record(record);
        }
        let news = page.records.iter().filter(|record| self.apply(record)).cloned().collect();
        Merged { news, dropped: over.into_iter().map(|record| record.key).collect() }
    }

    /// Everything of `floor` or before that is not here is over from now on.
    pub(crate) fn raise_floor(&mut self, floor: HlcTimestamp) {
        self.floor = self.floor.max(floor);
    }

    /// Drops the tombstones below `floor`, and the pins that they undo, which would count again without them. Only while
    /// all members are there and agree.
    pub(crate) fn collect(&mut self, floor: HlcTimestamp) -> Vec<Key> {
        self.raise_floor(floor);
        let counts =
            |record: &Record, entry: &Entry| matches!(record.intent, Intent::Pin { .. }) && entry.pinned().is_some();
        let over: Vec<Record> = self
            .entries
            .iter()
            .flat_map(|(key, entry)| entry.records(key).filter(move |record| !counts(record, entry)))
            .filter(|record| record.stamp.time < self.floor)
            .collect();
        over.iter().for_each(|record| self.drop_record(record));
        over.into_iter().map(|record| record.key).collect()
    }

    /// The part after `after`.
    pub(crate) fn page(&self, after: Option<&Key>) -> Page {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Page { floor: self.floor, records: Vec::new(), next: None };
        for (key, entry) in self.entries.range::<Key, _>((begin, Bound::Unbounded)) {
            if page.records.len() >= PAGE_RECORDS {
                page.next = page.records.last().map(|last| last.key.clone());
                break;
            }
            page.records.extend(entry.records(key));
        }
        page
    }

    /// All records.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        self.entries.iter().flat_map(|(key, entry)| entry.records(key))
    }

    /// Number of records.
    pub(crate) fn len(&self) -> usize {
        self.records
    }

    /// The latest time of anything known of `key`.
    pub(crate) fn latest(&self, key: &Key) -> HlcTimestamp {
        let entry = self.entries.get(key);
        let times = entry.into_iter().flat_map(|entry| entry.records(key)).map(|record| record.stamp.time);
        times.max().unwrap_or_default().max(self.floor)
    }

    /// Whether anything is known of `key`.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    /// The record of the forget of `key`.
    pub(crate) fn forget_of(&self, key: &Key) -> Option<Record> {
        let stamp = self.entries.get(key)?.forget.clone()?;
        Some(Record { key: key.clone(), stamp, intent: Intent::Forget })
    }

    /// What `key` is meant to be.
    pub(crate) fn standing(&self, key: &Key) -> KeyPolicy {
        let entry = self.entries.get(key);
        KeyPolicy {
            pinned: entry.filter(|_| !is_pattern(key)).and_then(Entry::pinned),
            forgotten: entry.is_some_and(|entry| entry.forget.is_some()),
            pending: self.pending.contains_key(key),
        }
    }

    /// Keys and patterns that are pinned, in order, with their counts.
    pub(crate) fn pins(&self) -> impl Iterator<Item = (&Key, u8)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.pinned()?)))
    }

    /// Keys about which anything is known or to be done.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.entries.keys().chain(self.pending.keys())
    }

    /// This node's own copy of before `stamp` is to go.
    pub(crate) fn set_pending(&mut self, key: &Key, stamp: &Stamp) {
        let latest = self.pending.entry(key.clone()).or_insert_with(|| stamp.clone());
        *latest = stamp.clone().max(latest.clone());
    }

    /// The copy of before `stamp` is gone. Whether nothing is left to do.
    pub(crate) fn set_executed(&mut self, key: &Key, stamp: &Stamp) -> bool {
        let done = self.pending.get(key).is_some_and(|latest| latest <= stamp);
        if done {
            self.pending.remove(key);
        }
        done
    }

    /// The forget of `key` that is to be carried out here.
    pub(crate) fn pending_of(&self, key: &Key) -> Option<&Stamp> {
        self.pending.get(key)
    }

    /// Forgets that are to be carried out here.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&Key, &Stamp)> {
        self.pending.iter()
    }

    pub(crate) fn floor(&self) -> HlcTimestamp {
        self.floor
    }

    /// The same on two nodes with the same registers and floor, and only by an accident of 2^-64 on others.
    pub(crate) fn digest(&self) -> u64 {
        self.sum.wrapping_add(self.floor.ms.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(self.floor.count.into())
    }

    /// Whether this or something later is known in its place.
    pub(crate) fn knows(&self, record: &Record) -> bool {
        let Some(entry) = self.entries.get(&record.key) else { return false };
        let known = match record.intent {
            Intent::Forget => entry.forget.as_ref(),
            Intent::Pin { .. } | Intent::Unpin => entry.pin.as_ref().map(|(stamp, _)| stamp),
        };
        known.is_some_and(|stamp| *stamp >= record.stamp)
    }

    fn drop_record(&mut self, record: &Record) {
        let Some(entry) = self.entries.get_mut(&record.key) else { return };
        if record.intent == Intent::Forget {
            entry.forget = None;
        } else {
            entry.pin = None;
        }
        if *entry == Entry::default() {
            self.entries.remove(&record.key);
        }
        self.account(record, false);
    }

    /// Sums of hashes do not depend on the order, and what is added can be taken away again.
    fn account(&mut self, record: &Record, added: bool) {
        let hash = hash(record);
        if added {
            self.sum = self.sum.wrapping_add(hash);
            self.records += 1;
        } else {
            self.sum = self.sum.wrapping_sub(hash);
            self.records -= 1;
        }
    }
}

/// Fixed keys and explicit bytes: nodes of different versions and platforms compare the sums.
fn hash(record: &Record) -> u64 {
    let mut state = SipHasher13::new_with_keys(0x6461_7461_642d_6361, 0x7461_6c6f_672d_3031);
    for text in [record.key.as_str(), record.stamp.node.as_str()] {
        state.write(text.as_bytes());
        state.write(&[0xff]);
    }
    state.write(&record.stamp.time.ms.to_le_bytes());
    state.write(&record.stamp.time.count.to_le_bytes());
    state.write(&match record.intent {
        Intent::Pin { replicas } => [1, replicas],
        Intent::Unpin => [2, 0],
        Intent::Forget => [3, 0],
    });
    state.finish()
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;
    use crate::key::NodeName;

    fn key(number: u8) -> Key {
        Key::new(format!("k{number}")).unwrap()
    }

    fn stamp(ms: u64, node: u8) -> Stamp {
        Stamp { time: HlcTimestamp { ms, count: 0 }, node: NodeName::new(format!("n{node}")).unwrap() }
    }

    fn record(number: u8, ms: u64, intent: Intent) -> Record {
        Record { key: key(number), stamp: stamp(ms, 1), intent }
    }

    fn catalog(records: &[Record]) -> Catalog {
        let mut catalog = Catalog::default();
        for record in records {
            catalog.apply(record);
        }
        catalog
    }

    /// All pages of one, merged into the other.
    fn pull(to: &mut Catalog, from: &Catalog) {
        let mut after = None;
        loop {
            let page = from.page(after.as_ref());
            to.merge(after.as_ref(), &page);
            after = page.next;
            if after.is_none() {
                return to.raise_floor(page.floor);
            }
        }
    }

    const PIN: Intent = Intent::Pin { replicas: 3 };

    #[test]
    fn the_last_writer_wins_and_a_later_forget_ends_a_pin() {
        let mut catalog = catalog(&[record(1, 5, PIN), record(1, 3, Intent::Unpin)]);
        assert_eq!(catalog.standing(&key(1)).pinned, Some(3));
        assert!(catalog.apply(&record(1, 6, Intent::Forget)));
        assert_eq!(catalog.standing(&key(1)), KeyPolicy { pinned: None, forgotten: true, pending: false });
        assert!(catalog.apply(&record(1, 7, Intent::Pin { replicas: 2 })));
        assert_eq!(catalog.standing(&key(1)), KeyPolicy { pinned: Some(2), forgotten: true, pending: false });
        assert_eq!(catalog.latest(&key(1)).ms, 7);
        assert!(!catalog.apply(&record(2, 1, Intent::Pin { replicas: 9 })), "more than a key may have");
    }

    #[test]
    fn what_is_to_be_done_for_a_forget_is_done_once_and_a_later_forget_is_not_missed() {
        let mut catalog = Catalog::default();
        catalog.set_pending(&key(1), &stamp(5, 1));
        catalog.set_pending(&key(1), &stamp(6, 1));
        assert!(!catalog.set_executed(&key(1), &stamp(5, 1)) && catalog.standing(&key(1)).pending);
        assert!(catalog.set_executed(&key(1), &stamp(6, 1)) && catalog.pending().next().is_none());
    }

    #[test]
    fn who_was_away_for_long_brings_nothing_back_and_loses_nothing_that_counts() {
        let away = catalog(&[record(1, 5, PIN), record(2, 6, PIN), record(4, 100, PIN)]);
        let mut here = catalog(&[record(1, 8, Intent::Unpin), record(2, 6, PIN), record(3, 9, Intent::Forget)]);
        assert_eq!(here.collect(HlcTimestamp { ms: 50, count: 0 }), [key(1), key(3)]);
        let mut back = away.clone();
        pull(&mut here, &away);
        pull(&mut back, &here);
        assert_eq!(here.pins().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key(2), key(4)]);
        assert_eq!((back.digest(), back.entries), (here.digest(), here.entries));
    }

    #[test]
    fn a_large_catalog_travels_in_pages() {
        let records: Vec<Record> = (0..3 * PAGE_RECORDS)
            .map(|number| Record { key: Key::new(format!("k{number}")).unwrap(), ..record(0, 1, PIN) })
            .collect();
        let (from, mut to) = (catalog(&records), catalog(&[record(7, 0, Intent::Forget)]));
        pull(&mut to, &from);
        assert_eq!((to.len(), from.page(None).records.len()), (records.len() + 1, PAGE_RECORDS));
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let intent = prop_oneof![
            (1..=8u8).prop_map(|replicas| Intent::Pin { replicas }),
            Just(Intent::Unpin),
            Just(Intent::Forget)
        ];
        (0..6u8, 0..20u64, 0..3u8, intent).prop_map(|(number, ms, node, intent)| Record {
            key: key(number),
            stamp: stamp(ms, node),
            intent,
        })
    }

    fn some_records() -> impl Strategy<Value = Vec<Record>> {
        proptest::collection::vec(any_record(), 0..40)
    }

    fn merged(a: &Catalog, b: &Catalog) -> Catalog {
        let mut sum = a.clone();
        pull(&mut sum, b);
        sum
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            a in some_records(), b in some_records(), c in some_records(),
        ) {
            let (a, b, c) = (catalog(&a), catalog(&b), catalog(&c));
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a);
        }

        #[test]
        fn records_in_any_order_make_the_same_catalog_and_digest(
            records in some_records(), order in proptest::collection::vec(any::<Index>(), 40),
        ) {
            let mut shuffled = records.clone();
            for (at, with) in order.iter().take(records.len()).enumerate() {
                shuffled.swap(at, with.index(records.len()));
            }
            let (one, other) = (catalog(&records), catalog(&shuffled));
            prop_assert_eq!(&one, &other);
            let again: Vec<Record> = one.records().collect();
            prop_assert_eq!((catalog(&again).digest(), again.len()), (one.digest(), one.len()));
        }

        /// Three members write, pull from one another and are away at times; garbage is collected only as it may be.
        /// Whatever happens, they end with what a catalog that never drops anything would say.
        #[test]
        fn collecting_garbage_changes_nothing_that_counts(
            steps in proptest::collection::vec((0..6u8, 0..3usize, 0..3usize, any_record()), 1..120),
        ) {
            let (mut members, mut complete) = (vec![Catalog::default(); 3], Catalog::default());
            for (now, (what, one, other, wanted)) in (1..).zip(steps) {
                match what {
                    0..=2 => {
                        let written = Record { stamp: stamp(now, one as u8), ..wanted };
                        members[one].apply(&written);
                        complete.apply(&written);
                    }
                    3..=4 => {
                        let from = members[other].clone();
                        pull(&mut members[one], &from);
                    }
                    _ => {
                        if members.iter().all(|member| member.digest() == members[one].digest()) {
                            members[one].collect(HlcTimestamp { ms: now, count: 0 });
                        }
                    }
                }
            }
            for _ in 0..2 {
                for (to, from) in [(0, 1), (1, 2), (2, 0), (0, 2), (2, 1), (1, 0)] {
                    let from = members[from].clone();
                    pull(&mut members[to], &from);
                }
            }
            for member in &members {
                prop_assert!(member.pins().eq(complete.pins()));
                prop_assert_eq!(member.digest(), members[0].digest());
            }
        }
    }
}
