//! Places for requests, shared so that no caller takes all of them.
//!
//! ```text
//!   free places   |#### 3/4 ####|# 1/4 #|
//!                  any caller     only callers that hold less than a sixteenth of all
//! ```
//!
//! One caller may use most of a node that has nothing else to do, and still the next caller finds a place. What must hold: no
//! more places are given out than there are; each comes back when its [`Place`] is dropped.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

/// The part of all places that is kept for callers with few of them.
const KEPT_SHARE: usize = 4;
/// How many parts a caller's own places may be at most to get one of those.
const SMALL_SHARE: usize = 16;

/// Places for requests of callers that `K` tells apart.
pub(crate) struct Places<K>(Arc<Mutex<Held<K>>>);

struct Held<K> {
    places: usize,
    taken: usize,
    by: BTreeMap<K, usize>,
}

impl<K: Ord + Clone> Places<K> {
    /// So many places, none of them taken.
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Held { places, taken: 0, by: BTreeMap::new() })))
    }

    /// A place for a request of `caller`, if there is one for it.
    pub(crate) fn admit(&self, caller: &K) -> Option<Place<K>> {
        let mut held = lock(&self.0);
        let own = held.by.get(caller).copied().unwrap_or(0);
        if !may_have(held.places, held.taken, own) {
            return None;
        }
        held.taken += 1;
        *held.by.entry(caller.clone()).or_default() += 1;
        Some(Place { places: self.0.clone(), caller: caller.clone() })
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> usize {
        lock(&self.0).taken
    }

    /// Whether no caller would get a place.
    pub(crate) fn is_exhausted(&self) -> bool {
        let held = lock(&self.0);
        held.taken >= held.places
    }
}

/// Whether a caller that has `own` of the `taken` places gets one more of all `places`.
fn may_have(places: usize, taken: usize, own: usize) -> bool {
    let free = places.saturating_sub(taken);
    free > places / KEPT_SHARE || (free > 0 && own < (places / SMALL_SHARE).max(1))
}

fn lock<K>(held: &Mutex<Held<K>>) -> MutexGuard<'_, Held<K>> {
    held.lock().expect("nothing panics while it holds this lock")
}

impl<K> fmt::Debug for Places<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = lock(&self.0);
        f.debug_struct("Places").field("places", &held.places).field("taken", &held.taken).finish_non_exhaustive()
    }
}

/// A place that is taken. Dropping it gives it back.
pub(crate) struct Place<K: Ord> {
    places: Arc<Mutex<Held<K>>>,
    caller: K,
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = lock(&self.places);
        held.taken -= 1;
        let held = &mut *held;
        // Entries go with their last place, so that callers that came once leave nothing behind.
        if let Some(own) = held.by.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                held.by.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_caller_gets_most_and_others_still_find_a_place() {
        let places = Places::new(64);
        let greedy: Vec<_> = std::iter::from_fn(|| places.admit(&"greedy")).collect();
        assert_eq!(greedy.len(), 48);
        let modest: Vec<_> = (0..4).map_while(|_| places.admit(&"modest")).collect();
        assert_eq!(modest.len(), 4);
        assert!(places.admit(&"modest").is_none(), "that is more than its small share");
        assert!(places.admit(&"other").is_some());
        drop(greedy);
        assert!(places.admit(&"modest").is_some());
    }

    #[test]
    fn a_single_place_goes_to_any_caller() {
        let places = Places::new(1);
        let place = places.admit(&1).unwrap();
        assert!(places.is_exhausted() && places.admit(&2).is_none());
        drop(place);
        assert!(places.admit(&2).is_some());
    }

    proptest! {
        #[test]
        fn no_more_places_are_given_out_than_there_are_and_all_come_back(
            places in 1..40usize, script in proptest::collection::vec((0..5u8, any::<bool>()), 0..200),
        ) {
            let shared = Places::new(places);
            let mut held: Vec<Place<u8>> = Vec::new();
            for (caller, comes) in script {
                if comes {
                    held.extend(shared.admit(&caller));
                } else if !held.is_empty() {
                    held.remove(usize::from(caller) % held.len());
                }
                prop_assert!(held.len() <= places);
                prop_assert_eq!(shared.taken(), held.len());
            }
            drop(held);
            prop_assert_eq!(shared.taken(), 0);
            prop_assert!(lock(&shared.0).by.is_empty());
        }
    }
}
