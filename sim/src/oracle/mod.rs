//! What every node really does and has: a provider around the provider that counts, and judges on the spot.
//!
//! This is the oracle of a run. It believes no node; it sees updates and removals as they reach the data itself.

pub mod probes;
mod watched;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use datad_gossip::{
    key::Key,
    provider::{Capacity, UpdateError, UpdateReason},
};

use self::probes::Probes;
use crate::{
    data::Data,
    invariants::{s05_one_update, s06_one_fetch, s07_enough_left, s08_full_takes_nothing, s11_bounds},
    model::{Clock, Name, Running, Violation, What},
    script::Script,
    trace::Trace,
};

/// What updates did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Asks of the upstream.
    pub fetches: u64,
    /// Copies from node to node that came to a good end.
    pub copies: u64,
    /// Replicas dropped.
    pub dropped: u64,
    /// Of these, only copies.
    pub evicted: u64,
}

/// What is true. A handle; clones are the same truth.
#[derive(Clone)]
pub struct Oracle(Arc<Mutex<Truth>>);

/// The truth.
pub struct Truth {
    clock: Clock,
    trace: Trace,
    names: Vec<Name>,
    updaters: usize,
    replicas: usize,
    /// Machines with a provider.
    nodes: usize,
    /// The watermarks of the disks.
    high: f64,
    low: f64,
    /// Machines whose node was told that its disk is full and not yet that it has room again, and since when.
    full: BTreeMap<usize, Duration>,
    /// When machines whose disks were full were told that there is room again.
    relieved: BTreeMap<usize, Duration>,
    running: Vec<Running>,
    next_id: u64,
    /// When updates that failed lately did, by machine and key.
    failures: BTreeMap<(usize, Key), VecDeque<Duration>>,
    /// What is on the disks.
    held: BTreeSet<(usize, Key)>,
    /// What was ever on them.
    ever: BTreeSet<(usize, Key)>,
    /// What a fault took from a disk, and when.
    lost: BTreeMap<(usize, Key), Duration>,
    /// Of that, what a node that still runs was not told of.
    vanished: BTreeSet<(usize, Key)>,
    /// What a fault put on a disk without telling the node that runs there.
    appeared: BTreeSet<(usize, Key)>,
    /// When the upstream last said to a machine that it has a key.
    vouched: BTreeMap<(usize, Key), Duration>,
    /// Keys whose pin was acknowledged, and that nobody has asked since to unpin or to forget.
    pub pinned: BTreeSet<Key>,
    /// Keys that somebody said to forget: whoever has them drops them, now or when it returns.
    pub forgotten: BTreeSet<Key>,
    /// Since when nothing has been wrong.
    pub calm_since: Option<Duration>,
    violation: Option<Violation>,
    /// What updates did.
    pub counts: Counts,
    /// Bytes that came from the upstream.
    pub fetched_bytes: u64,
    /// Bytes that came from other nodes.
    pub copied_bytes: u64,
    /// Bytes of the values, for counting.
    sizes: BTreeMap<Key, u64>,
    /// What happened at least once.
    pub probes: Probes,
}

impl Oracle {
    /// Nothing is held and nothing runs.
    #[must_use]
    pub fn new(script: &Script, clock: Clock, trace: Trace) -> Self {
        let node = &script.node;
        Self(Arc::new(Mutex::new(Truth {
            clock,
            trace,
            names: script.machines(),
            nodes: script.cluster.nodes,
            updaters: node.updaters,
            replicas: node.replicas,
            high: node.disk_high,
            low: node.disk_low,
            full: BTreeMap::new(),
            relieved: BTreeMap::new(),
            running: Vec::new(),
            next_id: 0,
            failures: BTreeMap::new(),
            held: BTreeSet::new(),
            ever: BTreeSet::new(),
            lost: BTreeMap::new(),
            vanished: BTreeSet::new(),
            appeared: BTreeSet::new(),
            vouched: BTreeMap::new(),
            pinned: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            calm_since: None,
            violation: None,
            counts: Counts::default(),
            fetched_bytes: 0,
            copied_bytes: 0,
            sizes: BTreeMap::new(),
            probes: Probes::default(),
        })))
    }

    /// Looks at a disk that a fault has changed.
    pub fn look_again(&self, machine: usize, data: &dyn Data) {
        let mut truth = self.truth();
        let now = truth.clock.now();
        for key in data.keys() {
            truth.sizes.insert(key.clone(), data.size(&key));
            let place = (machine, key);
            if data.holds(machine, &place.1) {
                let unnoticed = truth.vanished.contains(&place);
                if !truth.holds(machine, &place.1) {
                    truth.has(machine, &place.1);
                    if !unnoticed {
                        truth.appeared.insert(place);
                    }
                }
            } else if truth.held.remove(&place) {
                // What came and went unnoticed was never there, for the node.
                if !truth.appeared.remove(&place) {
                    truth.vanished.insert(place.clone());
                }
                truth.lost.insert(place, now);
            }
        }
    }

