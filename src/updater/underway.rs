//! The updates that run on this node, and how far each is: what requests that wait for a key are told.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use crate::{key::Key, provider::Progress};

/// At most as many as there are updaters.
#[derive(Debug, Default)]
pub(crate) struct Underway(Mutex<BTreeMap<Key, Progress>>);

impl Underway {
    /// The bytes that the update of `key` has brought so far, if one runs.
    pub(crate) fn bytes(&self, key: &Key) -> Option<u64> {
        self.lock().get(key).map(Progress::bytes)
    }

    pub(super) fn begin(&self, key: &Key, progress: Progress) {
        self.lock().insert(key.clone(), progress);
    }

    pub(super) fn end(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// None runs any more.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Progress>> {
        self.0.lock().expect("no panic under this lock")
    }
}
