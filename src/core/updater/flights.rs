//! The pure core of the updater pool: single flight, admission, and what is remembered of failures.
//!
//! Invariants: at most one flight a key, and at most one more to follow it; at most `bound` flights that have not
//! started, apart from those that gave their updater to others; every waiter that was taken on is handed back exactly
//! once, by [`Flights::finish_flight`], unless it has left; memory of failures is bounded and expires.
//!
//! A refresh that is asked for while one runs is a flight of its own, which follows: the running
//! one may have looked before the data appeared that the caller knows of. All callers that ask
//! meanwhile share the second flight.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use crate::{key::Key, net::wire::Ensured, provider::UpdateReason, util::timers::Timers};

/// How long an update may take although it gets on: an origin that sends a byte now and then has no end.
pub(crate) const FETCH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Requests that may wait for one key. More are told that the node is overloaded.
const WAITERS_PER_KEY_MAX: usize = 16_384;
/// Keys whose absence or failure is remembered; beyond, the ones that expire first are forgotten.
const MEMORIES_MAX: usize = 65_536;
/// Pause after the first failure of a key, and the longest. In between it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause for which a request that waits for the key is put off: the node must notice
/// that an origin is back.
const REQUEST_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The longest time for which an origin that asks for it is left alone.
pub(crate) const LATER_MAX: Duration = Duration::from_secs(3600);

/// What is to be done with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Hold it: fetch it unless it is there.
    Ensure { origin: Origin },
    /// Bring it up to date from these nodes, or from the origin if there are none.
    Refresh { from: Vec<crate::key::NodeName> },
    /// Delete it; its claim is withdrawn already.
    Remove,
}

/// Whether the origin may be asked for a key that no peer has. In the order in which one includes the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// No: the key is copied, or not had.
    Never,
    /// Yes, unless it is remembered what it would say.
    Heeding,
    /// Yes, whatever is remembered: the caller may know that the key has come to be.
    Afresh,
}

impl Work {
    /// Whether the origin may be asked in its course.
    pub(crate) fn may_ask_origin(&self) -> bool {
        match self {
            Self::Ensure { origin } => *origin != Origin::Never,
            Self::Refresh { from } => from.is_empty(),
            Self::Remove => false,
        }
    }
}

/// What happens to a request for work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// A job has to be queued.
    Start,
    /// One is on its way, but has to be queued again at a higher priority.
    Reprioritize,
    /// One is on its way.
    Joined,
    /// The answer is known.
    Known(Ensured),
    /// No room.
    Full,
}

#[derive(Debug)]
struct Flight<W> {
    work: Work,
    reason: UpdateReason,
    running: bool,
    waiters: Vec<W>,
    /// Whether it is wanted though no request waits for it: by a pin, a repair, a refresh, an explicit update.
    kept: bool,
    /// A refresh that begins once this one has ended.
    next: Option<Box<Self>>,
}

#[derive(Debug, Clone)]
struct Memory {
    until: Duration,
    /// Until when requests are put off; not after `until`.
    requests_until: Duration,
    failures: u32,
    /// When the first failure of those in a row was.
    since: Duration,
    answer: Ensured,
    /// Whether the origin was asked, or only peers. If only peers were asked, a caller that may ask
    /// the origin is not turned away.
    asked_origin: bool,
}

/// Flights by key, with waiters of type `W`.
#[derive(Debug)]
pub(crate) struct Flights<W> {
    bound: usize,
    queued: usize,
    flights: BTreeMap<Key, Flight<W>>,
    memories: BTreeMap<Key, Memory>,
    expiries: Timers,
}

impl<W> Flights<W> {
    pub(crate) fn new(bound: usize) -> Self {
        Self { bound, queued: 0, flights: BTreeMap::new(), memories: BTreeMap::new(), expiries: Timers::default() }
    }

