//! Which of the keys that this node serves are asked for so often that more nodes should keep them for a while. Pure.
//!
//! ```text
//!   requests a second   0 ------- warm ------- hot -------
//!   extra replicas      one less,  as they     one more, after a few such seconds
//!                       after a    are
//!                       while
//! ```
//!
//! Extra replicas share the requests, so a key that has some is asked for less at each holder; only when that falls far below
//! what made it hot does it lose them, one at a time. What each holder finds is gossiped, and the largest number counts.

use std::{collections::BTreeMap, time::Duration};

use crate::{config::NodeConfig, key::Key};

/// A key that is hot in most seconds of such a time gets one more replica.
const STEP: Duration = Duration::from_secs(5);
const HOT_SECONDS: u32 = 3;
/// What keeps a key warm, as a part of what makes it hot.
const WARM_PART: u32 = 4;
/// Keys with extra replicas at a time: their names are gossiped.
const HOT_KEYS_MAX: usize = 16;
/// Bytes of their names.
const HOT_BYTES_MAX: usize = 4096;
/// Keys that are watched.
const WATCHED_MAX: usize = 256;

/// The keys of one node that are or may become hot.
#[derive(Debug)]
pub(crate) struct HotKeys {
    rate: u32,
    extra_max: u8,
    hold: Duration,
    watched: BTreeMap<Key, KeyRate>,
    next_step: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct KeyRate {
    extra: u8,
    /// In this step.
    hot_seconds: u32,
    /// When it was warm last, or lost a replica.
    warm_at: Duration,
}

impl HotKeys {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        Self {
            rate: config.hot_rate,
            extra_max: u8::try_from(config.hot_replicas).unwrap_or(u8::MAX),
            hold: config.hot_hold,
            watched: BTreeMap::new(),
            next_step: Duration::ZERO,
        }
    }

    /// Whether it is worth to [`HotKeys::note`] that a key was asked for so often in one second.
    pub(crate) fn is_notable(rate: u32, hits: u32) -> bool {
        rate > 0 && (hits == rate || hits == rate.div_ceil(WARM_PART))
    }

    /// `key` was asked for so often in this second, up to now.
    pub(crate) fn note(&mut self, now: Duration, key: &Key, hits: u32) {
        if !self.watched.contains_key(key) {
            if self.watched.len() >= WATCHED_MAX && !(hits >= self.rate && self.make_place()) {
                return;
            }
            self.watched.insert(key.clone(), KeyRate::default());
        }
        let Some(warmth) = self.watched.get_mut(key) else { return };
        warmth.warm_at = now;
        warmth.hot_seconds += u32::from(hits >= self.rate);
    }

    /// Gives up watching a key that is no more than warm, if there is one.
    fn make_place(&mut self) -> bool {
        let warm = self.watched.iter().find(|(_, warmth)| warmth.extra == 0 && warmth.hot_seconds == 0);
        let warm = warm.map(|(key, _)| key.clone());
        warm.is_some_and(|key| self.watched.remove(&key).is_some())
    }

    /// Decides anew, if it is time. Returns whether any key has another number of extra replicas than before.
    pub(crate) fn step(&mut self, now: Duration) -> bool {
        if now < self.next_step {
            return false;
        }
        self.next_step = now + STEP;
        let hot = || self.watched.iter().filter(|(_, warmth)| warmth.extra > 0);
        let (mut keys, mut bytes) = (hot().count(), hot().map(|(key, _)| key.as_str().len()).sum::<usize>());
        let mut changed = false;
        for (key, warmth) in &mut self.watched {
            let is_hot = warmth.hot_seconds >= HOT_SECONDS;
            warmth.hot_seconds = 0;
            let fits = warmth.extra > 0 || keys < HOT_KEYS_MAX && bytes + key.as_str().len() <= HOT_BYTES_MAX;
            if is_hot && warmth.extra < self.extra_max && fits {
                if warmth.extra == 0 {
                    keys += 1;
                    bytes += key.as_str().len();
                }
                warmth.extra += 1;
                changed = true;
            } else if now >= warmth.warm_at + self.hold && warmth.extra > 0 {
                warmth.extra -= 1;
                warmth.warm_at = now;
                changed = true;
            }
        }
        let hold = self.hold.max(STEP);
        self.watched.retain(|_, warmth| warmth.extra > 0 || now < warmth.warm_at + hold);
        changed
    }

