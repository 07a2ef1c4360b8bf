//! The time of a run, on every machine and between them.
//!
//! Every machine has a tokio runtime with a paused clock of its own. All clocks begin at the same instant, because the
//! thread's real clock stands still; so times of different machines can be compared, and a machine that was frozen is
//! put right by advancing its clock in one jump, as a stopped process sees it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The clock of one run. A handle; clones are the same clock.
#[derive(Debug, Clone)]
pub struct Clock {
    epoch: Instant,
    driven_ns: Arc<AtomicU64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock at zero.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "stands still on a simulated thread; the instant that all count from"
    )]
    pub fn new() -> Self {
        Self { epoch: Instant::now(), driven_ns: Arc::default() }
    }

    /// Time since the beginning of the run: on a machine, that machine's; between windows, that of the last one.
    #[must_use]
    pub fn now(&self) -> Duration {
        let here = tokio::time::Instant::now().into_std().saturating_duration_since(self.epoch);
        here.max(Duration::from_nanos(self.driven_ns.load(Ordering::Relaxed)))
    }

    /// The moment in a form that timers take.
    #[must_use]
    pub fn instant(&self, at: Duration) -> tokio::time::Instant {
        (self.epoch + at).into()
    }

    /// Every machine has come this far.
    pub fn set(&self, now: Duration) {
        self.driven_ns.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
