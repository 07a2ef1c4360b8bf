//! The pure core of fairness: which of the keys that wait for an updater is next, so that an origin that hangs does not
//! take all of them.
//!
//! Keys wait in a line for each origin; what asks no origin (copies from peers, removals) has a line of its own. The most
//! urgent key goes first, of those the one whose origin has the fewest updaters, then the one whose origin had none for the
//! longest time, then the one that came first. The
//! *fair share* of a line is the number of updaters divided by the number of lines, and at least one.
//!
//! Invariants:
//! - While another origin waits with less than its fair share, no origin gets more than its own.
//! - While anything waits, something may start.
//! - What has an updater loses it only if it makes no progress, its origin has more than its fair share, and a line waits
//!   that has less. With more lines than updaters, a line without any waits at most as long as the others may stand
//!   still.

use std::{collections::BTreeMap, time::Duration};

use crate::{key::Key, provider::UpdateReason};

/// How long an update stands still before its origin counts as slow: longer than most origins think before they send, and
/// a small part of the time for which a request waits.
const SLOW_AFTER: Duration = Duration::from_secs(3);

/// What asks no origin is under `None`.
type Origin = Option<String>;

/// A place in a line: the most urgent first, then in the order of arrival.
type Place = (UpdateReason, u64);

#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<Place, Key>,
    running: BTreeMap<Key, Run>,
    /// When one of it started last, or the line began, in half starts: a line that begins comes before the one that was
    /// served last.
    served: u64,
}

/// An update that has an updater.
#[derive(Debug, Clone, Copy)]
struct Run {
    began: Duration,
    /// When it last got any further.
    moved: Duration,
}

/// All lines.
#[derive(Debug)]
pub(crate) struct Shares {
    updaters: usize,
    /// An update that stood still for this long may have to give way also where there are more lines than updaters.
    patience: Duration,
    /// None is empty.
    lines: BTreeMap<Origin, Line>,
    /// The line of each key, and its place while it waits.
    keys: BTreeMap<Key, (Origin, Option<Place>)>,
    arrivals: u64,
    starts: u64,
    waiting: usize,
    running: usize,
}

impl Shares {
    pub(crate) fn new(updaters: usize, patience: Duration) -> Self {
        let (lines, keys) = (BTreeMap::new(), BTreeMap::new());
        Self { updaters, patience, lines, keys, arrivals: 0, starts: 0, waiting: 0, running: 0 }
    }

    /// `key` waits for an updater. One that waits already keeps its turn and takes the more urgent reason; one that has an
    /// updater keeps it.
    pub(crate) fn queue(&mut self, key: &Key, origin: Origin, reason: UpdateReason) {
        let place = match self.keys.get(key) {
            Some((_, None)) => return,
            Some((_, Some((known, turn)))) => ((*known).min(reason), *turn),
            None => {
                self.arrivals += 1;
                (reason, self.arrivals)
            }
        };
        self.leave(key);
        let fresh = Line { served: 2 * self.starts, ..Line::default() };
        self.lines.entry(origin.clone()).or_insert(fresh).waiting.insert(place, key.clone());
        self.keys.insert(key.clone(), (origin, Some(place)));
        self.waiting += 1;
    }

    /// The key that a free updater should take.
    pub(crate) fn next(&self, now: Duration) -> Option<&Key> {
        let lines = self.lines.iter().filter(|(origin, line)| !line.waiting.is_empty() && self.may_start(now, origin));
        let first = lines.filter_map(|(_, line)| {
            let ((reason, turn), key) = line.waiting.first_key_value()?;
            Some(((reason, line.running.len(), line.served, turn), key))
        });
        first.min_by_key(|(order, _)| *order).map(|(_, key)| key)
    }

    /// `key` has an updater from now on.
    pub(crate) fn start(&mut self, now: Duration, key: &Key) {
        let Some((origin, place)) = self.keys.get_mut(key) else { return };
        let Some(place) = place.take() else { return };
        let line = self.lines.entry(origin.clone()).or_default();
        line.waiting.remove(&place);
        self.starts += 1;
        line.served = 2 * self.starts + 1;
        (self.waiting, self.running) = (self.waiting - 1, self.running + 1);
        line.running.insert(key.clone(), Run { began: now, moved: now });
    }

    /// The update of `key` got further.
    pub(crate) fn moved(&mut self, now: Duration, key: &Key) {
        if let Some(run) = self.run_mut(key) {
            run.moved = now;
        }
    }

    /// For how long the update of `key` has stood still; zero if it has no updater.
    pub(crate) fn still_for(&self, now: Duration, key: &Key) -> Duration {
        let line = self.keys.get(key).and_then(|(origin, _)| self.lines.get(origin));
        line.and_then(|line| line.running.get(key)).map_or(Duration::ZERO, |run| now.saturating_sub(run.moved))
    }

