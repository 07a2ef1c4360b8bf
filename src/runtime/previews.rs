//! Heads of keys that no node holds are asked for at the origin: how many at once, and which not again for a while.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{key::Key, provider::UpdateError, util::timers::Timers};

/// Heads that the origin is asked for at once.
const AT_ONCE: usize = 16;
/// Keys whose refusals are remembered; beyond, those that would be asked about again first are forgotten.
const REFUSALS_MAX: usize = 10_000;
/// For how long an origin that wants patience is believed at most.
const LATER_MAX: Duration = Duration::from_secs(3600);

/// What bounds the heads that this node asks origins for.
#[derive(Debug)]
pub(crate) struct Previews {
    pub(crate) places: Semaphore,
    /// Until when keys are not asked about.
    refused: Mutex<Timers>,
}

impl Default for Previews {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE), refused: Mutex::default() }
    }
}

impl Previews {
    /// Whether the origin has denied or refused `key` lately.
    pub(crate) fn is_refused(&self, now: Duration, key: &Key) -> bool {
        self.refused().get(key).is_some_and(|until| now < until)
    }

    /// Remembers what the origin said about `key`, if it is an answer. `ttl`: for how long.
    pub(crate) fn note(&self, now: Duration, key: &Key, error: &UpdateError, ttl: Duration) {
        let pause = match error {
            UpdateError::NotFound | UpdateError::Forbidden(_) => ttl,
            UpdateError::Later { after, .. } => (*after).min(LATER_MAX),
            _ => return,
        };
        let mut refused = self.refused();
        refused.take_due(now, 2);
        refused.set(key, now + pause);
        if refused.len() > REFUSALS_MAX {
            refused.take_first();
        }
    }

    fn refused(&self) -> MutexGuard<'_, Timers> {
        self.refused.lock().expect("no panic under this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new(format!("k{number}")).unwrap()
    }

    #[test]
    fn what_the_origin_answers_is_remembered_for_its_time_and_what_it_does_not_is_not() {
        let (previews, ttl, second) = (Previews::default(), Duration::from_secs(30), Duration::from_secs(1));
        let later = |after| UpdateError::Later { reason: "busy".into(), after };
        for (error, remembered) in [
            (UpdateError::NotFound, ttl),
            (UpdateError::Forbidden("403".into()), ttl),
            (later(5 * second), 5 * second),
            (later(Duration::MAX), LATER_MAX),
            (UpdateError::Unavailable("down".into()), Duration::ZERO),
        ] {
            previews.note(second, &key(1), &error, ttl);
            assert_eq!(previews.is_refused(second, &key(1)), !remembered.is_zero(), "{error}");
            assert!(!previews.is_refused(second + remembered, &key(1)), "{error}");
            previews.refused().remove(&key(1));
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let previews = Previews::default();
        for number in 0..REFUSALS_MAX + 5 {
            previews.note(Duration::ZERO, &key(number), &UpdateError::NotFound, Duration::from_secs(number as u64 + 1));
        }
        assert_eq!(previews.refused().len(), REFUSALS_MAX);
        assert!(!previews.is_refused(Duration::ZERO, &key(0)), "the first to be over went first");
    }
}
