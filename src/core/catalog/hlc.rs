//! The clock that orders intents: a hybrid logical clock (Kulkarni et al., *Logical Physical Clocks*, OPODIS 2014,
//! section 4), with a bound on how far it lets itself be pulled along.
//!
//! A time is the largest wall clock seen, in milliseconds, and a counter for what happens within one of them. Wall clocks
//! are wrong now and then, and must do no harm when they are:
//!
//! - The clock does not follow a jump of this machine's wall clock while the process runs: it
//!   recognises the jump by the monotonic clock.
//! - A time from a clock that is far ahead is taken in as it is, since all members have to order intents alike, but it
//!   pulls this clock along by no more than `DRIFT_MAX_MS`.
//! - A node that changes an intent gives the change a time after the one that it knows (see
//!   [`HybridClock::after`]), so any node can change an intent with a wrong time at any moment.
//!
//! Invariants: [`HybridClock::after`] never returns the same time twice, and always one after its argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far the clocks of healthy machines may be apart, in milliseconds. Far above what NTP leaves, far below the clock
/// of a machine whose battery died.
pub(crate) const DRIFT_MAX_MS: u64 = 60_000;

/// A moment: wall clock in milliseconds since 1970, and a counter within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub(crate) struct HlcTimestamp {
    pub(crate) ms: u64,
    pub(crate) count: u32,
}

impl HlcTimestamp {
    fn next(self) -> Self {
        match self.count.checked_add(1) {
            Some(count) => Self { ms: self.ms, count },
            None => Self { ms: self.ms.saturating_add(1), count: 0 },
        }
    }
}

/// One node's clock.
#[derive(Debug, Default)]
pub(crate) struct HybridClock {
    last: HlcTimestamp,
    /// What the wall clock said, and when on the monotonic clock.
    anchor: Option<(u64, Duration)>,
}

impl HybridClock {
    /// The wall clock without its jumps. `uptime` is monotonic.
    pub(crate) fn physical(&mut self, wall_ms: u64, uptime: Duration) -> u64 {
        if let Some((wall, at)) = self.anchor {
            let passed = u64::try_from(uptime.saturating_sub(at).as_millis()).unwrap_or(u64::MAX);
            let expected = wall.saturating_add(passed);
            if wall_ms.abs_diff(expected) > DRIFT_MAX_MS {
                return expected;
            }
        }
        self.anchor = Some((wall_ms, uptime));
        wall_ms
    }

    /// A new time, after all that this clock gave or followed, and after `known`.
    pub(crate) fn after(&mut self, physical_ms: u64, known: HlcTimestamp) -> HlcTimestamp {
        let now = HlcTimestamp { ms: physical_ms, count: 0 };
        self.last = if now > self.last { now } else { self.last.next() };
        if known >= self.last { known.next() } else { self.last }
    }

    /// Follows a time of another node, within the bound.
    pub(crate) fn follow(&mut self, physical_ms: u64, seen: HlcTimestamp) {
        if seen.ms <= physical_ms.saturating_add(DRIFT_MAX_MS) {
            self.last = self.last.max(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_not_followed_and_a_drift_is() {
        let mut clock = HybridClock::default();
        assert_eq!(clock.physical(1_000_000, at(0)), 1_000_000);
        assert_eq!(clock.physical(1_010_500, at(10)), 1_010_500);
        assert_eq!(clock.physical(9_000_000_000, at(11)), 1_011_500);
        assert_eq!(clock.physical(0, at(12)), 1_012_500);
        assert_eq!(clock.physical(1_013_000, at(13)), 1_013_000);
    }

    #[test]
    fn what_a_clock_far_ahead_wrote_can_be_changed_and_does_not_pull_the_clock_along() {
        let mut clock = HybridClock::default();
        let absurd = HlcTimestamp { ms: 1 << 50, count: 7 };
        clock.follow(1_000, absurd);
        assert!(clock.after(1_000, absurd) > absurd);
        assert_eq!(clock.after(1_001, HlcTimestamp::default()), HlcTimestamp { ms: 1_001, count: 0 });
    }

    #[test]
    fn a_clock_a_little_ahead_is_followed() {
        let mut clock = HybridClock::default();
        let seen = HlcTimestamp { ms: 1_500, count: 3 };
        clock.follow(1_000, seen);
        assert_eq!(clock.after(1_000, HlcTimestamp::default()), HlcTimestamp { ms: 1_500, count: 4 });
    }

    proptest! {
        #[test]
        fn times_are_new_and_after_what_is_known(
            steps in proptest::collection::vec((0..3_000u64, proptest::option::of((0..200_000u64, 0..3u32))), 1..60),
        ) {
            let (mut clock, mut given) = (HybridClock::default(), Vec::new());
            for (physical, known) in steps {
                let known = known.map(|(ms, count)| HlcTimestamp { ms, count }).unwrap_or_default();
                clock.follow(physical, known);
                let time = clock.after(physical, known);
                prop_assert!(time > known);
                // One far ahead is after its register, and only there; among the others there is one order.
                if time.ms <= physical + DRIFT_MAX_MS {
                    prop_assert!(given.iter().all(|earlier| time > *earlier));
                    given.push(time);
                }
            }
        }
    }
}
