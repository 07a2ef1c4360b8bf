//! Notices a runtime thread that never yields, says so, and ends the process when it goes on, so that the service manager
//! starts it again: a node that hangs is worse than one that is dead, for its peers go on sending requests to it.
//!
//! tokio adds to a worker's busy time whenever it has polled some tasks (61 at most), and counts its sleeps. A worker that
//! is awake and whose busy time stands still has been inside these few polls all the time. The watchdog is a thread of its
//! own. If it was kept from looking as well (SIGSTOP, a paused virtual machine), it begins to count anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::runtime::Handle;
use tracing::error;

/// When to look, and when to act. A poll takes microseconds; a blocking call that slipped in, seconds at worst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Between two looks.
    pub(crate) look: Duration,
    /// A worker that has not yielded for so long is reported.
    pub(crate) report: Duration,
    /// A worker that has not yielded for so long ends the process.
    pub(crate) end: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { look: Duration::from_millis(500), report: Duration::from_secs(5), end: Duration::from_secs(30) }
    }
}

/// A thread that looks at the workers of a runtime until it is dropped.
pub(crate) struct Watchdog {
    /// Workers that do not yield, for the metrics.
    stuck: Arc<AtomicU64>,
    /// Its end tells the thread to end.
    _running: Arc<()>,
}

impl Watchdog {
    /// Watches the runtime of `handle`. `end` is called when a worker has not yielded for too long.
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of its own, on the real clock: it must not depend on the runtime"
    )]
    pub(crate) fn start(handle: &Handle, limits: Limits, end: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (stuck, running) = (Arc::new(AtomicU64::new(0)), Arc::new(()));
        let (metrics, noted, watching) = (handle.metrics(), stuck.clone(), Arc::downgrade(&running));
        let began = std::time::Instant::now();
        thread::Builder::new().name("watchdog".into()).spawn(move || {
            let mut workers = Workers::default();
            while watching.upgrade().is_some() {
                thread::sleep(limits.look);
                let samples = (0..metrics.num_workers()).map(|worker| Sample {
                    sleeps: metrics.worker_park_unpark_count(worker),
                    busy: metrics.worker_total_busy_duration(worker),
                });
                let stuck = workers.look(began.elapsed(), limits.look, samples.collect());
                let longest = stuck.iter().copied().max().unwrap_or_default();
                noted.store(stuck.iter().filter(|since| **since >= limits.report).count() as u64, Ordering::Relaxed);
                if longest >= limits.end {
                    error!(?longest, "a runtime thread does not yield: the process ends, to be started again");
                    end();
                } else if longest >= limits.report {
                    error!(?longest, "a runtime thread does not yield; requests hang");
                }
            }
        })?;
        Ok(Self { stuck, _running: running })
    }

    /// How many workers do not yield now.
    pub(crate) fn stuck(&self) -> Arc<AtomicU64> {
        self.stuck.clone()
    }
}

/// What tokio tells of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// How often it went to sleep or woke up: odd while it sleeps.
    sleeps: u64,
    busy: Duration,
}

/// The workers as last seen, each with the time since which nothing has changed.
#[derive(Debug, Default)]
struct Workers {
    seen: Vec<(Sample, Duration)>,
    looked: Duration,
}

impl Workers {
    /// Takes in what the workers look like at `now`, about `interval` after the last look. Returns how long each that is
    /// awake has not yielded.
    fn look(&mut self, now: Duration, interval: Duration, samples: Vec<Sample>) -> Vec<Duration> {
        let was_kept_away = now.saturating_sub(self.looked) > 3 * interval;
        self.looked = now;
        if was_kept_away || self.seen.len() != samples.len() {
            self.seen = samples.into_iter().map(|sample| (sample, now)).collect();
            return Vec::new();
        }
        for ((seen, since), sample) in self.seen.iter_mut().zip(samples) {
            let sleeps = sample.sleeps % 2 == 1;
            if *seen != sample || sleeps {
                (*seen, *since) = (sample, now);
            }
        }
        self.seen.iter().map(|(_, since)| now.saturating_sub(*since)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LOOK: Duration = Duration::from_secs(1);

    fn at(seconds: u64, sleeps: u64, busy: u64, workers: &mut Workers) -> Option<u64> {
        let sample = Sample { sleeps, busy: Duration::from_secs(busy) };
        workers.look(Duration::from_secs(seconds), LOOK, vec![sample]).first().map(Duration::as_secs)
    }

    #[test]
    fn a_worker_that_is_awake_and_completes_nothing_is_stuck_and_others_are_not() {
        let mut workers = Workers::default();
        assert_eq!(at(1, 2, 1, &mut workers), None, "nothing to compare with");
        assert_eq!(at(2, 2, 1, &mut workers), Some(1));
        assert_eq!(at(3, 2, 1, &mut workers), Some(2));
        assert_eq!(at(4, 2, 2, &mut workers), Some(0), "it went on to other tasks");
        assert_eq!(at(5, 3, 2, &mut workers), Some(0));
        assert_eq!(at(6, 3, 2, &mut workers), Some(0), "it sleeps");
    }

    #[test]
    fn a_pause_of_the_whole_process_does_not_count() {
        let mut workers = Workers::default();
        at(1, 2, 1, &mut workers);
        assert_eq!(at(2, 2, 1, &mut workers), Some(1));
        assert_eq!(at(3_600, 2, 1, &mut workers), None);
        assert_eq!(at(3_601, 2, 1, &mut workers), Some(1));
    }

    fn quick() -> Limits {
        Limits { look: Duration::from_millis(10), report: Duration::from_millis(50), end: Duration::from_millis(200) }
    }

    #[test]
    fn a_task_that_spins_is_noticed_and_one_that_yields_is_not() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (tell, told) = mpsc::channel();
        let tell_too = tell.clone();
        let watchdog = Watchdog::start(runtime.handle(), quick(), move || tell.send("stuck").unwrap()).unwrap();
        // As busy as can be, but never for long.
        let busy = runtime.spawn(async move {
            for _ in 0..200_000 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            tell_too.send("yields").unwrap();
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok("yields"));
        runtime.block_on(busy).unwrap();
        assert_eq!(watchdog.stuck().load(Ordering::Relaxed), 0);
        let stop = Arc::new(());
        let until = Arc::downgrade(&stop);
        runtime.spawn(async move { while until.upgrade().is_some() {} });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok("stuck"));
        assert_eq!(watchdog.stuck().load(Ordering::Relaxed), 1);
        drop(stop);
        runtime.shutdown_background();
    }
}
