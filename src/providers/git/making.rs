//! Mirrors that are being made, and what clients are told of them meanwhile: the references of the origin.
//!
//! ```text
//!   make:   clone ------------------------------------------- close --> more there than was told? fetch it --> publish
//!   client:         what is there? --ls-remote, once--> told
//! ```
//!
//! What must hold: a mirror that is published has what clients were told while it was made, unless the origin has taken it back
//! meanwhile. So nobody is told anything once it is closed, and what was told is compared with what came.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::OnceCell;

use super::{references::References, template::Remote};
use crate::key::Key;

/// The mirrors that are being made: at most as many as there are updaters.
#[derive(Default)]
pub(super) struct Making(Mutex<BTreeMap<Key, Arc<Expected>>>);

impl fmt::Debug for Making {
    /// Leaves out the remotes, which carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// What is known of a mirror that is being made.
pub(super) struct Expected {
    pub(super) remote: Remote,
    told: OnceCell<Option<Arc<Told>>>,
}

/// What clients are told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) references: References,
    /// A hash of what git printed of them.
    pub(super) digest: [u8; 32],
}

impl Making {
    /// A mirror of `remote` is being made, until what is returned is closed or dropped.
    pub(super) fn begin(&self, key: &Key, remote: &Remote) -> Entry<'_> {
        let expected = Arc::new(Expected { remote: remote.clone(), told: OnceCell::new() });
        self.lock().insert(key.clone(), expected.clone());
        Entry { making: self, key: key.clone(), expected }
    }

    /// What clients are told of the mirror of `key`. `ask` asks its origin, once however many want to know. `None`: it is not
    /// being made, or there is no telling.
    pub(super) async fn told<A>(&self, key: &Key, ask: impl FnOnce(Arc<Expected>) -> A) -> Option<Arc<Told>>
    where
        A: Future<Output = Option<Told>>,
    {
        let expected = self.lock().get(key)?.clone();
        let asked = async { ask(expected.clone()).await.map(Arc::new) };
        let told = expected.told.get_or_init(|| asked).await.clone();
        // What is told after it was closed is not compared with what came.
        told.filter(|_| self.lock().get(key).is_some_and(|open| Arc::ptr_eq(open, &expected)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Expected>>> {
        self.0.lock().expect("no panic under this lock")
    }
}

/// A mirror that is being made.
pub(super) struct Entry<'m> {
    making: &'m Making,
    key: Key,
    expected: Arc<Expected>,
}

impl Entry<'_> {
    /// Ends it. What clients were told, if they were told anything.
    pub(super) fn close(self) -> Option<Arc<Told>> {
        self.remove();
        self.expected.told.get().cloned().flatten()
    }

    fn remove(&self) {
        let mut open = self.making.lock();
        if open.get(&self.key).is_some_and(|open| Arc::ptr_eq(open, &self.expected)) {
            open.remove(&self.key);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}
