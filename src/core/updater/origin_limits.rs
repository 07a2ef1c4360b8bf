//! The pure core of limits: how many updates ask the origin of keys with one prefix at once, and
//! how quickly they follow each other. An update beyond a limit waits here and not in a worker, and
//! is called when the limit allows it.
//!
//! Invariants: never more inside than `concurrency`; starts are never closer than a `per_second`-th
//! of a second; no update is let in before a more urgent one that waits for the same limit; an
//! update that waits was not admitted to a worker, so the bound of the update queue bounds this
//! too.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    config::{UpstreamLimit, of_prefix},
    key::Key,
    provider::UpdateReason,
};

/// A place among the waiting updates: the most urgent first, then the earliest.
type Place = (UpdateReason, u64);

/// All limits, by prefix; the longest that a key begins with counts.
#[derive(Debug)]
pub(crate) struct Upstreams {
    lanes: BTreeMap<String, PrefixLimit>,
    arrivals: u64,
}

/// What is under one limit.
#[derive(Debug, Default)]
struct PrefixLimit {
    at_once: usize,
    spacing: Duration,
    next_start: Duration,
    inside: BTreeSet<Key>,
    waiting: BTreeMap<Place, Key>,
    places: BTreeMap<Key, Place>,
}

impl Upstreams {
    pub(crate) fn new(limits: &BTreeMap<String, UpstreamLimit>) -> Self {
        let lane = |limit: &UpstreamLimit| PrefixLimit {
            at_once: limit.concurrency.unwrap_or(usize::MAX),
            spacing: limit.per_second.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(rate.recip())),
            ..PrefixLimit::default()
        };
        Self { lanes: limits.iter().map(|(prefix, limit)| (prefix.clone(), lane(limit))).collect(), arrivals: 0 }
    }

    /// Whether the update of `key` may ask the origin now. It is inside then, until it leaves. If not, it waits to be
    /// called.
    pub(crate) fn enter(&mut self, now: Duration, key: &Key, reason: UpdateReason) -> bool {
        let arrival = self.arrivals;
        self.arrivals += 1;
        let Some(lane) = self.lane(key) else { return true };
        if lane.inside.contains(key) {
            return true;
        }
        if lane.waiting.is_empty() && lane.has_room(now) {
            lane.start(now, key.clone());
            return true;
        }
        lane.wait(key, reason, arrival);
        false
    }

    /// The update of `key` is over, or waits no more.
    pub(crate) fn leave(&mut self, key: &Key) {
        if let Some(lane) = self.lane(key) {
            lane.inside.remove(key);
            if let Some(place) = lane.places.remove(key) {
                lane.waiting.remove(&place);
            }
        }
    }

    /// Lets in the waiting updates that may go on now.
    pub(crate) fn call(&mut self, now: Duration) -> Vec<(Key, UpdateReason)> {
        let mut called = Vec::new();
        for lane in self.lanes.values_mut() {
            while lane.has_room(now) {
                let Some(((reason, _), key)) = lane.waiting.pop_first() else { break };
                lane.places.remove(&key);
                lane.start(now, key.clone());
                called.push((key, reason));
            }
        }
        called
    }

    /// When an update is to be called although no other update leaves.
    pub(crate) fn next_call(&self) -> Option<Duration> {
        let held_by_rate = |lane: &&PrefixLimit| !lane.waiting.is_empty() && lane.inside.len() < lane.at_once;
        self.lanes.values().filter(held_by_rate).map(|lane| lane.next_start).min()
    }

    fn lane(&mut self, key: &Key) -> Option<&mut PrefixLimit> {
        let prefix = of_prefix(&self.lanes, key)?.0.to_owned();
        self.lanes.get_mut(&prefix)
    }
}

impl PrefixLimit {
    fn has_room(&self, now: Duration) -> bool {
        self.inside.len() < self.at_once && now >= self.next_start
    }

    fn start(&mut self, now: Duration, key: Key) {
        self.inside.insert(key);
        self.next_start = now + self.spacing;
    }