    /// Asks for `work`. A waiter that is not taken on is given back.
    pub(crate) fn admit(
        &mut self,
        now: Duration,
        key: &Key,
        work: Work,
        reason: UpdateReason,
        waiter: Option<W>,
    ) -> (Admission, Option<W>) {
        if let Some(flight) = self.flights.get_mut(key) {
            if !flight.has_missed(&work) {
                return flight.join(work, reason, waiter);
            }
            if let Some(next) = &mut flight.next {
                let (admission, waiter) = next.join(work, reason, waiter);
                let admission = if admission == Admission::Full { admission } else { Admission::Joined };
                return (admission, waiter);
            }
            if self.queued >= self.bound {
                return (Admission::Full, waiter);
            }
            self.queued += 1;
            flight.next = Some(Box::new(Flight::new(work, reason, waiter)));
            return (Admission::Joined, None);
        }
        if let Work::Ensure { origin } = work
            && let Some(memory) = self.memories.get(key)
            && origin != Origin::Afresh
            && now < if reason == UpdateReason::Request { memory.requests_until } else { memory.until }
            && (memory.asked_origin || origin == Origin::Never)
        {
            return (Admission::Known(memory.answer.clone()), waiter);
        }
        if self.queued >= self.bound {
            return (Admission::Full, waiter);
        }
        self.queued += 1;
        self.flights.insert(key.clone(), Flight::new(work, reason, waiter));
        (Admission::Start, None)
    }

    /// What is to be done with `key`, if no worker has taken it yet.
    pub(crate) fn waiting(&self, key: &Key) -> Option<(&Work, UpdateReason)> {
        self.flights.get(key).filter(|flight| !flight.running).map(|flight| (&flight.work, flight.reason))
    }

    /// A worker took the job. `None` if another copy of it ran already.
    pub(crate) fn start_next(&mut self, key: &Key) -> Option<(Work, UpdateReason)> {
        let flight = self.flights.get_mut(key).filter(|flight| !flight.running)?;
        flight.running = true;
        self.queued -= 1;
        Some((flight.work.clone(), flight.reason))
    }

    /// The flight gives its updater to others, and waits again.
    pub(crate) fn put_back(&mut self, key: &Key) {
        if let Some(flight) = self.flights.get_mut(key).filter(|flight| flight.running) {
            flight.running = false;
            self.queued += 1;
        }
    }

    /// Forgets the waiters that have left. Returns the flights that no caller wants now, and
    /// whether each runs.
    pub(crate) fn abandoned(&mut self, is_there: impl Fn(&W) -> bool) -> Vec<(Key, bool)> {
        let mut abandoned = Vec::new();
        for (key, flight) in &mut self.flights {
            flight.waiters.retain(&is_there);
            if let Some(next) = &mut flight.next {
                next.waiters.retain(&is_there);
            }
            if flight.waiters.is_empty() && !flight.kept {
                abandoned.push((key.clone(), flight.running));
            }
        }
        abandoned
    }

    /// Ends a flight. Returns its waiters, and how urgent the next flight is, for which the caller
    /// has to queue a job.
    pub(crate) fn finish_flight(&mut self, key: &Key) -> (Vec<W>, Option<UpdateReason>) {
        let Some(flight) = self.flights.remove(key) else { return (Vec::new(), None) };
        if !flight.running {
            self.queued -= 1;
        }
        let follows = flight.next.map(|next| {
            let reason = next.reason;
            self.flights.insert(key.clone(), *next);
            reason
        });
        (flight.waiters, follows)
    }

    /// Remembers a failure until a time that grows with the number of failures in a row. `jitter` is in `0.0..1.0`.
    /// Returns how long.
    pub(crate) fn remember_failure(
        &mut self,
        now: Duration,
        key: &Key,
        work: &Work,
        answer: Ensured,
        jitter: f64,
    ) -> Duration {
        let failures = self.memories.get(key).map_or(0, |memory| memory.failures).saturating_add(1);
        let pause = PAUSE_MIN.saturating_mul(1 << failures.min(10).saturating_sub(1)).min(PAUSE_MAX);
        let pause = pause.mul_f64(0.5 + jitter / 2.0);
        let asked_origin = *work != Work::Ensure { origin: Origin::Never };
        let (until, requests_until) = (now + pause, now + pause.min(REQUEST_PAUSE_MAX));
        let since = self.failing_since(now, key);
        self.remember(key, Memory { until, requests_until, failures, since, answer, asked_origin });
        pause
    }