    /// `key` waits no more, or its update is over.
    pub(crate) fn leave(&mut self, key: &Key) {
        let Some((origin, place)) = self.keys.remove(key) else { return };
        let Some(line) = self.lines.get_mut(&origin) else { return };
        if let Some(place) = place {
            line.waiting.remove(&place);
            self.waiting -= 1;
        } else {
            line.running.remove(key);
            self.running -= 1;
        }
        if line.waiting.is_empty() && line.running.is_empty() {
            self.lines.remove(&origin);
        }
    }

    /// How many updaters could be put to work now.
    pub(crate) fn vacancies(&self) -> usize {
        self.updaters.saturating_sub(self.running).min(self.waiting)
    }

    /// An update that should give its updater to another line.
    pub(crate) fn to_give_way(&self, now: Duration) -> Option<&Key> {
        if self.running < self.updaters {
            return None;
        }
        let (fair, crowded) = (self.fair(), self.lines.len() > self.updaters);
        let waits = |line: &Line| !line.waiting.is_empty() && line.running.len() < fair;
        self.lines.values().any(waits).then_some(())?;
        let too_long = |line: &Line, run: &Run| {
            let still = now.saturating_sub(run.moved);
            (line.running.len() > fair && still >= SLOW_AFTER) || (crowded && still >= self.patience)
        };
        let candidates = self.lines.values().filter(|line| !waits(line)).flat_map(|line| {
            let slow = line.running.iter().filter(move |(_, run)| too_long(line, run));
            slow.map(move |(key, run)| ((line.running.len(), run.began), key))
        });
        // Of the origin that has the most, the one that loses the least.
        candidates.max_by_key(|(order, _)| *order).map(|(_, key)| key)
    }

    fn fair(&self) -> usize {
        (self.updaters / self.lines.len().max(1)).max(1)
    }

    fn may_start(&self, now: Duration, origin: &Origin) -> bool {
        let Some(line) = self.lines.get(origin).filter(|_| origin.is_some()) else { return true };
        let is_slow = line.running.values().any(|run| now.saturating_sub(run.moved) >= SLOW_AFTER);
        let fair = self.fair();
        // Copies and removals are less urgent than requests, and give way to them unless the origin is slow.
        let counts = |other: &Origin| other != origin && (other.is_some() || is_slow);
        let waits = |line: &Line| !line.waiting.is_empty() && line.running.len() < fair;
        line.running.len() < fair || !self.lines.iter().any(|(other, line)| counts(other) && waits(line))
    }