    /// A key that waits already keeps its turn and takes the more urgent reason.
    fn wait(&mut self, key: &Key, reason: UpdateReason, arrival: u64) {
        let place = match self.places.get(key) {
            Some(&(known, turn)) => (known.min(reason), turn),
            None => (reason, arrival),
        };
        if let Some(old) = self.places.insert(key.clone(), place) {
            self.waiting.remove(&old);
        }
        self.waiting.insert(place, key.clone());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn limit(concurrency: Option<usize>, per_second: Option<f64>) -> UpstreamLimit {
        let mut limit = UpstreamLimit::default();
        (limit.concurrency, limit.per_second) = (concurrency, per_second);
        limit
    }

    fn upstreams<const N: usize>(limits: [(&str, UpstreamLimit); N]) -> Upstreams {
        Upstreams::new(&limits.map(|(prefix, limit)| (prefix.to_owned(), limit)).into())
    }

    #[test]
    fn the_most_urgent_of_those_who_wait_goes_first_and_others_are_not_held_up() {
        let mut upstreams = upstreams([("a/", limit(Some(1), None)), ("a/b/", limit(Some(1), None))]);
        assert!(upstreams.enter(NOW, &key("a/1"), UpdateReason::Refresh));
        assert!(!upstreams.enter(NOW, &key("a/2"), UpdateReason::Refresh));
        assert!(!upstreams.enter(NOW, &key("a/3"), UpdateReason::Repair));
        assert!(!upstreams.enter(NOW, &key("a/4"), UpdateReason::Refresh));
        assert!(upstreams.enter(NOW, &key("a/b/1"), UpdateReason::Refresh), "the longest prefix counts");
        assert!(upstreams.enter(NOW, &key("b"), UpdateReason::Rebalance), "it has no limit");
        assert!(!upstreams.enter(NOW, &key("a/4"), UpdateReason::Request), "somebody came to wait for it");
        assert_eq!((upstreams.call(NOW), upstreams.next_call()), (vec![], None));
        for (leaves, called) in [
            ("a/1", vec![(key("a/4"), UpdateReason::Request)]),
            ("a/4", vec![(key("a/3"), UpdateReason::Repair)]),
            ("a/3", vec![(key("a/2"), UpdateReason::Refresh)]),
            ("a/2", vec![]),
        ] {
            upstreams.leave(&key(leaves));
            assert_eq!(upstreams.call(NOW), called);
        }
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_called() {
        let mut upstreams = upstreams([("", limit(Some(1), None))]);
        for (number, entered) in [("1", true), ("2", false), ("3", false)] {
            assert_eq!(upstreams.enter(NOW, &key(number), UpdateReason::Request), entered);
        }
        upstreams.leave(&key("2"));
        assert_eq!(upstreams.call(NOW), []);
        upstreams.leave(&key("1"));
        assert_eq!(upstreams.call(NOW), [(key("3"), UpdateReason::Request)]);
    }

    #[test]
    fn starts_are_spread_over_the_second() {
        let mut upstreams = upstreams([("", limit(None, Some(4.0)))]);
        assert!(upstreams.enter(NOW, &key("1"), UpdateReason::Refresh));
        assert!(!upstreams.enter(NOW, &key("2"), UpdateReason::Refresh));
        upstreams.leave(&key("1"));
        let next = NOW + Duration::from_millis(250);
        assert_eq!((upstreams.call(NOW), upstreams.next_call()), (vec![], Some(next)));
        assert_eq!(upstreams.call(next), [(key("2"), UpdateReason::Refresh)]);
        assert!(upstreams.enter(next, &key("2"), UpdateReason::Refresh), "it is inside already");
        assert_eq!(upstreams.next_call(), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u8, bool),
        Leave(u8),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..12u8, any::<bool>()).prop_map(|(key, urgent)| Step::Enter(key, urgent)),
            (0..12u8).prop_map(Step::Leave),
            (0..400u64).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn the_limits_hold_and_everybody_gets_in(steps in steps(), at_once in 1..4usize, rate in 1..20u32) {
            let mut upstreams = upstreams([("", limit(Some(at_once), Some(rate.into())))]);
            let spacing = Duration::from_secs_f64(f64::from(rate).recip());
            let (mut now, mut inside, mut waiting) = (NOW, BTreeSet::new(), BTreeSet::new());
            let mut starts: Vec<Duration> = Vec::new();
            for step in steps {
                match step {
                    Step::Enter(number, urgent) => {
                        let entering = key(&number.to_string());
                        let reason = if urgent { UpdateReason::Request } else { UpdateReason::Refresh };
                        if upstreams.enter(now, &entering, reason) {
                            if inside.insert(entering) {
                                starts.push(now);
                            }
                        } else {
                            waiting.insert(entering);
                        }
                    }
                    Step::Leave(number) => {
                        let leaving = key(&number.to_string());
                        if inside.remove(&leaving) {
                            upstreams.leave(&leaving);
                        }
                    }
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                }
                for (called, _) in upstreams.call(now) {
                    prop_assert!(waiting.remove(&called));
                    inside.insert(called);
                    starts.push(now);
                }
                prop_assert!(inside.len() <= at_once);
            }
            prop_assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= spacing));
            for _ in 0..12 {
                for leaving in std::mem::take(&mut inside) {
                    upstreams.leave(&leaving);
                }
                now += spacing;
                inside.extend(upstreams.call(now).into_iter().map(|(called, _)| called));
                waiting.retain(|key| !inside.contains(key));
            }
            prop_assert!(waiting.is_empty());
        }
    }
}
