//! The updates that run on this node, and how far each is: what requests that wait for a key are told.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{key::Key, provider::Progress};

/// At most as many as there are updaters.
#[derive(Debug, Default)]
pub(crate) struct Underway(Mutex<BTreeMap<Key, Entry>>);

#[derive(Debug)]
struct Entry {
    progress: Progress,
    ended: CancellationToken,
    _ends: DropGuard,
}

impl Underway {
    /// The bytes that the update of `key` has brought so far, if one runs.
    pub(crate) fn bytes(&self, key: &Key) -> Option<u64> {
        self.lock().get(key).map(|entry| entry.progress.bytes())
    }

    /// What is cancelled when the update of `key` that runs now has ended, if one runs.
    pub(crate) fn ended(&self, key: &Key) -> Option<CancellationToken> {
        self.lock().get(key).map(|entry| entry.ended.clone())
    }

    pub(crate) fn begin(&self, key: &Key, progress: Progress) {
        let ended = CancellationToken::new();
        let entry = Entry { progress, _ends: ended.clone().drop_guard(), ended };
        self.lock().insert(key.clone(), entry);
    }

    pub(crate) fn end(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// None runs any more.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().expect("no panic under this lock")
    }
}
