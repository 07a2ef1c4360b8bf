//! What all nodes fetch from: values that change now and then, slow by a random amount, down or forgetful at times.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use datad_gossip::{key::Key, provider::UpdateError};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{model::Clock, script::draw};

/// How long it takes to be told that nobody is there.
const CONNECT: Duration = Duration::from_millis(20);

/// The upstream of one run. A handle; clones are the same upstream.
#[derive(Clone)]
pub struct Upstream(Arc<Mutex<State>>);

struct State {
    rng: StdRng,
    clock: Clock,
    seed: u64,
    value_bytes_max: usize,
    fetch_max: Duration,
    numbers: BTreeMap<Key, usize>,
    /// Everything that was ever published, the current value last.
    values: BTreeMap<Key, Vec<Bytes>>,
    /// Keys that it denies, by how many faults, and until when it last did.
    lacks: BTreeMap<Key, (u32, Duration)>,
    delay: Duration,
    down: u32,
}

impl Upstream {
    /// An upstream that has `keys`.
    #[must_use]
    pub fn new(seed: u64, keys: &[Key], value_bytes_max: usize, fetch_max: Duration, clock: Clock) -> Self {
        let numbers: BTreeMap<Key, usize> = keys.iter().cloned().zip(0..).collect();
        let value = |number| vec![Bytes::from(draw::value(seed, number, 0, value_bytes_max))];
        let values = numbers.iter().map(|(key, number)| (key.clone(), value(*number))).collect();
        let rng = StdRng::seed_from_u64(seed);
        let (lacks, delay, down) = (BTreeMap::new(), Duration::ZERO, 0);
        Self(Arc::new(Mutex::new(State {
            rng,
            clock,
            seed,
            value_bytes_max,
            fetch_max,
            numbers,
            values,
            lacks,
            delay,
            down,
        })))
    }

    /// What it has.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.state().numbers.keys().cloned().collect()
    }

    /// The current value, whatever is wrong.
    #[must_use]
    pub fn value(&self, key: &Key) -> Option<Bytes> {
        self.state().values.get(key)?.last().cloned()
    }

    /// Whether this was ever the value.
    #[must_use]
    pub fn was_published(&self, key: &Key, bytes: &Bytes) -> bool {
        self.state().values.get(key).is_some_and(|values| values.contains(bytes))
    }

    /// Publishes a new value.
    pub fn change(&self, key: &Key) {
        let state = &mut *self.state();
        let (Some(number), Some(values)) = (state.numbers.get(key), state.values.get_mut(key)) else { return };
        values.push(Bytes::from(draw::value(state.seed, *number, values.len(), state.value_bytes_max)));
    }

    /// Makes it deny keys, or stop denying them.
    pub fn set_lacking(&self, keys: &[Key], lacking: bool) {
        let state = &mut *self.state();
        let now = state.clock.now();
        for key in keys {
            let (faults, until) = state.lacks.entry(key.clone()).or_default();
            *faults = if lacking { *faults + 1 } else { faults.saturating_sub(1) };
            *until = now;
        }
    }

    /// Whether it said within this time, or might have said, that there is no such key.
    #[must_use]
    pub fn lacked(&self, key: &Key, within: Duration) -> bool {
        let state = self.state();
        let lately = |(faults, until): &(u32, Duration)| *faults > 0 || state.clock.now() <= *until + within;
        !state.numbers.contains_key(key) || state.lacks.get(key).is_some_and(lately)
    }

    /// Makes it slower or quicker again.
    pub fn set_slower(&self, delay: Duration, slower: bool) {
        let state = &mut *self.state();
        state.delay = if slower { state.delay + delay } else { state.delay.saturating_sub(delay) };
    }

    /// Makes it go away or come back.
    pub fn set_down(&self, down: bool) {
        let state = &mut *self.state();
        state.down = if down { state.down + 1 } else { state.down.saturating_sub(1) };
    }

    /// Fetches a value, with the patience that this takes.
    ///
    /// # Errors
    /// It is down, or has no such key.
    pub async fn fetch(&self, key: &Key) -> Result<Bytes, UpdateError> {
        let takes = {
            let state = &mut *self.state();
            let longest = u64::try_from(state.fetch_max.as_millis()).unwrap_or(u64::MAX);
            if state.down > 0 {
                CONNECT
            } else {
                Duration::from_millis(state.rng.random_range(0..=longest)) + state.delay
            }
        };
        tokio::time::sleep(takes).await;
        let state = self.state();
        if state.down > 0 {
            return Err(UpdateError::Unavailable("the upstream does not answer".into()));
        }
        if state.lacks.get(key).is_some_and(|(faults, _)| *faults > 0) {
            return Err(UpdateError::NotFound);
        }
        state.values.get(key).and_then(|values| values.last()).cloned().ok_or(UpdateError::NotFound)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}
