//! A model of a cluster that follows one writer, to break the ledger and its replicas: deltas late,
//! lost, repeated, reordered, delivered to the wrong node, cut at any limit, relayed by nodes that
//! are themselves catching up, while the writer writes, removes, drops tombstones and restarts.
//!
//! Everything the writer ever did is remembered, and every replica is held against it after every step:
//! - it contains only what was written, and nothing that was removed at or below its reach and stayed so;
//! - `(incarnation, reach)` never goes back;
//! - where it says it is complete, it and its digest are equal to the ledger at that version;
//! - the changes it reported for the index add up to what it says;
//! - it presumes only what was once ready, and nothing once it is settled;
//! - it gives up what was ready only when it was removed, or when all is known.
//!
//! In the end all are healed, by relays first and then by the writer, in a bounded number of steps, and are equal.

mod examples;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    claim::{ClaimState, HolderState, Incarnation, Version},
    hash::KeyHasher,
    index::IndexWriter,
    ledger::{ApplyError, Changed, Delta, Ledger, LedgerOptions, Outcome, Position},
    replica::Replica,
    writer::LedgerWriter,
};
use crate::key::{Key, NodeName};

const REPLICAS: usize = 4;
const KEYS: u8 = 10;

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u8),
    Remove(u8),
    Scanned,
    Restart,
    /// `to` asks `from` (a replica, or the writer) and the answer is on its way.
    Ask {
        from: usize,
        to: usize,
        limit: usize,
    },
    /// One of the answers on their way arrives; perhaps it will once more.
    Arrive {
        at: usize,
        which: usize,
        again: bool,
    },
    /// The oldest answers arrive in order.
    ArriveAll {
        at: usize,
    },
    /// An answer to one arrives at another.
    Stray {
        of: usize,
        at: usize,
        which: usize,
    },
    Lose {
        at: usize,
        which: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let replica = 0..REPLICAS;
    let which = 0..8usize;
    let step = prop_oneof![
        6 => (0..KEYS, 0..4u8).prop_map(|(key, state)| Step::Set(key, state)),
        5 => (0..KEYS).prop_map(Step::Remove),
        1 => Just(Step::Scanned),
        1 => prop_oneof![4 => Just(Step::Scanned), 1 => Just(Step::Restart)],
        9 => (0..=REPLICAS, replica.clone(), 1..6usize).prop_map(|(from, to, limit)| Step::Ask { from, to, limit }),
        6 => (replica.clone(), which.clone(), any::<bool>())
            .prop_map(|(at, which, again)| Step::Arrive { at, which, again }),
        4 => replica.clone().prop_map(|at| Step::ArriveAll { at }),
        2 => (replica.clone(), replica.clone(), which.clone()).prop_map(|(of, at, which)| Step::Stray { of, at, which }),
        1 => (replica, which).prop_map(|(at, which)| Step::Lose { at, which }),
    ];
    proptest::collection::vec(step, 0..160)
}

fn key(number: u8) -> Key {
    Key::new(format!("k{number}")).unwrap()
}

fn state(number: u8) -> ClaimState {
    match number {
        0 => ClaimState::Fetching,
        1 => ClaimState::failed("no route", 5),
        _ => ClaimState::Ready,
    }
}

type Content = BTreeMap<Key, (Version, ClaimState)>;
type Written = BTreeMap<Version, Option<ClaimState>>;

fn content(ledger: &Ledger) -> Content {
    ledger.claims().map(|(key, version, state)| (key.clone(), (version, state.clone()))).collect()
}

struct World {
    options: LedgerOptions,
    writer: LedgerWriter,
    replicas: Vec<Replica>,
    on_the_way: Vec<Vec<Delta>>,
    /// All the writer did to a key in an incarnation.
    history: BTreeMap<(Incarnation, Key), Written>,
    /// What the ledger was at every version, and its digest.
    snapshots: BTreeMap<(Incarnation, Version), (Content, u64)>,
    once_ready: BTreeSet<Key>,
    reached: Vec<(Incarnation, Version)>,
    /// What the replicas reported, added up.
    reported: Vec<BTreeMap<Key, HolderState>>,
    index: IndexWriter,
}

