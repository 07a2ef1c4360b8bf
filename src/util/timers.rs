//! One time for each key, also in order of time: a caller with a million waiting keys must not look
//! at all of them to find those that are due. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::key::Key;

/// Times of keys, on a monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    times: BTreeMap<Key, Duration>,
    order: BTreeSet<(Duration, Key)>,
}

impl Timers {
    /// Sets the time of `key`, instead of what was set before.
    pub(crate) fn set(&mut self, key: &Key, at: Duration) {
        if let Some(old) = self.times.insert(key.clone(), at) {
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((at, key.clone()));
    }

    /// The time of `key`, if it has one.
    pub(crate) fn get(&self, key: &Key) -> Option<Duration> {
        self.times.get(key).copied()
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Duration> {
        let at = self.times.remove(key)?;
        self.order.remove(&(at, key.clone()));
        Some(at)
    }

    /// The keys whose time has come, those whose time came first first.
    pub(crate) fn due(&self, now: Duration) -> impl Iterator<Item = &Key> {
        self.order.iter().take_while(move |(at, _)| now >= *at).map(|(_, key)| key)
    }

    /// Takes out the first `limit` keys that are due.
    pub(crate) fn take_due(&mut self, now: Duration, limit: usize) -> Vec<Key> {
        let due: Vec<Key> = self.due(now).take(limit).cloned().collect();
        for key in &due {
            self.remove(key);
        }
        due
    }

    /// Takes out the key whose time comes first.
    pub(crate) fn take_first(&mut self) -> Option<Key> {
        let (_, key) = self.order.pop_first()?;
        self.times.remove(&key);
        Some(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    proptest! {
        #[test]
        fn keys_come_out_when_they_are_due_in_the_order_of_their_last_times(
            steps in proptest::collection::vec((0..10u8, proptest::option::weighted(0.8, 0..50u64)), 0..60),
            now in 0..50u64,
            limit in 0..12usize,
        ) {
            let (mut timers, mut model) = (Timers::default(), BTreeMap::new());
            for (number, time) in steps {
                let key = Key::new(format!("k{number}")).unwrap();
                match time {
                    Some(time) => {
                        timers.set(&key, at(time));
                        model.insert(key, at(time));
                    }
                    None => prop_assert_eq!(timers.remove(&key), model.remove(&key)),
                }
            }
            let mut due: Vec<_> = model.iter().filter(|(_, time)| **time <= at(now)).map(|(key, time)| (*time, key)).collect();
            due.sort();
            let expected: Vec<Key> = due.into_iter().take(limit).map(|(_, key)| key.clone()).collect();
            prop_assert_eq!(&timers.take_due(at(now), limit), &expected);
            for (key, time) in &model {
                prop_assert_eq!(timers.get(key), (!expected.contains(key)).then_some(*time));
            }
            prop_assert_eq!(timers.is_empty(), model.len() == expected.len());
        }
    }
}
