//! What all nodes fetch from: a fixed set of values, slow by a random amount, and an oracle of the fetches in flight.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use datad_gossip::{key::Key, provider::UpdateError, providers::Memory};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::checks::{Violation, s06_one_fetch};

/// Longest time that one fetch takes.
const FETCH_MAX: Duration = Duration::from_millis(1_500);

/// A fetch that has not ended.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// Of what.
    pub key: Key,
    /// Machine that fetches.
    pub machine: usize,
    id: u64,
}

/// The origin of one run. A handle; clones are the same origin.
#[derive(Clone)]
pub struct Origin(Arc<Mutex<State>>);

struct State {
    rng: StdRng,
    values: BTreeMap<Key, Bytes>,
    in_flight: Vec<Fetch>,
    asks: u64,
    /// Since when nothing has been wrong with the cluster.
    calm_since: Option<Instant>,
    violation: Option<Violation>,
    wrong: bool,
}

impl Origin {
    /// An origin that has `values`.
    #[must_use]
    pub fn new(seed: u64, values: BTreeMap<Key, Bytes>) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: StdRng::seed_from_u64(seed),
            values,
            in_flight: Vec::new(),
            asks: 0,
            calm_since: None,
            violation: None,
            wrong: false,
        })))
    }

    /// An empty provider of the machine with this number, fed by this origin.
    #[must_use]
    pub fn memory(&self, machine: usize) -> Memory {
        let origin = self.clone();
        Memory::new(move |key: Key| {
            let origin = origin.clone();
            async move { origin.fetch(machine, key).await }
        })
    }

    /// What it has of `key`.
    #[must_use]
    pub fn value(&self, key: &Key) -> Option<Bytes> {
        self.state().values.get(key).cloned()
    }

    /// All it has.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.state().values.keys().cloned().collect()
    }

    /// How often it was asked.
    #[must_use]
    pub fn asks(&self) -> u64 {
        self.state().asks
    }

    /// How many fetches have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state().in_flight.len()
    }

    /// Forgets the fetches of a machine that crashed.
    pub fn crashed(&self, machine: usize) {
        self.state().in_flight.retain(|fetch| fetch.machine != machine);
    }

    /// Says since when nothing has been wrong with the cluster.
    pub fn set_calm_since(&self, since: Option<Instant>) {
        self.state().calm_since = since;
    }

    /// Answers with bytes that were never published from now on. Plants a bug, to see that it is found.
    pub fn give_wrong_bytes(&self) {
        self.state().wrong = true;
    }

    /// The first property that a fetch violated.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.state().violation.clone()
    }

    async fn fetch(&self, machine: usize, key: Key) -> Result<Bytes, UpdateError> {
        let (_guard, delay) = self.begin(machine, &key);
        tokio::time::sleep(delay).await;
        let state = self.state();
        if state.wrong {
            return Ok(Bytes::from_static(b"never published"));
        }
        state.values.get(&key).cloned().ok_or(UpdateError::NotFound)
    }

    fn begin(&self, machine: usize, key: &Key) -> (Guard, Duration) {
        let mut state = self.state();
        state.asks += 1;
        let id = state.asks;
        if let Err(violation) = s06_one_fetch::check(&state.in_flight, machine, key, state.calm_since) {
            state.violation.get_or_insert(violation);
        }
        state.in_flight.push(Fetch { key: key.clone(), machine, id });
        let longest = u64::try_from(FETCH_MAX.as_millis()).unwrap_or(u64::MAX);
        let delay = Duration::from_millis(state.rng.random_range(1..=longest));
        (Guard { origin: self.clone(), id }, delay)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

/// Ends the fetch, also when it is cancelled.
struct Guard {
    origin: Origin,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.origin.state().in_flight.retain(|fetch| fetch.id != self.id);
    }
}