    /// Remembers that the origin asked to be left alone for `pause`, or for [`LATER_MAX`] if that is shorter.
    pub(crate) fn remember_later(&mut self, now: Duration, key: &Key, answer: Ensured, pause: Duration) {
        let failures = self.memories.get(key).map_or(0, |memory| memory.failures);
        let (until, since) = (now + pause.min(LATER_MAX), self.failing_since(now, key));
        self.remember(key, Memory { until, requests_until: until, failures, since, answer, asked_origin: true });
    }

    /// Remembers that the origin has no such key.
    pub(crate) fn remember_absence(&mut self, now: Duration, key: &Key, ttl: Duration) {
        if !ttl.is_zero() {
            let (until, answer, since) = (now + ttl, Ensured::NotFound, self.failing_since(now, key));
            self.remember(key, Memory { until, requests_until: until, failures: 0, since, answer, asked_origin: true });
        }
    }

    /// Remembers that the key may not be fetched: until `ttl` is over it is not asked for again, and then it is still known why
    /// the key is not there.
    pub(crate) fn remember_refusal(&mut self, now: Duration, key: &Key, answer: Ensured, ttl: Duration) {
        let (until, since) = (now + ttl, self.failing_since(now, key));
        self.remember(key, Memory { until, requests_until: until, failures: 0, since, answer, asked_origin: true });
    }

    fn failing_since(&self, now: Duration, key: &Key) -> Duration {
        self.memories.get(key).map_or(now, |memory| memory.since)
    }

    /// What went wrong with `key` last, and since when it has, if it did.
    pub(crate) fn trouble(&self, key: &Key) -> Option<(&Ensured, Duration)> {
        self.memories.get(key).map(|memory| (&memory.answer, memory.since))
    }

    /// Forgets what went wrong with `key`.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.memories.remove(key);
        self.expiries.remove(key);
    }

    fn remember(&mut self, key: &Key, memory: Memory) {
        self.forget(key);
        self.expiries.set(key, memory.until);
        self.memories.insert(key.clone(), memory);
        while self.memories.len() > MEMORIES_MAX {
            let Some(oldest) = self.expiries.take_first() else { break };
            self.memories.remove(&oldest);
        }
    }

    /// Flights that wait for a worker, and flights that are up.
    #[cfg(test)]
    fn counts(&self) -> (usize, usize) {
        (self.queued, self.flights.values().filter(|flight| flight.running).count())
    }
}

impl<W> Flight<W> {
    fn new(work: Work, reason: UpdateReason, waiter: Option<W>) -> Self {
        let kept = Self::is_kept(&work, reason, waiter.is_some());
        Self { work, reason, running: false, waiters: waiter.into_iter().collect(), kept, next: None }
    }

    /// Whether the work is to be done even if the caller that asked for it leaves.
    fn is_kept(work: &Work, reason: UpdateReason, somebody_waits: bool) -> bool {
        !(somebody_waits && reason == UpdateReason::Request && matches!(work, Work::Ensure { .. }))
    }

    /// Whether this one began too early for `work`.
    fn has_missed(&self, work: &Work) -> bool {
        let wants_news = matches!(work, Work::Refresh { .. } | Work::Ensure { origin: Origin::Afresh });
        self.running && wants_news && self.work != Work::Remove
    }

    fn join(&mut self, work: Work, reason: UpdateReason, waiter: Option<W>) -> (Admission, Option<W>) {
        if waiter.is_some() && self.waiters.len() >= WAITERS_PER_KEY_MAX {
            return (Admission::Full, waiter);
        }
        self.kept |= Self::is_kept(&work, reason, waiter.is_some());
        self.waiters.extend(waiter);
        if self.running {
            return (Admission::Joined, None);
        }
        // The flight has not started yet, so the most demanding caller decides on the work and its
        // urgency.
        self.work = match (self.work.clone(), work) {
            (Work::Ensure { origin: a }, Work::Ensure { origin: b }) => Work::Ensure { origin: a.max(b) },
            (Work::Remove, wanted) => wanted,
            (Work::Refresh { .. }, Work::Refresh { from }) if from.is_empty() => Work::Refresh { from },
            (planned, _) => planned,
        };
        if reason < self.reason {
            self.reason = reason;
            return (Admission::Reprioritize, None);
        }
        (Admission::Joined, None)
    }
}
