//! The mirrors that requests are reading, so that packs go only when no request does.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Who reads which mirror at the moment. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<BTreeMap<PathBuf, usize>>>);

/// A reader of one mirror, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reading {
    readers: Readers,
    slot: PathBuf,
}

impl Readers {
    pub(crate) fn enter(&self, slot: &Path) -> Reading {
        *self.0.lock().expect("no panic under this lock").entry(slot.to_owned()).or_default() += 1;
        Reading { readers: self.clone(), slot: slot.to_owned() }
    }

    /// Does `work`, which is short, if no request reads the mirror in `slot`; none begins to
    /// meanwhile.
    pub(super) fn alone<T>(&self, slot: &Path, work: impl FnOnce() -> T) -> Option<T> {
        let readers = self.0.lock().expect("no panic under this lock");
        (!readers.contains_key(slot)).then(work)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readers = self.readers.0.lock().expect("no panic under this lock");
        if let Some(count) = readers.get_mut(&self.slot) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.slot);
            }
        }
    }
}