impl World {
    fn new(tombstones_kept_min: usize) -> Self {
        let options = LedgerOptions { tombstones_kept_min, ..LedgerOptions::default() };
        let mut world = Self {
            writer: LedgerWriter::new(Incarnation(1), options.clone()),
            replicas: vec![Replica::new(options.clone()); REPLICAS],
            on_the_way: vec![Vec::new(); REPLICAS],
            history: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            once_ready: BTreeSet::new(),
            reached: vec![Default::default(); REPLICAS],
            reported: vec![BTreeMap::new(); REPLICAS],
            index: IndexWriter::new(KeyHasher::default()),
            options,
        };
        world.remember();
        world
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Set(name, number) => {
                let (key, state) = (key(name), state(number));
                let change = self.writer.set(&key, state.clone());
                self.wrote(change.map(|change| (change.key, change.version, Some(state))));
            }
            Step::Remove(name) => {
                let change = self.writer.remove(&key(name));
                self.wrote(change.map(|change| (change.key, change.version, None)));
            }
            Step::Scanned => {
                self.writer.mark_scanned();
                self.remember();
            }
            Step::Restart => {
                let next = Incarnation(self.writer.ledger().incarnation().0 + 1);
                self.writer = LedgerWriter::new(next, self.options.clone());
                self.remember();
            }
            Step::Ask { from, to, limit } => {
                if let Some(delta) = self.answer(from, to, limit) {
                    self.on_the_way[to].push(delta);
                }
            }
            Step::Arrive { at, which, again } => {
                if let Some(delta) = self.pick(at, which, !again) {
                    self.arrive(at, delta);
                }
            }
            Step::ArriveAll { at } => {
                for delta in std::mem::take(&mut self.on_the_way[at]) {
                    self.arrive(at, delta);
                }
            }
            Step::Stray { of, at, which } => {
                if let Some(delta) = self.pick(of, which, false) {
                    self.arrive(at, delta);
                }
            }
            Step::Lose { at, which } => drop(self.pick(at, which, true)),
        }
    }

    fn wrote(&mut self, written: Option<(Key, Version, Option<ClaimState>)>) {
        let Some((key, version, state)) = written else { return };
        if state == Some(ClaimState::Ready) {
            self.once_ready.insert(key.clone());
        }
        let incarnation = self.writer.ledger().incarnation();
        self.history.entry((incarnation, key)).or_default().insert(version, state);
        self.remember();
    }

    fn remember(&mut self) {
        let ledger = self.writer.ledger();
        let snapshot = (content(ledger), ledger.digest());
        self.snapshots.insert((ledger.incarnation(), ledger.version()), snapshot);
    }

    fn answer(&self, from: usize, to: usize, limit: usize) -> Option<Delta> {
        let sender = self.replicas.get(from).map_or(self.writer.ledger(), Replica::ledger);
        let position = self.replicas[to].ledger().position();
        let delta = sender.delta_since(&position, limit)?;
        assert!(delta.changes.len() <= limit);
        Some(delta)
    }

    fn pick(&mut self, at: usize, which: usize, remove: bool) -> Option<Delta> {
        let way = &mut self.on_the_way[at];
        let which = which.checked_rem(way.len())?;
        Some(if remove { way.remove(which) } else { way[which].clone() })
    }

    fn arrive(&mut self, at: usize, delta: Delta) {
        let replica = &mut self.replicas[at];
        match replica.apply(delta) {
            Ok(changes) => {
                let incarnation = replica.ledger().incarnation();
                for lost in changes.iter().filter(|change| change.after.is_none()) {
                    let held = [Some(&HolderState::Ready), Some(&HolderState::Presumed)];
                    if held.contains(&self.reported[at].get(&lost.key)) && !replica.ledger().is_complete() {
                        let written = self.history.get(&(incarnation, lost.key.clone()));
                        let removed = written.is_some_and(|written| written.values().any(Option::is_none));
                        assert!(removed, "{} was given up before all was known", lost.key);
                    }
                }
                let keys: BTreeSet<_> = changes.iter().map(|change| &change.key).collect();
                assert_eq!(keys.len(), changes.len(), "each key once");
                let node = NodeName::new(format!("n{at}")).unwrap();
                for change in &changes {
                    self.index.set(&change.key, &node, change.after);
                    match change.after {
                        Some(state) => self.reported[at].insert(change.key.clone(), state),
                        None => self.reported[at].remove(&change.key),
                    };
                }
            }
            Err(ApplyError::Gap { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        self.check(at);
    }

    fn check(&mut self, at: usize) {
        let (replica, ledger) = (&self.replicas[at], self.replicas[at].ledger());
        let incarnation = ledger.incarnation();
        let reached = (incarnation, ledger.position().reach());
        assert!(reached >= self.reached[at], "went back");
        self.reached[at] = reached;

        let held = content(ledger);
        assert_eq!(ledger.len(), held.len());
        for (key, (version, state)) in &held {
            let written = &self.history[&(incarnation, key.clone())];
            assert_eq!(written.get(version), Some(&Some(state.clone())), "{key} was not written");
            let removed =
                written.range(version.next()..=reached.1.max(version.next())).find(|(_, state)| state.is_none());
            let to_come = written.range(reached.1.next()..=ledger.head.max(reached.1.next())).next().is_some();
            assert!(removed.is_none_or(|(&removed, _)| removed > reached.1) || to_come, "{key} was removed");
        }
        if ledger.is_complete() {
            let (content, digest) = &self.snapshots[&(incarnation, ledger.version())];
            assert_eq!(&held, content);
            assert_eq!(ledger.digest(), *digest);
        }

        let states: BTreeMap<_, _> = replica.states().map(|(key, state)| (key.clone(), state)).collect();
        assert_eq!(states, self.reported[at]);
        for tag in HolderState::ALL {
            assert_eq!(replica.count(tag), states.values().filter(|&&state| state == tag).count());
        }
        let presumed = |state: &HolderState| *state == HolderState::Presumed;
        assert!(!ledger.is_settled() || !states.values().any(presumed), "presumes after the scan");
        for (key, state) in &states {
            assert_eq!(replica.state(key), Some(*state));
            assert!(!presumed(state) || self.once_ready.contains(key));
        }
    }

    /// Asks until there is nothing more, which must come soon.
    fn catch_up(&mut self, from: usize, to: usize, limit: usize) {
        for _ in 0..=2 * usize::from(KEYS) + 20 {
            let Some(delta) = self.answer(from, to, limit) else { return };
            self.arrive(to, delta);
        }
        panic!("catching up does not end");
    }

    fn heal(&mut self, limit: usize) {
        for (from, to) in [(1, 0), (0, 1), (2, 3), (3, 2), (2, 0), (0, 3)] {
            self.catch_up(from, to, limit);
        }
        // One hears from the writer, the others through a chain of relays.
        self.catch_up(REPLICAS, 0, limit);
        for to in 1..REPLICAS {
            self.catch_up(to - 1, to, limit);
        }
        for at in 0..REPLICAS {
            let (ledger, own) = (self.replicas[at].ledger(), self.writer.ledger());
            assert!(ledger.is_complete());
            assert_eq!((ledger.incarnation(), ledger.version()), (own.incarnation(), own.version()));
            assert_eq!((content(ledger), ledger.digest()), (content(own), own.digest()));
        }
        self.index_agrees();
    }

    fn index_agrees(&self) {
        let index = self.index.index();
        let all: BTreeSet<_> = self.reported.iter().flat_map(|reported| reported.keys().cloned()).collect();
        for key in (0..KEYS).map(key) {
            let read: BTreeMap<String, HolderState> =
                index.lookup(&key, |holders| holders.map(|(node, state)| (node.to_string(), state)).collect());
            let expected = (0..REPLICAS).filter_map(|at| Some((format!("n{at}"), *self.reported[at].get(&key)?)));
            assert_eq!(read, expected.collect());
        }
        assert_eq!(index.len(), all.len());
        assert_eq!(self.index.keys_after(None, "", 1000), all.into_iter().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_on_the_way_all_replicas_become_what_was_written(
        steps in steps(), tombstones in 0..4usize, limit in 1..5usize,
    ) {
        let mut world = World::new(tombstones);
        for step in steps {
            world.take(step);
        }
        world.heal(limit);
    }
}