    /// How many replicas more than usual which keys should have, as far as this node can tell.
    pub(crate) fn extra_replicas(&self) -> BTreeMap<Key, u8> {
        let hot = self.watched.iter().filter(|(_, warmth)| warmth.extra > 0);
        hot.map(|(key, warmth)| (key.clone(), warmth.extra)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 100;

    fn heat() -> HotKeys {
        let mut config = NodeConfig::default();
        (config.hot_rate, config.hot_replicas, config.hot_hold) = (RATE, 2, Duration::from_secs(60));
        HotKeys::new(&config)
    }

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    /// From second to second, `key` is asked for so often. Returns the extra replicas after each second in which they changed.
    fn run(heat: &mut HotKeys, text: &str, seconds: std::ops::Range<u64>, per_second: u32) -> Vec<(u64, u8)> {
        let mut changes = Vec::new();
        for second in seconds {
            let now = Duration::from_secs(second);
            for hits in (1..=per_second).filter(|hits| HotKeys::is_notable(RATE, *hits)) {
                heat.note(now, &key(text), hits);
            }
            if heat.step(now) {
                changes.push((second, heat.extra_replicas().get(&key(text)).copied().unwrap_or(0)));
            }
        }
        changes
    }

    #[test]
    fn a_hot_key_gets_extra_replicas_one_after_the_other_and_no_more_than_allowed() {
        assert_eq!(run(&mut heat(), "a", 1..60, RATE), [(6, 1), (11, 2)]);
        assert_eq!(run(&mut heat(), "a", 1..60, RATE - 1), []);
    }

    #[test]
    fn a_moment_makes_nothing_hot() {
        let mut heat = heat();
        assert_eq!(run(&mut heat, "a", 1..3, 10 * RATE), []);
        assert_eq!(run(&mut heat, "a", 3..60, 0), []);
    }

    #[test]
    fn extra_replicas_stay_while_the_key_is_warm_and_go_one_by_one_when_it_is_not() {
        let mut heat = heat();
        run(&mut heat, "a", 1..20, RATE);
        assert_eq!(run(&mut heat, "a", 20..300, RATE / WARM_PART), []);
        assert_eq!(run(&mut heat, "a", 300..500, RATE / WARM_PART - 1), [(361, 1), (421, 0)]);
        assert!(heat.watched.is_empty());
    }

    #[test]
    fn keys_that_are_only_warm_do_not_keep_a_hot_one_from_being_seen() {
        let mut heat = heat();
        for now in (1..10).map(Duration::from_secs) {
            for number in 0..WATCHED_MAX {
                heat.note(now, &key(&format!("warm{number}")), RATE / WARM_PART);
            }
            heat.note(now, &key("hot"), RATE);
            heat.step(now);
        }
        assert_eq!(heat.extra_replicas(), [(key("hot"), 1)].into());
        assert!(heat.watched.len() <= WATCHED_MAX);
    }

    #[test]
    fn so_many_keys_are_hot_at_once_and_no_more() {
        let mut heat = heat();
        for second in 1..10 {
            for number in 0..1_000 {
                heat.note(Duration::from_secs(second), &key(&format!("k{number}")), RATE);
            }
            heat.step(Duration::from_secs(second));
        }
        assert_eq!(heat.extra_replicas().len(), HOT_KEYS_MAX);
        assert!(heat.watched.len() <= WATCHED_MAX);
    }
}
