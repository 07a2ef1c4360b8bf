//! Copies and fetches that this node owes itself, pure: what waits, in which order, and how many run.
//!
//! Repairs go before moves. The queue holds keys alone, not plans: what is to be done with a key is decided anew when its
//! turn comes, since much may have happened. It is bounded; what finds no room is found again by the next walk over all
//! keys, which is due as soon as there is room.

use std::collections::BTreeSet;

use crate::key::Key;

/// Most keys that wait. A walk over all keys costs little beside copying this many.
const WAITING_MAX: usize = 65_536;

/// How urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// The key has too few replicas.
    Repair,
    /// All its replicas are elsewhere; it only moves here.
    Move,
}

/// What waits and what runs.
#[derive(Debug)]
pub(crate) struct Queue {
    running_max: usize,
    repairs: BTreeSet<Key>,
    moves: BTreeSet<Key>,
    running: BTreeSet<Key>,
    turned_away: bool,
}

impl Queue {
    /// An empty queue of which at most `running_max` run at once.
    pub(crate) fn new(running_max: usize) -> Self {
        Self {
            running_max,
            repairs: BTreeSet::new(),
            moves: BTreeSet::new(),
            running: BTreeSet::new(),
            turned_away: false,
        }
    }

    /// The key is wanted here.
    pub(crate) fn want(&mut self, key: Key, urgency: Urgency) {
        self.forget(&key);
        if self.running.contains(&key) {
            return;
        }
        if self.waiting() >= WAITING_MAX {
            self.turned_away = true;
            return;
        }
        match urgency {
            Urgency::Repair => self.repairs.insert(key),
            Urgency::Move => self.moves.insert(key),
        };
    }

    /// The key is not wanted any more. What runs goes on.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.repairs.remove(key);
        self.moves.remove(key);
    }

    /// The next key to do something about, if there is room. It counts as running until [`Queue::finished`].
    pub(crate) fn next(&mut self) -> Option<Key> {
        if self.running.len() >= self.running_max {
            return None;
        }
        let key = self.repairs.pop_first().or_else(|| self.moves.pop_first())?;
        self.running.insert(key.clone());
        Some(key)
    }

    /// Nothing runs for this key any more.
    pub(crate) fn finished(&mut self, key: &Key) {
        self.running.remove(key);
    }

    /// Whether keys were turned away that should be looked for now, since there is room. Says so once.
    pub(crate) fn take_turned_away(&mut self) -> bool {
        self.waiting() < WAITING_MAX / 2 && std::mem::take(&mut self.turned_away)
    }

    /// How many keys come before this one, if it waits.
    pub(crate) fn ahead_of(&self, key: &Key) -> Option<usize> {
        // Walks over what is before it: only people ask.
        let place = |waiting: &BTreeSet<Key>| waiting.contains(key).then(|| waiting.range::<Key, _>(..key).count());
        place(&self.repairs).or_else(|| place(&self.moves).map(|place| self.repairs.len() + place))
    }

    /// Whether it is worked on.
    pub(crate) fn is_running(&self, key: &Key) -> bool {
        self.running.contains(key)
    }

    /// Keys that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.repairs.len() + self.moves.len()
    }

    /// Keys that are worked on.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting() == 0 && self.running.is_empty() && !self.turned_away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn repairs_go_first_and_no_more_run_than_allowed() {
        let mut queue = Queue::new(2);
        queue.want(key("a"), Urgency::Move);
        queue.want(key("b"), Urgency::Move);
        queue.want(key("z"), Urgency::Repair);
        assert_eq!([queue.next(), queue.next(), queue.next()], [Some(key("z")), Some(key("a")), None]);
        assert_eq!((queue.waiting(), queue.running()), (1, 2));
        assert_eq!((queue.is_running(&key("a")), queue.ahead_of(&key("a"))), (true, None));
        queue.want(key("c"), Urgency::Repair);
        assert_eq!((queue.ahead_of(&key("c")), queue.ahead_of(&key("b"))), (Some(0), Some(1)));
        queue.forget(&key("c"));
        queue.finished(&key("z"));
        assert_eq!(queue.next(), Some(key("b")));
    }

    #[test]
    fn a_key_waits_once_and_not_while_it_runs() {
        let mut queue = Queue::new(1);
        queue.want(key("a"), Urgency::Move);
        queue.want(key("a"), Urgency::Repair);
        assert_eq!(queue.waiting(), 1);
        queue.next().unwrap();
        queue.want(key("a"), Urgency::Repair);
        assert_eq!(queue.waiting(), 0);
        queue.finished(&key("a"));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_not_wanted_any_more_does_not_run() {
        let mut queue = Queue::new(1);
        queue.want(key("a"), Urgency::Repair);
        queue.forget(&key("a"));
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn what_found_no_room_is_looked_for_when_there_is() {
        let mut queue = Queue::new(usize::MAX);
        for number in 0..=WAITING_MAX {
            queue.want(key(&number.to_string()), Urgency::Repair);
        }
        assert_eq!(queue.waiting(), WAITING_MAX);
        assert!(!queue.take_turned_away(), "there is no room yet");
        while let Some(key) = queue.next() {
            queue.finished(&key);
        }
        assert!(!queue.is_empty());
        assert!(queue.take_turned_away());
        assert!(!queue.take_turned_away());
        assert!(queue.is_empty());
    }
}
