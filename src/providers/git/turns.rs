//! Turns at git, which a limited number of requests have at once, and how long the next request
//! waits for one.
//!
//! What is told to a client that was turned away is an estimate: turns that have ended tell how long one takes, and those that
//! wait how many come first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::provider::ServeError;

/// How long a request waits for its turn before it is told to come back: shorter than callers wait for a holder, so that
/// they can ask another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest and the longest time after which a client is told to come back.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(120);
/// The weight of what is known against a turn that has just ended, in what a turn usually takes.
const MEMORY: u32 = 7;

/// So many turns at a time. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    at_once: usize,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    /// When those began that have not ended.
    taken: BTreeMap<u64, Instant>,
    next: u64,
    /// How long a turn took lately, on average.
    usual: Option<Duration>,
    waiting: usize,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    book: Arc<Mutex<Book>>,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

/// Counts a request that waits.
struct Waiting<'a>(&'a Turns);

impl Turns {
    pub(super) fn new(at_once: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(at_once)), at_once, book: Arc::default() }
    }

    /// Waits for a turn, but not for ever. Cancel safe.
    ///
    /// # Errors
    /// There was none in time; with an estimate of when there will be.
    pub(super) async fn take(&self) -> Result<Turn, ServeError> {
        let waiting = Waiting::of(self);
        let permit = tokio::time::timeout(PATIENCE, Arc::clone(&self.free).acquire_owned()).await;
        drop(waiting);
        let Ok(permit) = permit else {
            let reason = format!("no turn for git within {PATIENCE:?}");
            return Err(ServeError::Overloaded { reason, retry_after: self.estimate() });
        };
        let permit = permit.map_err(|error| ServeError::Failed(error.into()))?;
        let mut book = self.book();
        book.next += 1;
        let number = book.next;
        book.taken.insert(number, Instant::now());
        Ok(Turn { book: self.book.clone(), number, _permit: permit })
    }

    /// How long a request that comes now would wait.
    fn estimate(&self) -> Duration {
        let book = self.book();
        let oldest = book.taken.values().next().map(Instant::elapsed);
        estimate(book.usual, oldest, book.waiting, self.at_once)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic under this lock")
    }
}

impl<'a> Waiting<'a> {
    fn of(turns: &'a Turns) -> Self {
        turns.book().waiting += 1;
        Self(turns)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.book().waiting -= 1;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut book = self.book.lock().expect("no panic under this lock");
        if let Some(began) = book.taken.remove(&self.number) {
            book.usual = Some(averaged(book.usual, began.elapsed()));
        }
    }
}

fn averaged(usual: Option<Duration>, took: Duration) -> Duration {
    usual.map_or(took, |usual| (usual * MEMORY + took) / (MEMORY + 1))
}

/// `waiting` requests come before the next one, and `at_once` of them have a turn at a time, which takes as long as `usual`; as
/// long as the oldest that has not ended, if that is longer.
fn estimate(usual: Option<Duration>, oldest: Option<Duration>, waiting: usize, at_once: usize) -> Duration {
    let turn = usual.max(oldest).unwrap_or_default();
    let rounds = (waiting + 1) as f64 / at_once as f64;
    turn.mul_f64(rounds).clamp(WAIT_MIN, WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_estimate_follows_how_long_turns_take_and_how_many_wait() {
        assert_eq!(estimate(Some(seconds(8)), None, 3, 4), seconds(8));
        assert_eq!(estimate(Some(seconds(8)), None, 7, 4), seconds(16));
        assert_eq!(estimate(Some(seconds(8)), Some(seconds(30)), 3, 4), seconds(30));
        assert_eq!(estimate(None, None, 0, 4), WAIT_MIN);
        assert_eq!(estimate(Some(seconds(500)), None, 900, 4), WAIT_MAX);
        assert_eq!(averaged(Some(seconds(8)), seconds(16)), seconds(9));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_turned_away_is_told_when_a_turn_will_be_free() {
        let turns = Turns::new(1);
        let held = turns.take().await.unwrap();
        tokio::time::advance(seconds(20)).await;
        let Err(ServeError::Overloaded { retry_after, .. }) = turns.take().await else { panic!("there is no turn") };
        assert!((seconds(30)..seconds(31)).contains(&retry_after), "{retry_after:?}");
        drop(held);
        drop(turns.take().await.unwrap());
        assert_eq!(turns.book().waiting, 0);
        assert!(turns.book().taken.is_empty());
    }
}
