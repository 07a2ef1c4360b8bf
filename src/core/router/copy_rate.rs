//! How fast this node copies from others to restore or to move replicas: all such copies together keep to a rate, so that
//! requests find the network free. What people wait for is not held up.
//!
//! The rate is kept by virtual scheduling (the generic cell rate algorithm of ITU-T I.371): instead of a bucket that is
//! refilled there is one time at which the next byte is due. Holding the reader back holds the sender back as well, by
//! QUIC's flow control. Our own because the crates for it bring a clock of their own, which a simulation cannot.

use std::{sync::Mutex, time::Duration};

/// How much may come at once after a quiet time.
const BURST: Duration = Duration::from_millis(250);

/// A rate that many copies share.
#[derive(Debug)]
pub(crate) struct CopyRateLimiter {
    bytes_per_second: u64,
    next_due: Mutex<Duration>,
}

impl CopyRateLimiter {
    /// A limiter of `bytes_per_second`; 0 is no limit.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, next_due: Mutex::default() }
    }

    /// So many bytes came at `now`, on any monotonic clock: how long to wait before taking more.
    pub(crate) fn take(&self, now: Duration, bytes: usize) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut next_due = self.next_due.lock().expect("no panic under this lock");
        *next_due = (*next_due).max(now.saturating_sub(BURST)) + cost;
        next_due.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_the_rate_and_a_quiet_time_is_not_saved_up() {
        let pace = CopyRateLimiter::new(1_000);
        let at = Duration::from_secs;
        assert_eq!(pace.take(at(10), 500), Duration::from_millis(250), "a burst is for free");
        assert_eq!(pace.take(at(10), 500), Duration::from_millis(750), "whoever comes next waits for both");
        assert_eq!(pace.take(at(1_000), 1_000), Duration::from_millis(750), "an hour of rest is worth one burst");
        assert_eq!(CopyRateLimiter::new(0).take(at(10), usize::MAX), Duration::ZERO);
    }
}
