//! A value that one writer replaces and many readers share without locks, with a way to wait for the next one.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

/// Publishes snapshots. Reading never blocks and never allocates. Waiting is for callers that are
/// not in a hurry.
#[derive(Debug)]
pub(crate) struct Published<T> {
    current: ArcSwap<T>,
    changed: watch::Sender<()>,
}

impl<T> Published<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { current: ArcSwap::from_pointee(value), changed: watch::Sender::new(()) }
    }

    /// The current snapshot, for a moment: do not hold it over an await.
    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    /// The current snapshot, to keep.
    pub(crate) fn snapshot(&self) -> Arc<T> {
        self.current.load_full()
    }

    pub(crate) fn publish(&self, value: Arc<T>) {
        self.current.store(value);
        self.changed.send_replace(());
    }

    /// Wakes at every publication after this call.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until the published value satisfies `condition`, and returns it. Cancel safe.
    pub(crate) async fn wait_for(&self, condition: impl Fn(&T) -> bool) -> Arc<T> {
        let mut changes = self.subscribe();
        loop {
            changes.borrow_and_update();
            let now = self.snapshot();
            if condition(&now) || changes.changed().await.is_err() {
                return now;
            }
        }
    }
}
