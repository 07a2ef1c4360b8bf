//! A budget for second attempts, so that retries of all requests do not multiply trouble.
//!
//! Every request pays a share into a bucket and every second attempt takes a whole coin out (as Finagle does); a few
//! coins a second come for free, so that a quiet node can still fail over. Retries are then at most a fifth of the load
//! plus that trickle, whatever happens.

use std::{sync::Mutex, time::Duration};

/// What a request pays in, in hundredths of a coin: retries may be a fifth of the load.
const SHARE_PER_REQUEST: u64 = 20;
/// What comes for free, in hundredths of a coin a second.
const FREE_PER_SECOND: u64 = 2_000;
/// What the bucket holds at most, in hundredths of a coin: also what a node starts with.
const BUCKET_MAX: u64 = 10_000;
const COIN: u64 = 100;

/// The bucket. Locked for a few instructions at a time.
#[derive(Debug)]
pub(crate) struct RetryBudget(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    level: u64,
    filled_at: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self(Mutex::new(Bucket { level: BUCKET_MAX, filled_at: Duration::ZERO }))
    }
}

impl RetryBudget {
    /// A request came in.
    pub(crate) fn deposit(&self) {
        let mut bucket = self.0.lock().expect("no panic under this lock");
        bucket.level = (bucket.level + SHARE_PER_REQUEST).min(BUCKET_MAX);
    }

    /// Whether a second attempt is allowed at `now`; it is then paid for.
    pub(crate) fn withdraw(&self, now: Duration) -> bool {
        let mut bucket = self.0.lock().expect("no panic under this lock");
        let since = now.saturating_sub(bucket.filled_at);
        let free = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_mul(FREE_PER_SECOND) / 1_000;
        if free > 0 {
            bucket.level = bucket.level.saturating_add(free).min(BUCKET_MAX);
            bucket.filled_at = now;
        }
        let allowed = bucket.level >= COIN;
        if allowed {
            bucket.level -= COIN;
        }
        allowed
    }

    /// A second attempt that was paid for, or the first one, never left this node. What was not paid cannot overfill the
    /// bucket.
    pub(crate) fn give_back(&self) {
        let mut bucket = self.0.lock().expect("no panic under this lock");
        bucket.level = bucket.level.saturating_add(COIN).min(BUCKET_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_bounded_by_a_share_of_the_load_and_a_trickle() {
        let budget = RetryBudget::default();
        let at = |seconds| Duration::from_secs(seconds);
        let granted = (0..1_000).filter(|_| budget.withdraw(at(0))).count();
        assert_eq!(granted, 100, "what it starts with");
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!((0..100).filter(|_| budget.withdraw(at(0))).count(), 10, "a fifth of the requests");
        assert_eq!((0..100).filter(|_| budget.withdraw(at(1))).count(), 20, "the trickle of a second");
        assert_eq!((0..1_000).filter(|_| budget.withdraw(at(3_600))).count(), 100, "no more than it holds");
    }
}
