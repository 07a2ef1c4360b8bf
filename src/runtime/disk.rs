//! What is known of this node's disk: how much room there is, and how far the scan of the local data is.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize},
};

use super::context::Context;
use crate::{
    core::balancer::{DiskPressure, DiskWatermarks, Doubts},
    provider::Capacity,
};

/// The state of the local data.
pub(crate) struct DiskState {
    context: Arc<Context>,
    /// How much room there is, as last seen.
    watermarks: Mutex<DiskWatermarks>,
    /// Only copies that no origin vouches for just now.
    doubts: Mutex<Doubts>,
    /// Whether the first scan of the local data ended.
    pub(crate) scanned: AtomicBool,
    /// Keys that the scan of the local data has found so far.
    pub(crate) scan_found: AtomicUsize,
}

impl DiskState {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self {
            watermarks: Mutex::new(DiskWatermarks::new(&context.config)),
            doubts: Mutex::default(),
            scanned: AtomicBool::new(false),
            scan_found: AtomicUsize::new(0),
            context,
        }
    }

    /// Takes in how much room there is. Returns the levels before and after.
    pub(crate) fn observe(&self, seen: Option<Capacity>, turned_away: bool) -> (DiskPressure, DiskPressure) {
        let mut watermarks = self.watermarks.lock().expect("no panic under this lock");
        let before = watermarks.pressure();
        watermarks.observe(seen, turned_away);
        (before, watermarks.pressure())
    }

    /// How much room there is, as last seen.
    pub(crate) fn watermarks(&self) -> DiskWatermarks {
        *self.watermarks.lock().expect("no panic under this lock")
    }

    /// Whether this node takes new keys. What the members know of it follows in a moment.
    pub(crate) fn accepts(&self) -> bool {
        self.context.provider.is_some() && self.watermarks().pressure() != DiskPressure::Full
    }

    /// Only copies that no origin vouches for just now.
    pub(crate) fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().expect("no panic under this lock")
    }
}
