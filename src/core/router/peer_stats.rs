//! How each peer has been doing, as seen from here. Written by every request, read by every choice: atomics only.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::choose::{Candidate, order};
use crate::key::NodeName;

/// Weight of the newest measurement in the moving average: 1/8, as TCP does for its round-trip time (RFC 6298).
const EWMA_SHIFT: u32 = 3;
/// How long a failed attempt makes a peer suspect, doubled with every further failure in a row.
const SUSPICION_MIN: Duration = Duration::from_millis(500);
const SUSPICION_MAX: Duration = Duration::from_secs(10);

/// The health of one peer.
#[derive(Debug, Default)]
pub(crate) struct PeerHealth {
    latency_us: AtomicU32,
    in_flight: AtomicU32,
    failures: AtomicU32,
    suspect_until_ms: AtomicU64,
}

impl PeerHealth {
    /// A request is on its way until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    pub(crate) fn succeeded(&self, took: Duration) {
        let sample = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let old = self.latency_us.load(Ordering::Relaxed);
        let new = if old == 0 { sample } else { old - (old >> EWMA_SHIFT) + (sample >> EWMA_SHIFT) };
        self.latency_us.store(new.max(1), Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.suspect_until_ms.store(0, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, now: Duration) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let pause = SUSPICION_MIN.saturating_mul(1 << failures.min(8)).min(SUSPICION_MAX);
        self.suspect_until_ms.store(millis(now + pause), Ordering::Relaxed);
    }

    /// Notes that no request waits for an answer any more, after this time. That says something of
    /// the peer only if the time was unusually long: a client may go at any moment, and of two
    /// peers that were asked one is always late.
    pub(crate) fn given_up(&self, now: Duration, waited: Duration, unusual: Duration) {
        if waited >= unusual {
            self.failed(now);
        }
    }
}

/// A request that has not been answered yet.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<PeerHealth>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The health of all peers, and a source of draws for choosing among them.
#[derive(Debug, Default)]
pub(crate) struct PeerStats {
    peers: BTreeMap<NodeName, Arc<PeerHealth>>,
    draws: Arc<AtomicU64>,
}

impl PeerStats {
    /// Routes for these members; what is known of those that stayed is kept.
    pub(crate) fn renewed<'a>(&self, names: impl Iterator<Item = &'a NodeName>, seed: Option<u64>) -> Self {
        let peers = names.map(|name| (name.clone(), self.peers.get(name).cloned().unwrap_or_default())).collect();
        let draws = seed.map_or_else(|| self.draws.clone(), |seed| Arc::new(AtomicU64::new(seed)));
        Self { peers, draws }
    }

    pub(crate) fn health(&self, name: &NodeName) -> Option<&Arc<PeerHealth>> {
        self.peers.get(name)
    }

    /// These nodes, in the order in which to try them.
    pub(crate) fn ranked(&self, names: Vec<NodeName>, now: Duration) -> Vec<NodeName> {
        if names.len() < 2 {
            return names;
        }
        let now = millis(now);
        let candidate = |name: NodeName| {
            let health = self.peers.get(&name);
            let read = |field: fn(&PeerHealth) -> &AtomicU32| health.map_or(0, |h| field(h).load(Ordering::Relaxed));
            Candidate {
                suspect: health.is_some_and(|health| now < health.suspect_until_ms.load(Ordering::Relaxed)),
                latency_us: read(|health| &health.latency_us),
                in_flight: read(|health| &health.in_flight),
                name,
            }
        };
        order(names.into_iter().map(candidate).collect(), self.draw())
    }

    /// A pseudo-random number (splitmix64, Steele et al., 2014) without a lock and without the system's generator.
    fn draw(&self) -> u64 {
        let mut z = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_makes_suspect_for_a_while_and_a_success_clears_it() {
        let names = [NodeName::new("a").unwrap(), NodeName::new("b").unwrap()];
        let routes = PeerStats::default().renewed(names.iter(), Some(1));
        routes.health(&names[0]).unwrap().failed(Duration::from_secs(1));
        let first = |at| routes.ranked(names.to_vec(), Duration::from_millis(at))[0].clone();
        assert!((0..20).all(|_| first(1_100) == names[1]));
        assert!((0..20).any(|_| first(1_600) == names[0]), "suspicion ends");
        routes.health(&names[0]).unwrap().succeeded(Duration::from_millis(3));
        assert_eq!(routes.health(&names[0]).unwrap().failures.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn clients_that_go_away_at_once_make_nobody_suspect() {
        let health = PeerHealth::default();
        let (now, unusual) = (Duration::from_secs(1), Duration::from_millis(300));
        health.given_up(now, Duration::from_millis(299), unusual);
        assert_eq!(health.failures.load(Ordering::Relaxed), 0);
        health.given_up(now, unusual, unusual);
        assert_eq!(health.failures.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_request_counts_until_its_guard_is_dropped() {
        let health = Arc::new(PeerHealth::default());
        let guard = health.begin();
        assert_eq!(health.in_flight.load(Ordering::Relaxed), 1);
        drop(guard);
        assert_eq!(health.in_flight.load(Ordering::Relaxed), 0);
    }
}
