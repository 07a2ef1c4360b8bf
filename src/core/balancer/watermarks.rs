//! Whether this node has room for new keys, with two watermarks between which it stays as it is, and how fast it makes
//! room. Pure.
//!
//! ```text
//!   share of the disk   0 ---------- low ---------- high ---------- 1
//!   level                   ample          tight           full          until it is below low, then ample again
//! ```
//!
//! A node that is full takes no new keys and gives copies up. One that is tight takes what is new or lacks replicas, but
//! copies nothing only because the ring says that it belongs here: otherwise, what was given up on a node whose share is too
//! large for its disk would come back as soon as it is below the low watermark, and be given up again.

use std::time::Duration;

use crate::{config::NodeConfig, provider::Capacity};

/// Keys that are given up in one round.
const RELEASES_MAX: usize = 256;
/// From one round to the next: time for the owners to vouch, for the data to go, and for the disk to notice. The longer one
/// is the limit of what the pause grows to while releases free nothing: something else fills the disk.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// What the pause grows to at most while no node has room and each request for a new key waits for some.
const PAUSE_URGENT_MAX: Duration = Duration::from_secs(20);
/// A node that is full again so soon after it made room waits before it makes room again, each time for longer.
const SOON: Duration = Duration::from_secs(600);

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskPressure {
    /// For everything.
    Low,
    /// For what is needed.
    High,
    /// For nothing new.
    Full,
}

/// The room on this machine, as last seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskWatermarks {
    low: f64,
    high: f64,
    pressure: DiskPressure,
    seen: Option<Capacity>,
}

impl DiskWatermarks {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        Self { low: config.disk_low, high: config.disk_high, pressure: DiskPressure::Low, seen: None }
    }

    /// Takes in what the provider says. `turned_away`: an update has just found no room, so above the low watermark the
    /// node is full; below it, that one key is too large.
    pub(crate) fn observe(&mut self, seen: Option<Capacity>, turned_away: bool) {
        self.seen = seen;
        let share = seen.map_or(0.0, Capacity::share);
        self.pressure = if share >= self.high {
            DiskPressure::Full
        } else if share < self.low {
            DiskPressure::Low
        } else if turned_away || self.pressure == DiskPressure::Full {
            DiskPressure::Full
        } else {
            DiskPressure::High
        };
    }

    pub(crate) fn pressure(&self) -> DiskPressure {
        self.pressure
    }

    pub(crate) fn capacity(&self) -> Option<Capacity> {
        self.seen
    }

    /// How many of `held` keys have to go until the node is below the low watermark, if all have
    /// one size and nothing else is on the disk. If there is other data, these are too few, and
    /// another round follows.
    fn releases(self, held: usize) -> usize {
        let Some(Capacity { used, total }) = self.seen else { return 0 };
        let excess = used as f64 - self.low * total as f64;
        let each = (used as f64 / held.max(1) as f64).max(1.0);
        // At the watermark itself the node is still full.
        ((excess / each) as usize + 1).min(RELEASES_MAX)
    }
}

/// When to release how much.
#[derive(Debug, Default)]
pub(crate) struct EvictionBackoff {
    next: Duration,
    /// When the last round began.
    began: Duration,
    pause: Duration,
    /// Bytes in use when the last round began, or before the first one, while the node is full.
    used: Option<u64>,
    /// When the node was full last.
    relieved: Option<Duration>,
    /// How long it waited then, before it made room.
    rest: Duration,
}

