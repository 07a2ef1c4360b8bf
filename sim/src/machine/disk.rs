//! A disk: small records with honest durability, and a medium that can be slow, full or failing.
//!
//! What was reported as written is there after a crash. Of what was being written, a replacement is there or is not, and
//! any part of an addition may be.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use datad_gossip::world;
use rand::{RngExt, rngs::StdRng};

use crate::model::Left;

/// A write and its sync take this long on a disk that is well.
const WRITE: Duration = Duration::from_millis(2);

/// What is wrong with a medium.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Condition {
    /// How many faults have filled it up.
    pub full: u32,
    /// How many faults make writes fail.
    pub failing: u32,
    /// Further time that a write takes.
    pub delay: Duration,
}

/// The disk of one machine. A handle; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    condition: Condition,
    records: BTreeMap<String, Bytes>,
    /// Being replaced.
    pending: BTreeMap<String, Bytes>,
    /// Being added to; those of one record in order.
    additions: Vec<(String, Bytes)>,
}

impl SimDisk {
    /// Changes what is wrong with it.
    pub fn change(&self, change: impl FnOnce(&mut Condition)) {
        change(&mut self.state().condition);
    }

    /// Whether a fault has filled it up.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state().condition.full > 0
    }

    /// Takes the time of a write, and fails if the disk does: at the beginning, or when it breaks meanwhile. Nothing is
    /// written; that is up to the caller.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub async fn write(&self) -> io::Result<()> {
        let condition = self.state().condition;
        tokio::time::sleep(WRITE + condition.delay).await;
        let condition = self.state().condition;
        if condition.full > 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        if condition.failing > 0 {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    /// The power goes.
    pub fn crash(&self, rng: &mut StdRng, left: Left) {
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending);
        let additions = std::mem::take(&mut state.additions);
        for (name, bytes) in additions {
            let torn = if left == Left::Kept { bytes.len() } else { rng.random_range(0..=bytes.len()) };
            state.add(&name, &bytes[..torn]);
        }
        match left {
            Left::Nothing => state.records.clear(),
            Left::Kept => state.records.extend(pending),
            Left::Synced => state.records.extend(pending.into_iter().filter(|_| rng.random_bool(0.5))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

impl State {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        let record = self.records.entry(name.to_owned()).or_default();
        *record = [record, bytes].concat().into();
    }
}

#[async_trait]
impl world::Disk for SimDisk {
    async fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        Ok(self.state().records.get(name).cloned())
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        self.state().pending.insert(name.to_owned(), bytes.clone());
        let written = self.write().await;
        let mut state = self.state();
        state.pending.remove(name);
        written?;
        state.records.insert(name.to_owned(), bytes);
        Ok(())
    }

    async fn append(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        self.state().additions.push((name.to_owned(), bytes.clone()));
        let written = self.write().await;
        let mut state = self.state();
        let place = state.additions.iter().position(|(added, other)| added == name && *other == bytes);
        place.map(|place| state.additions.remove(place));
        // Also a write that failed may have got somewhere.
        let there = if written.is_ok() { bytes.len() } else { bytes.len() / 2 };
        state.add(name, &bytes[..there]);
        written
    }
}
