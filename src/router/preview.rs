//! Heads of keys that no node holds: what the origin says of them, without a fetch.
//!
//! The node that is asked asks the origin itself, for a few keys at a time. What the origin denies, refuses, or wants patience
//! for is not asked about again for a while: the request goes on to the node that leads, which remembers the reason.

use std::{
    panic::AssertUnwindSafe,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use futures::FutureExt;
use http::{Method, Response, request::Parts};
use tokio::{sync::Semaphore, time::Instant};
use tracing::debug;

use crate::{
    key::Key,
    node::Shared,
    provider::{Body, UpdateError},
    timers::Timers,
};

/// Heads that the origin is asked for at once.
const AT_ONCE: usize = 16;
/// How long the origin has to say them; the key is fetched if it takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys whose refusals are remembered; beyond, those that would be asked about again first are forgotten.
const REFUSALS_MAX: usize = 10_000;
/// For how long an origin that wants patience is believed at most.
const LATER_MAX: Duration = Duration::from_secs(3600);

/// What bounds the heads that this node asks origins for.
#[derive(Debug)]
pub(crate) struct Previews {
    places: Semaphore,
    /// Until when keys are not asked about.
    refused: Mutex<Timers>,
}

impl Default for Previews {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE), refused: Mutex::default() }
    }
}

impl Previews {
    fn is_refused(&self, now: Duration, key: &Key) -> bool {
        self.refused().get(key).is_some_and(|until| now < until)
    }

    /// Remembers what the origin said about `key`, if it is an answer. `ttl`: for how long.
    fn note(&self, now: Duration, key: &Key, error: &UpdateError, ttl: Duration) {
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

/// The answer to a HEAD for a key that no node has, if the origin says enough of it and few are asked for. It is asked from
/// here: a head is no fetch.
pub(super) async fn preview(shared: &Shared, key: &Key, parts: &Parts, deadline: Instant) -> Option<Response<Body>> {
    let provider = shared.provider.as_ref().filter(|_| parts.method == Method::HEAD)?;
    if shared.previews.is_refused(shared.uptime(), key) {
        return None;
    }
    let _place = shared.previews.places.try_acquire().ok()?;
    let asked = AssertUnwindSafe(provider.preview(key, parts)).catch_unwind();
    match tokio::time::timeout_at(deadline.min(Instant::now() + PATIENCE), asked).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(error))) => {
            debug!(%key, %error, "the origin does not say what it is");
            shared.previews.note(shared.uptime(), key, &error, shared.config.not_found_ttl);
            None
        }
        Ok(Err(_)) => {
            tracing::error!(%key, "the provider panicked when it was asked what the origin says");
            None
        }
        Err(_) => None,
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
