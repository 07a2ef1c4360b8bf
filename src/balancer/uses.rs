//! When each key was last asked for, roughly: what a node without room gives up is what nobody misses.
//!
//! Written by every request, so without a lock and mostly without allocation. Bounded by keeping two generations: new uses
//! go into the younger one, and when that is full the elder is dropped and the younger takes its place. So the
//! keys that were used last are remembered, at least [`GENERATION_KEYS`] of them, and what is forgotten counts as
//! never used.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use papaya::HashMap;

use crate::{key::Key, registry::KeyHasher};

/// Keys in one generation; with a hundred bytes each, both take some 25 MB.
const GENERATION_KEYS: usize = 1 << 17;

type Generation = HashMap<Key, AtomicU32, KeyHasher>;

/// Last uses, in seconds of the node's monotonic clock.
#[derive(Debug)]
pub(crate) struct Uses {
    hasher: KeyHasher,
    generation_keys: usize,
    generations: ArcSwap<Generations>,
}

#[derive(Debug)]
struct Generations {
    younger: Arc<Generation>,
    elder: Arc<Generation>,
}

impl Uses {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        Self::with_bound(hasher, GENERATION_KEYS)
    }

    fn with_bound(hasher: KeyHasher, generation_keys: usize) -> Self {
        let fresh = || Arc::new(HashMap::with_hasher(hasher.clone()));
        let generations = ArcSwap::from_pointee(Generations { younger: fresh(), elder: fresh() });
        Self { hasher, generation_keys, generations }
    }

    /// Notes that `key` is used at `now`.
    pub(crate) fn touch(&self, key: &Key, now: Duration) {
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        let generations = self.generations.load();
        let younger = generations.younger.pin();
        if let Some(last) = younger.get(key) {
            last.fetch_max(seconds, Ordering::Relaxed);
            return;
        }
        younger.insert(key.clone(), AtomicU32::new(seconds));
        if younger.len() >= self.generation_keys {
            let next = Generations {
                younger: Arc::new(HashMap::with_hasher(self.hasher.clone())),
                elder: generations.younger.clone(),
            };
            // Of several that find it full, one turns it over.
            let _ = self.generations.compare_and_swap(&*generations, Arc::new(next));
        }
    }

    /// The second of its last use; `None` if that is long ago or never was.
    pub(crate) fn last(&self, key: &Key) -> Option<u32> {
        let generations = self.generations.load();
        let of = |generation: &Generation| generation.pin().get(key).map(|last| last.load(Ordering::Relaxed));
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
        let uses = Uses::with_bound(KeyHasher::default(), 10);
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
    fn a_use_that_is_noted_late_changes_nothing() {
        let uses = Uses::new(KeyHasher::default());
        uses.touch(&key(1), Duration::from_secs(7));
        uses.touch(&key(1), Duration::from_secs(6));
        assert_eq!(uses.last(&key(1)), Some(7));
    }
}
