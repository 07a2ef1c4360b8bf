//! The pure core: which key is due when, and how the interval of each follows how often it really changes.
//!
//! Invariants: a key is due once at a time; after an update it is not due before its interval is over; the interval
//! stays between the policy's `min` and `max`. What is no longer held is thrown out when it comes due.

use std::{collections::BTreeMap, time::Duration};

use crate::{config::RefreshPolicy, key::Key, util::timers::Timers};

/// When which key is to be refreshed, on a monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    due: Timers,
    intervals: BTreeMap<Key, Duration>,
}

impl Schedule {
    /// Here is a key of unknown age. If it is news, it is due at any time within its interval: `chance`, in `0.0..1.0`,
    /// says when, so that not all are due at once after a restart.
    pub(crate) fn learn(&mut self, now: Duration, key: &Key, policy: &RefreshPolicy, chance: f64) {
        if !self.intervals.contains_key(key) {
            self.set(key, now + policy.interval.mul_f64(chance), policy.interval);
        }
    }

    /// The key was brought up to date; whether that changed it, if that is known.
    pub(crate) fn refreshed(
        &mut self,
        now: Duration,
        key: &Key,
        policy: &RefreshPolicy,
        changed: Option<bool>,
        chance: f64,
    ) {
        let interval = self.intervals.get(key).copied().unwrap_or(policy.interval);
        let interval = match changed {
            Some(true) => interval / 2,
            Some(false) => interval.saturating_mul(2),
            None => interval,
        };
        let interval = interval.min(policy.longest()).max(policy.shortest());
        self.set(key, now + interval + interval.mul_f64(policy.jitter * chance), interval);
    }

    /// The key that has been due for longest, if one is. Unless something else is said of it, it is due again an interval
    /// later.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<Key> {
        let key = self.due.due(now).next()?.clone();
        let interval = self.intervals[&key];
        self.set(&key, now + interval, interval);
        Some(key)
    }

    /// How long until `key` is due.
    pub(crate) fn due_in(&self, now: Duration, key: &Key) -> Option<Duration> {
        self.due.get(key).map(|due| due.saturating_sub(now))
    }

    pub(crate) fn forget(&mut self, key: &Key) {
        self.due.remove(key);
        self.intervals.remove(key);
    }

    fn set(&mut self, key: &Key, due: Duration, interval: Duration) {
        self.due.set(key, due);
        self.intervals.insert(key.clone(), interval);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn policy(min: u32, max: u32) -> RefreshPolicy {
        let mut policy = RefreshPolicy::every(MINUTE);
        (policy.min, policy.max) = (Some(MINUTE / min), Some(MINUTE * max));
        policy
    }

    #[test]
    fn what_is_found_at_a_start_is_spread_over_the_interval() {
        let mut schedule = Schedule::default();
        let policy = RefreshPolicy::every(MINUTE);
        for number in 0..100 {
            schedule.learn(NOW, &key(&number.to_string()), &policy, f64::from(number) / 100.0);
        }
        schedule.learn(NOW + MINUTE, &key("0"), &policy, 0.5);
        let due_by = |schedule: &mut Schedule, at| std::iter::from_fn(|| schedule.take_due(at)).count();
        assert_eq!(due_by(&mut schedule, NOW), 1);
        assert_eq!(due_by(&mut schedule, NOW + MINUTE / 2), 50);
        assert_eq!(due_by(&mut schedule, NOW + MINUTE - Duration::from_millis(1)), 49);
    }

    #[test]
    fn the_interval_follows_how_often_the_key_changes() {
        let mut schedule = Schedule::default();
        let mut now = NOW;
        for (changed, factor) in [
            (None, 1.0),
            (Some(true), 0.5),
            (Some(true), 0.25),
            (Some(true), 0.25),
            (None, 0.25),
            (Some(false), 0.5),
            (Some(false), 1.0),
            (Some(false), 2.0),
            (Some(false), 2.0),
        ] {
            schedule.refreshed(now, &key("k"), &policy(4, 2), changed, 0.0);
            let due = now + MINUTE.mul_f64(factor);
            assert_eq!(schedule.take_due(due - Duration::from_nanos(1)), None);
            assert_eq!(schedule.take_due(due), Some(key("k")));
            now = due;
        }
        schedule.forget(&key("k"));
        assert_eq!(schedule.take_due(now + MINUTE * 100), None);
    }

    proptest! {
        #[test]
        fn no_key_is_due_twice_within_its_shortest_interval(
            steps in prop::collection::vec((0..3u8, 0..120u64, prop::option::of(any::<bool>()), 0.0..1.0f64), 1..200),
        ) {
            let (mut schedule, mut now) = (Schedule::default(), NOW);
            let policy = policy(4, 4);
            let mut last: BTreeMap<Key, Duration> = BTreeMap::new();
            for (number, seconds, changed, chance) in steps {
                now += Duration::from_secs(seconds);
                let touched = key(&number.to_string());
                schedule.learn(now, &touched, &policy, chance);
                while let Some(due) = schedule.take_due(now) {
                    if let Some(before) = last.insert(due.clone(), now) {
                        prop_assert!(now - before >= policy.shortest());
                    }
                    schedule.refreshed(now, &due, &policy, changed, chance);
                }
                prop_assert!(schedule.intervals.keys().all(|key| schedule.due.get(key).is_some()));
            }
        }
    }
}