    /// The power of a machine went: nothing runs there any more.
    pub fn crashed(&self, machine: usize) {
        let truth = &mut *self.truth();
        for running in truth.running.iter().filter(|running| running.machine == machine) {
            truth.probes.hit(if running.upstream { "fetch leader died" } else { "copier died" });
        }
        truth.running.retain(|running| running.machine != machine);
    }

    /// A node starts on a machine, and will see for itself what is there.
    pub fn starts(&self, machine: usize) {
        let truth = &mut *self.truth();
        truth.full.remove(&machine);
        truth.relieved.remove(&machine);
        truth.vanished.retain(|(loser, _)| *loser != machine);
        truth.appeared.retain(|(finder, _)| *finder != machine);
    }

    /// The first property that was violated.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.truth().violation.clone()
    }

    /// The truth, for a moment.
    ///
    /// # Panics
    /// Somebody panicked while holding it.
    pub fn truth(&self) -> MutexGuard<'_, Truth> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    fn begin(&self, machine: usize, key: &Key, upstream: bool) -> Guard {
        let truth = &mut *self.truth();
        let now = truth.clock.now();
        let judged = s05_one_update::check(&truth.running, machine, key, truth.updaters).and_then(|()| {
            if !upstream {
                return Ok(());
            }
            s06_one_fetch::check(&truth.running, machine, key, truth.calm_since.map(|since| now.saturating_sub(since)))
        });
        truth.blame(judged);
        let full_for = truth.full.get(&machine).map(|since| now.saturating_sub(*since));
        let judged =
            s08_full_takes_nothing::check(&truth.names[machine], key, full_for, truth.is_believed(machine, key));
        truth.blame(judged);
        if upstream {
            truth.counts.fetches += 1;
            let others = truth.running.iter().any(|other| other.upstream && other.key == *key);
            if others {
                truth.probes.hit("two fetchers");
            }
        }
        let id = truth.next_id;
        truth.next_id += 1;
        truth.running.push(Running { key: key.clone(), machine, upstream, began: now, id });
        Guard { oracle: self.clone(), id }
    }

    fn ended(&self, id: u64, reason: UpdateReason, outcome: &Result<(), UpdateError>) {
        let truth = &mut *self.truth();
        let Some(running) = truth.running.iter().find(|running| running.id == id).cloned() else { return };
        let Running { key, machine, upstream, began, .. } = running;
        match outcome {
            Ok(()) => {
                truth.has(machine, &key);
                truth.counts.copies += u64::from(!upstream);
                let bytes = truth.sizes.get(&key).copied().unwrap_or(0);
                *if upstream { &mut truth.fetched_bytes } else { &mut truth.copied_bytes } += bytes;
                match reason {
                    UpdateReason::Repair => truth.probes.hit("repair"),
                    UpdateReason::Rebalance => truth.probes.hit("rebalance"),
                    _ => {}
                }
            }
            Err(error) => {
                // What is asked for again and again is tried again and again; what a node does by itself has limits.
                if reason != UpdateReason::Refresh {
                    truth.count_failure(machine, &key);
                }
                truth.probes.hit(match error.to_string() {
                    text if text.contains("No space left") => "disk filled mid-write",
                    text if text.contains("Input/output error") => "disk failed mid-write",
                    _ if upstream => "upstream failed",
                    _ => "copy failed",
                });
            }
        }
        truth.trace.tell(What::Update {
            machine: truth.names[machine].clone(),
            key: key.to_string(),
            began,
            why: format!("{reason:?}").to_lowercase(),
            source: if upstream { "upstream" } else { "peer" },
            outcome: outcome.as_ref().map_or_else(ToString::to_string, |()| "done".into()),
        });
    }

    /// The upstream has told this machine that it has the key.
    fn vouched(&self, machine: usize, key: &Key) {
        let truth = &mut *self.truth();
        truth.vouched.insert((machine, key.clone()), truth.clock.now());
    }

    fn removing(&self, machine: usize, key: &Key) {
        let truth = &mut *self.truth();
        truth.held.remove(&(machine, key.clone()));
        truth.appeared.remove(&(machine, key.clone()));
        truth.vanished.remove(&(machine, key.clone()));
        let now = truth.clock.now();
        let held = truth.held.iter().filter(|(_, held)| held == key).count();
        let is_lately = |at: Duration| now.saturating_sub(at) < s07_enough_left::LATELY;
        let lost_lately = |(_, at): (&(usize, Key), &Duration)| is_lately(*at);
        let lost = truth.lost.iter().filter(|((_, lost), _)| lost == key).filter(|entry| lost_lately(*entry)).count();
        let was_full =
            truth.full.contains_key(&machine) || truth.relieved.get(&machine).copied().is_some_and(is_lately);
        // Of a full node on the upstream's word, unless the key is pinned.
        let vouched = truth.vouched.get(&(machine, key.clone())).copied().is_some_and(is_lately);
        let last_may_go = vouched && !truth.pinned.contains(key);
        let needed = if was_full { usize::from(!last_may_go) } else { truth.replicas };
        truth.counts.evicted += u64::from(was_full && held + lost == 0);
        let judged = s07_enough_left::check(&truth.names[machine], key, held + lost, needed);
        if !truth.forgotten.contains(key) {
            truth.blame(judged);
            truth.probes.hit(if held < truth.replicas { "given up for room" } else { "trim" });
        }
        truth.counts.dropped += 1;
        truth.trace.tell(What::Dropped { machine: truth.names[machine].clone(), key: key.to_string() });
    }
}