impl EvictionBackoff {
    /// Whether a round begins now, for a node that holds `held` keys; if so, how many it gives up.
    /// `urgent`: no node has free disk space, and only copies may go, so that no other node makes
    /// them again.
    pub(crate) fn begin(&mut self, now: Duration, room: &DiskWatermarks, held: usize, urgent: bool) -> Option<usize> {
        let used = room.capacity().filter(|_| room.pressure() == DiskPressure::Full).map(|capacity| capacity.used);
        let Some(used) = used else {
            if self.used.take().is_some() {
                self.relieved = Some(now);
            }
            return None;
        };
        if self.used.is_none() {
            // Full again, so soon: the cluster may have too little room for all copies, and those that this node gives up
            // are made elsewhere, and so on. The less often, the better.
            let soon = !urgent && self.relieved.is_some_and(|at| now < at + SOON);
            self.rest = if soon { (self.rest * 2).clamp(PAUSE_MIN, PAUSE_MAX) } else { Duration::ZERO };
            (self.next, self.pause, self.used) = (now + self.rest, Duration::ZERO, Some(u64::MAX));
        }
        if urgent {
            self.next = self.next.min(self.began + PAUSE_URGENT_MAX);
        }
        if now < self.next {
            return None;
        }
        let in_vain = self.used.is_some_and(|before| used >= before);
        self.pause = if in_vain { (self.pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
        self.used = Some(used);
        self.began = now;
        self.next = now + self.pause;
        Some(room.releases(held))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn room() -> DiskWatermarks {
        DiskWatermarks::new(&NodeConfig::default())
    }

    fn percent(used: u64) -> Option<Capacity> {
        Some(Capacity { used, total: 100 })
    }

    #[test]
    fn between_the_watermarks_the_level_depends_on_where_one_comes_from() {
        let mut room = room();
        let levels = [79, 80, 89, 90, 95, 85, 80, 79, 85].map(|used| {
            room.observe(percent(used), false);
            room.pressure()
        });
        use DiskPressure::{Full, High, Low};
        assert_eq!(levels, [Low, High, High, Full, Full, Full, Full, Low, High]);
    }

    #[test]
    fn who_was_turned_away_is_full_above_the_low_watermark_and_below_it_the_key_is_too_large() {
        let mut room = room();
        room.observe(percent(50), true);
        assert_eq!(room.pressure(), DiskPressure::Low);
        room.observe(percent(82), true);
        assert_eq!(room.pressure(), DiskPressure::Full);
        room.observe(percent(82), false);
        assert_eq!(room.pressure(), DiskPressure::Full);
        room.observe(None, true);
        assert_eq!(
            room.pressure(),
            DiskPressure::Low,
            "without a capacity there is no telling when there is room again"
        );
        room.observe(Some(Capacity { used: 0, total: 0 }), false);
        assert_eq!(room.pressure(), DiskPressure::Full);
    }

    #[test]
    fn as_many_keys_go_as_take_up_the_excess() {
        let mut room = room();
        room.observe(percent(95), false);
        // 95 bytes in 19 keys: four of them take it to 75.
        assert_eq!(room.releases(19), 4);
        assert_eq!(room.releases(1_000_000), 16, "no key takes less than a byte");
        assert_eq!(room.releases(0), 1);
        room.observe(Some(Capacity { used: 950_000, total: 1_000_000 }), false);
        assert_eq!(room.releases(950_000), RELEASES_MAX);
    }

    #[test]
    fn while_releases_free_nothing_the_rounds_become_rare() {
        let (mut room, mut pace) = (room(), EvictionBackoff::default());
        room.observe(percent(100), false);
        let rounds: Vec<u64> =
            (0..100).filter(|second| pace.begin(Duration::from_secs(*second), &room, 10, false).is_some()).collect();
        assert_eq!(rounds, [0, 5, 15, 35, 75]);
        room.observe(percent(99), false);
        let rounds: Vec<u64> =
            (155..170).filter(|second| pace.begin(Duration::from_secs(*second), &room, 10, false).is_some()).collect();
        assert_eq!(rounds, [155, 160], "it helped, then it did not");
        room.observe(percent(70), false);
        assert_eq!(pace.begin(Duration::from_secs(170), &room, 10, false), None);
    }

    #[test]
    fn who_is_full_again_and_again_makes_room_ever_more_rarely() {
        let (mut room, mut pace) = (room(), EvictionBackoff::default());
        let mut waited = |pace: &mut EvictionBackoff, from: u64| {
            room.observe(percent(91), false);
            let begins =
                (from..from + 400).find(|second| pace.begin(Duration::from_secs(*second), &room, 91, false).is_some());
            room.observe(percent(70), false);
            assert_eq!(pace.begin(Duration::from_secs(begins.unwrap()), &room, 91, false), None);
            begins.unwrap() - from
        };
        let waits: Vec<u64> = (0..9).map(|time| waited(&mut pace, time * 500)).collect();
        assert_eq!(waits, [0, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(waited(&mut pace, 6_000), 0, "that was long ago");
    }

    #[test]
    fn while_no_node_has_room_rounds_neither_rest_nor_become_rare() {
        let (mut room, mut pace) = (room(), EvictionBackoff::default());
        room.observe(percent(100), false);
        let mut rounds = |range: std::ops::Range<u64>, urgent| -> Vec<u64> {
            range.filter(|second| pace.begin(Duration::from_secs(*second), &room, 10, urgent).is_some()).collect()
        };
        assert_eq!(rounds(0..300, false), [0, 5, 15, 35, 75, 155]);
        assert_eq!(rounds(300..361, true), [300, 320, 340, 360]);
        // Full again a moment after it made room.
        let mut pace = EvictionBackoff::default();
        for second in [0, 10, 20] {
            room.observe(percent(95), false);
            assert!(pace.begin(Duration::from_secs(second), &room, 10, true).is_some(), "{second}");
            room.observe(percent(70), false);
            assert!(pace.begin(Duration::from_secs(second + 5), &room, 10, true).is_none());
        }
    }

    proptest! {
        /// However the disk fills and empties, a node changes its mind only beyond a watermark.
        #[test]
        fn it_stops_taking_keys_only_when_high_or_turned_away_and_takes_them_again_only_when_low(
            steps in proptest::collection::vec((0..=100u64, any::<bool>()), 1..50),
        ) {
            let mut room = room();
            for (used, turned_away) in steps {
                let before = room.pressure() == DiskPressure::Full;
                room.observe(percent(used), turned_away);
                match (before, room.pressure() == DiskPressure::Full) {
                    (false, true) => prop_assert!(used >= 90 || (turned_away && used >= 80)),
                    (true, false) => prop_assert!(used < 80),
                    _ => {}
                }
            }
        }
    }
}
