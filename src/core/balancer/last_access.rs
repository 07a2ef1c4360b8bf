//! When each key was last asked for, and how often in that second. A node without free disk space
//! gives up the keys that clients ask for least, and keys that many clients ask for get more
//! replicas (see [`super::hot_keys`]).
//!
//! Written by every request, so without a lock and mostly without allocation. Bounded by keeping two generations: new uses
//! go into the younger one, and when that is full the elder is dropped and the younger takes its place. So the
//! keys that were used last are remembered, at least [`GENERATION_KEYS`] of them, and what is forgotten counts as
//! never used.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use papaya::HashMap;

use crate::{core::registry::KeyHasher, key::Key};

/// Keys in one generation; with a hundred bytes each, both take some 25 MB.
const GENERATION_KEYS: usize = 1 << 17;

/// A second of the node's monotonic clock above, the uses in it below.
type Generation = HashMap<Key, AtomicU64, KeyHasher>;

/// Last uses.
#[derive(Debug)]
pub(crate) struct LastAccess {
    hasher: KeyHasher,
    generation_keys: usize,
    generations: ArcSwap<Generations>,
}

#[derive(Debug)]
struct Generations {
    younger: Arc<Generation>,
    elder: Arc<Generation>,
}

impl LastAccess {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        Self::with_bound(hasher, GENERATION_KEYS)
    }

    fn with_bound(hasher: KeyHasher, generation_keys: usize) -> Self {
        let fresh = || Arc::new(HashMap::with_hasher(hasher.clone()));
        let generations = ArcSwap::from_pointee(Generations { younger: fresh(), elder: fresh() });
        Self { hasher, generation_keys, generations }
    }

    /// Notes that `key` is used at `now`. Returns how often it was in this second, this time included.
    pub(crate) fn touch(&self, key: &Key, now: Duration) -> u32 {
        let first = (now.as_secs().min(u64::from(u32::MAX)) << 32) + 1;
        let generations = self.generations.load();
        let younger = generations.younger.pin();
        if let Some(last) = younger.get(key) {
            // The second of a late one is over; it counts for the present one.
            let next = |last: u64| if last >> 32 < first >> 32 { first } else { last + 1 };
            let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
            return before.map_or(1, next) as u32;
        }
        younger.insert(key.clone(), AtomicU64::new(first));
        if younger.len() >= self.generation_keys {
            let next = Generations {
                younger: Arc::new(HashMap::with_hasher(self.hasher.clone())),
                elder: generations.younger.clone(),
            };
            // Of several that find it full, one turns it over.
            let _ = self.generations.compare_and_swap(&*generations, Arc::new(next));
        }
        1
    }

    /// Notes that `key` is in use at `now`, without counting it as another use.
    pub(crate) fn renew(&self, key: &Key, now: Duration) {
        let second = now.as_secs().min(u64::from(u32::MAX)) << 32;
        let generations = self.generations.load();
        if let Some(last) = generations.younger.pin().get(key) {
            last.fetch_max(second, Ordering::Relaxed);
            return;
        }
        self.touch(key, now);
    }

    /// The second of its last use; `None` if that is long ago or never was.
    pub(crate) fn last(&self, key: &Key) -> Option<u32> {
        let generations = self.generations.load();
        let of =
            |generation: &Generation| generation.pin().get(key).map(|last| (last.load(Ordering::Relaxed) >> 32) as u32);
        of(&generations.younger).or_else(|| of(&generations.elder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new(format!("key/{number}")).unwrap()
    }

    #[test]
    fn the_keys_used_last_are_remembered_and_no_more_than_twice_the_bound() {
        let uses = LastAccess::with_bound(KeyHasher::default(), 10);
        for number in 0..1_000 {
            uses.touch(&key(number), Duration::from_secs(number as u64));
            uses.touch(&key(0), Duration::from_secs(number as u64));
            let remembered = (0..=number).filter(|number| uses.last(&key(*number)).is_some()).count();
            assert!(remembered <= 20, "{remembered}");
            for recent in number.saturating_sub(8)..=number {
                let expected = if recent == 0 { number } else { recent };
                assert_eq!(uses.last(&key(recent)), u32::try_from(expected).ok());
            }
        }
    }

    #[test]
    fn uses_are_counted_second_by_second() {
        let uses = LastAccess::new(KeyHasher::default());
        let counts =
            [7_000, 7_500, 7_999, 8_000, 7_900, 9_000].map(|ms| uses.touch(&key(1), Duration::from_millis(ms)));
        assert_eq!(counts, [1, 2, 3, 1, 2, 1]);
    }

    #[test]
    fn a_use_that_goes_on_is_late_and_not_frequent() {
        let uses = LastAccess::new(KeyHasher::default());
        uses.touch(&key(1), Duration::from_secs(7));
        uses.renew(&key(1), Duration::from_secs(9));
        uses.renew(&key(1), Duration::from_secs(8));
        assert_eq!(uses.last(&key(1)), Some(9));
        assert_eq!(uses.touch(&key(1), Duration::from_secs(9)), 1);
        uses.renew(&key(2), Duration::from_secs(9));
        assert_eq!(uses.last(&key(2)), Some(9));
    }

    #[test]
    fn a_use_that_is_noted_late_changes_nothing() {
        let uses = LastAccess::new(KeyHasher::default());
        uses.touch(&key(1), Duration::from_secs(7));
        uses.touch(&key(1), Duration::from_secs(6));
        assert_eq!(uses.last(&key(1)), Some(7));
    }
}