impl Truth {
    /// Whether the key is on this machine's disk.
    #[must_use]
    pub fn holds(&self, machine: usize, key: &Key) -> bool {
        self.held.contains(&(machine, key.clone()))
    }

    /// Whether the key was ever on this machine's disk.
    #[must_use]
    pub fn had(&self, machine: usize, key: &Key) -> bool {
        self.ever.contains(&(machine, key.clone()))
    }

    /// Whether anything was ever on this machine's disk.
    #[must_use]
    pub fn had_any(&self, machine: usize) -> bool {
        self.ever.iter().any(|(holder, _)| *holder == machine)
    }

    /// Whether the key vanished from this machine's disk, and the node that runs there was not told.
    #[must_use]
    pub fn vanished(&self, machine: usize, key: &Key) -> bool {
        self.vanished.contains(&(machine, key.clone()))
    }

    /// Whether the node of this machine should say that it has the key: it is there, and not by a fault that the node
    /// cannot know of; or it vanished by one.
    #[must_use]
    pub fn is_believed(&self, machine: usize, key: &Key) -> bool {
        let place = (machine, key.clone());
        (self.held.contains(&place) && !self.appeared.contains(&place)) || self.vanished.contains(&place)
    }

    /// Whether the key is on the disk of this machine, and its node can know it.
    #[must_use]
    pub fn can_serve(&self, machine: usize, key: &Key) -> bool {
        let place = (machine, key.clone());
        self.held.contains(&place) && !self.appeared.contains(&place) && !self.vanished.contains(&place)
    }

    /// The node of this machine has found out that the key is gone.
    pub fn loss_noticed(&mut self, machine: usize, key: &Key) {
        self.vanished.remove(&(machine, key.clone()));
    }

    /// The node of this machine has found the key that a fault put there.
    pub fn find_noticed(&mut self, machine: usize, key: &Key) {
        self.appeared.remove(&(machine, key.clone()));
    }

    fn count_failure(&mut self, machine: usize, key: &Key) {
        let now = self.clock.now();
        let failures = self.failures.entry((machine, key.clone())).or_default();
        failures.push_back(now);
        failures.retain(|at| now.saturating_sub(*at) < s11_bounds::STORM);
        let judged = s11_bounds::check_storm(&self.names[machine], key, failures.len());
        self.blame(judged);
    }

    fn has(&mut self, machine: usize, key: &Key) {
        let place = (machine, key.clone());
        self.lost.remove(&place);
        self.vanished.remove(&place);
        self.appeared.remove(&place);
        self.ever.insert(place.clone());
        self.held.insert(place);
    }

    /// How many keys are on this machine's disk.
    #[must_use]
    pub fn held_by(&self, machine: usize) -> usize {
        self.held.iter().filter(|(holder, _)| *holder == machine).count()
    }

    /// Updates that have not ended.
    #[must_use]
    pub fn running(&self) -> &[Running] {
        &self.running
    }

    /// Whether no node takes new keys.
    #[must_use]
    pub fn all_are_full(&self) -> bool {
        self.full.len() >= self.nodes
    }

    /// The node of this machine is told how much room there is.
    fn told_of_room(&mut self, machine: usize, room: Capacity) {
        if room.share() >= self.high {
            self.note_full(machine);
        } else if room.share() < self.low && self.full.remove(&machine).is_some() {
            self.relieved.insert(machine, self.clock.now());
        }
    }

    fn note_full(&mut self, machine: usize) {
        if !self.full.contains_key(&machine) {
            self.full.insert(machine, self.clock.now());
            self.probes.hit("full");
        }
    }

    fn blame(&mut self, judged: Result<(), Violation>) {
        if let Err(violation) = judged {
            self.violation.get_or_insert(violation);
        }
    }
}

/// Ends an update, also when it is cancelled.
struct Guard {
    oracle: Oracle,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.oracle.truth().running.retain(|running| running.id != self.id);
    }
}