    fn run_mut(&mut self, key: &Key) -> Option<&mut Run> {
        let (origin, _) = self.keys.get(key)?;
        self.lines.get_mut(origin)?.running.get_mut(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn key(origin: u8, number: u32) -> Key {
        Key::new(format!("{origin}/{number}")).unwrap()
    }

    fn name(origin: u8) -> Origin {
        (origin > 0).then(|| origin.to_string())
    }

    fn queue(shares: &mut Shares, origin: u8, numbers: std::ops::Range<u32>) {
        for number in numbers {
            shares.queue(&key(origin, number), name(origin), UpdateReason::Request);
        }
    }

    /// Lets free updaters take what is next.
    fn fill(shares: &mut Shares, now: Duration) -> Vec<Key> {
        let mut started = Vec::new();
        while shares.running < shares.updaters {
            let Some(next) = shares.next(now).cloned() else { break };
            shares.start(now, &next);
            started.push(next);
        }
        started
    }

    fn running(shares: &Shares, origin: u8) -> usize {
        shares.lines.get(&name(origin)).map_or(0, |line| line.running.len())
    }

    #[test]
    fn one_origin_alone_has_all_updaters_and_a_second_one_half_of_them() {
        let mut shares = Shares::new(4, PATIENCE);
        queue(&mut shares, 1, 0..40);
        assert_eq!(fill(&mut shares, NOW).len(), 4);
        queue(&mut shares, 2, 0..1);
        assert_eq!(shares.next(NOW), Some(&key(2, 0)), "the next one that is free");
        shares.leave(&key(1, 0));
        queue(&mut shares, 2, 1..9);
        assert_eq!(fill(&mut shares, NOW), [key(2, 0)]);
        shares.leave(&key(1, 1));
        assert_eq!(fill(&mut shares, NOW), [key(2, 1)]);
        assert_eq!((running(&shares, 1), running(&shares, 2)), (2, 2));
        shares.leave(&key(2, 0));
        assert_eq!(fill(&mut shares, NOW), [key(2, 2)], "in the order of arrival, within the share");
    }

    #[test]
    fn what_stands_still_beyond_the_fair_share_gives_way_and_what_moves_does_not() {
        let mut shares = Shares::new(4, PATIENCE);
        queue(&mut shares, 1, 0..40);
        fill(&mut shares, NOW);
        let later = NOW + SLOW_AFTER;
        assert_eq!(shares.to_give_way(later), None, "nobody else waits");
        queue(&mut shares, 2, 0..9);
        assert_eq!(shares.to_give_way(later - Duration::from_millis(1)), None);
        for number in [1, 2, 3] {
            shares.moved(later, &key(1, number));
        }
        assert_eq!(shares.to_give_way(later), Some(&key(1, 0)));
        shares.leave(&key(1, 0));
        queue(&mut shares, 1, 0..1);
        assert_eq!(fill(&mut shares, later), [key(2, 0)]);
        assert_eq!(shares.to_give_way(later), None, "the others move");
        let later = later + PATIENCE;
        shares.moved(later, &key(2, 0));
        shares.leave(&shares.to_give_way(later).unwrap().clone());
        assert_eq!(fill(&mut shares, later), [key(2, 1)]);
        assert_eq!(shares.to_give_way(later + PATIENCE), None, "each has its share");
    }

    #[test]
    fn copies_wait_for_requests_but_not_for_an_origin_that_hangs() {
        let mut shares = Shares::new(2, PATIENCE);
        shares.queue(&key(0, 0), None, UpdateReason::Repair);
        queue(&mut shares, 1, 0..9);
        assert_eq!(fill(&mut shares, NOW), [key(1, 0), key(1, 1)]);
        shares.leave(&key(1, 0));
        assert_eq!(fill(&mut shares, NOW), [key(1, 2)]);
        let later = NOW + SLOW_AFTER;
        let gives_way = shares.to_give_way(later).unwrap().clone();
        shares.leave(&gives_way);
        assert_eq!(fill(&mut shares, later), [key(0, 0)]);
    }

    #[test]
    fn with_more_origins_than_updaters_each_has_its_turn() {
        let mut shares = Shares::new(1, PATIENCE);
        queue(&mut shares, 1, 0..9);
        fill(&mut shares, NOW);
        queue(&mut shares, 2, 0..1);
        assert_eq!(shares.to_give_way(NOW + SLOW_AFTER), None);
        let later = NOW + PATIENCE;
        assert_eq!(shares.to_give_way(later), Some(&key(1, 0)));
        shares.leave(&key(1, 0));
        assert_eq!(fill(&mut shares, later), [key(2, 0)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Queue(u8, u32, bool),
        End(u8, u32),
        Move(u8, u32),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..4u8, 0..8u32, any::<bool>()).prop_map(|(origin, number, urgent)| Step::Queue(origin, number, urgent)),
            2 => (0..4u8, 0..8u32).prop_map(|(origin, number)| Step::End(origin, number)),
            1 => (0..4u8, 0..8u32).prop_map(|(origin, number)| Step::Move(origin, number)),
            1 => (0..5_000u64).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn shares_are_kept_and_nobody_waits_for_ever(steps in steps(), updaters in 1..6usize) {
            let (mut shares, mut now) = (Shares::new(updaters, PATIENCE), NOW);
            for step in steps {
                match step {
                    Step::Queue(origin, number, urgent) => {
                        let reason = if urgent { UpdateReason::Request } else { UpdateReason::Repair };
                        shares.queue(&key(origin, number), name(origin), reason);
                    }
                    Step::End(origin, number) => shares.leave(&key(origin, number)),
                    Step::Move(origin, number) => shares.moved(now, &key(origin, number)),
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                }
                while shares.running < updaters {
                    let fair = shares.fair();
                    let waits: Vec<u8> = (0..4).filter(|origin| shares.lines.get(&name(*origin)).is_some_and(|line| {
                        !line.waiting.is_empty() && line.running.len() < fair
                    })).collect();
                    let Some(next) = shares.next(now).cloned() else { break };
                    let origin: u8 = next.components().next().unwrap().parse().unwrap();
                    let more_than_fair = origin > 0 && running(&shares, origin) >= fair;
                    prop_assert!(!more_than_fair || !waits.iter().any(|other| *other > 0 && *other != origin));
                    shares.start(now, &next);
                }
                prop_assert!(shares.running == updaters || shares.vacancies() == 0, "no updater is idle");
                if let Some(key) = shares.to_give_way(now) {
                    prop_assert!(shares.still_for(now, key) >= SLOW_AFTER);
                }
            }
            // Everything hangs from now on, and each line with a request gets an updater all the same.
            let mut seen = std::collections::BTreeSet::new();
            let asked = |line: &Line| line.waiting.keys().next().is_some_and(|(reason, _)| *reason == UpdateReason::Request);
            let asked = shares.lines.iter().filter(|(_, line)| asked(line) || !line.running.is_empty());
            let all: Vec<Origin> = asked.map(|(origin, _)| origin.clone()).collect();
            for _ in 0..40 {
                seen.extend(shares.lines.iter().filter(|(_, line)| !line.running.is_empty()).map(|(name, _)| name.clone()));
                now += PATIENCE;
                if let Some(key) = shares.to_give_way(now).cloned() {
                    let (origin, _) = shares.keys[&key].clone();
                    shares.leave(&key);
                    shares.queue(&key, origin, UpdateReason::Request);
                }
                fill(&mut shares, now);
            }
            let waits_for_nothing = |origin: &Origin| seen.contains(origin);
            prop_assert!(all.iter().all(waits_for_nothing), "{all:?} {seen:?} {updaters}");
        }
    }
}
