//! The network: datagrams that arrive late, twice, out of order, broken, or not at all.
//!
//! ```text
//!   quinn -- try_send --> Fabric: lost? copied? broken? when? --> inbox of the addressee, by (time, sequence) -- poll_recv --> quinn
//! ```
//!
//! Everything random is drawn from one generator in the order of sending, so that a run repeats itself as long as the
//! nodes do. No datagram takes less than the fair network's latency, which is what lets machines run one after the other
//! for that long without missing anything (Chandy and Misra, "Distributed simulation", 1979). Queues are bounded and
//! drop what does not fit, as sockets do.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    model::{Clock, Link},
    trace::Trace,
};

/// Datagrams on the way to one socket and waiting in it: about what a receive buffer of 8 MiB takes.
const INBOX_MAX: usize = 4096;
/// Datagrams that would leave a slow link later than this are dropped, as by a router's queue.
const QUEUE_MAX: Duration = Duration::from_millis(500);
/// A datagram that is overtaken comes at most this much later.
const OVERTAKEN_MAX_MS: u64 = 30;

/// A fault of some links, as one thing that begins and ends.
#[derive(Debug, Clone)]
pub struct Layer {
    /// From these machines; empty for all.
    pub from: BTreeSet<IpAddr>,
    /// To these machines; empty for all.
    pub to: BTreeSet<IpAddr>,
    /// What it does.
    pub what: Effect,
}

/// What a layer does to its links.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Nothing gets through.
    Cut,
    /// Links are worse.
    Worse(Link),
}

/// The network of one run. A handle; clones are the same network.
#[derive(Clone)]
pub struct Fabric {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    trace: Trace,
    clock: Clock,
}

struct State {
    rng: StdRng,
    fair: Link,
    layers: BTreeMap<u64, Layer>,
    /// What layers make of a link, `None` for a cut one; forgotten when layers change.
    links: BTreeMap<(IpAddr, IpAddr), Option<Link>>,
    /// Until when a slow link is busy.
    busy: BTreeMap<(IpAddr, IpAddr), Duration>,
    sockets: BTreeMap<SocketAddr, Inbox>,
    sequence: u64,
    bindings: u64,
    counts: Counts,
}

/// What became of datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Lost on a bad link, cut off, or too many or too large.
    pub lost: u64,
    /// Changed on the way.
    pub corrupted: u64,
    /// Overtaken by later ones.
    pub overtaken: u64,
    /// Delivered twice.
    pub duplicated: u64,
}

#[derive(Default)]
struct Inbox {
    binding: u64,
    arriving: BinaryHeap<Reverse<Arriving>>,
    /// Who waits, and for the datagram of which moment, if for any.
    waiting: Option<(Option<Duration>, Waker)>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Arriving {
    at: Duration,
    sequence: u64,
    from: SocketAddr,
    bytes: Bytes,
}

/// What a socket finds when it looks.
pub(super) enum Look {
    /// A datagram.
    Datagram(SocketAddr, Bytes),
    /// Nothing yet; the next one, if there is one on its way.
    Nothing(Option<Duration>),
    /// The machine of this socket lost its power.
    Dead,
}

impl Fabric {
    /// A network whose links are `fair` as long as nothing is wrong with them.
    #[must_use]
    pub fn new(seed: u64, fair: Link, clock: Clock, trace: Trace) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            fair,
            layers: BTreeMap::new(),
            links: BTreeMap::new(),
            busy: BTreeMap::new(),
            sockets: BTreeMap::new(),
            sequence: 0,
            bindings: 0,
            counts: Counts::default(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), trace, clock }) }
    }

    pub(super) fn bind(&self, address: SocketAddr) -> u64 {
        let mut state = self.state();
        state.bindings += 1;
        let binding = state.bindings;
        state.sockets.insert(address, Inbox { binding, ..Inbox::default() });
        binding
    }

    /// Lays a fault over links, until it is lifted by its number.
    pub fn lay(&self, number: u64, layer: Layer) {
        let mut state = self.state();
        state.layers.insert(number, layer);
        state.links.clear();
    }

    /// Lifts it.
    pub fn lift(&self, number: u64) {
        let mut state = self.state();
        state.layers.remove(&number);
        state.links.clear();
    }

    /// Whether datagrams can get from one machine to the other and back.
    #[must_use]
    pub fn is_linked(&self, one: IpAddr, other: IpAddr) -> bool {
        let mut state = self.state();
        state.link(one, other).is_some() && state.link(other, one).is_some()
    }

    /// Takes a machine's power away: its sockets are gone, and whatever its tasks still send is lost.
    pub fn power_off(&self, machine: IpAddr) {
        self.state().sockets.retain(|address, _| address.ip() != machine);
    }

    /// What became of the datagrams so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Sends a datagram that no socket of the run sent.
    pub fn inject(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.carry(from, to, bytes);
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(super) fn send(&self, from: SocketAddr, binding: u64, to: SocketAddr, bytes: &[u8]) {
        let bound = self.state().sockets.get(&from).is_some_and(|inbox| inbox.binding == binding);
        if bound {
            self.carry(from, to, bytes);
        }
    }

    fn carry(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.shared.trace.datagram(from, to, bytes);
        let now = self.shared.clock.now();
        let mut state = self.state();
        state.counts.sent += 1;
        let Some(flights) = state.flights(now, from.ip(), to.ip(), bytes) else {
            state.counts.lost += 1;
            return;
        };
        for (at, bytes) in flights {
            if let Some(waker) = state.arrive(at, from, to, bytes) {
                waker.wake();
            }
        }
    }

    /// What is there for the socket at `address`. If nothing is, `waker` is called when something new is on its way.
    pub(super) fn look(&self, address: SocketAddr, binding: u64, waker: &Waker) -> Look {
        let now = self.shared.clock.now();
        let mut state = self.state();
        let Some(inbox) = state.sockets.get_mut(&address).filter(|inbox| inbox.binding == binding) else {
            return Look::Dead;
        };
        let next = inbox.arriving.peek().map(|Reverse(arriving)| arriving.at);
        if next.is_some_and(|at| at <= now)
            && let Some(Reverse(Arriving { from, bytes, .. })) = inbox.arriving.pop()
        {
            return Look::Datagram(from, bytes);
        }
        inbox.waiting = Some((next, waker.clone()));
        Look::Nothing(next)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("nothing panics while it holds this lock")
    }
}

impl State {
    /// The link from one machine to another under all layers; `None` if it is cut.
    fn link(&mut self, from: IpAddr, to: IpAddr) -> Option<Link> {
        if let Some(link) = self.links.get(&(from, to)) {
            return link.clone();
        }
        let mut link = Some(self.fair.clone());
        let concerned = |set: &BTreeSet<IpAddr>, ip| set.is_empty() || set.contains(&ip);
        for layer in self.layers.values().filter(|layer| concerned(&layer.from, from) && concerned(&layer.to, to)) {
            link = match &layer.what {
                Effect::Cut => None,
                Effect::Worse(worse) => link.map(|link| link.and(worse)),
            };
        }
        self.links.insert((from, to), link.clone());
        link
    }

    /// When a datagram arrives and as what, once for each copy; `None` if it is lost.
    fn flights(&mut self, now: Duration, from: IpAddr, to: IpAddr, bytes: &[u8]) -> Option<Vec<(Duration, Bytes)>> {
        let link = self.link(from, to)?;
        if self.rng.random_bool(link.loss) || (link.mtu > 0 && bytes.len() > link.mtu) {
            return None;
        }
        let mut leaves = now;
        if link.bytes_per_second > 0 {
            let busy = self.busy.entry((from, to)).or_default();
            leaves = now.max(*busy) + Duration::from_secs_f64(bytes.len() as f64 / link.bytes_per_second as f64);
            if leaves > now + QUEUE_MAX {
                return None;
            }
            *busy = leaves;
        }
        let copies = if self.rng.random_bool(link.duplication) { 2 } else { 1 };
        self.counts.duplicated += copies - 1;
        let jitter_us = u64::try_from(link.jitter.as_micros()).unwrap_or(u64::MAX);
        let flights = (0..copies).map(|_| {
            let mut at = leaves + link.latency + Duration::from_micros(self.rng.random_range(0..=jitter_us));
            if self.rng.random_bool(link.reordering) {
                self.counts.overtaken += 1;
                at += Duration::from_millis(self.rng.random_range(1..=OVERTAKEN_MAX_MS));
            }
            let mut bytes = bytes.to_vec();
            if self.rng.random_bool(link.corruption) && !bytes.is_empty() {
                self.counts.corrupted += 1;
                let place = self.rng.random_range(0..bytes.len());
                bytes[place] ^= self.rng.random_range(1..=u8::MAX);
            }
            (at, Bytes::from(bytes))
        });
        Some(flights.collect())
    }

    /// Puts a datagram into its addressee's inbox; whom to wake, because it comes before what they wait for.
    fn arrive(&mut self, at: Duration, from: SocketAddr, to: SocketAddr, bytes: Bytes) -> Option<Waker> {
        self.sequence += 1;
        let sequence = self.sequence;
        let Some(inbox) = self.sockets.get_mut(&to).filter(|inbox| inbox.arriving.len() < INBOX_MAX) else {
            self.counts.lost += 1;
            return None;
        };
        inbox.arriving.push(Reverse(Arriving { at, sequence, from, bytes }));
        let (_, waker) = inbox.waiting.take_if(|(until, _)| until.is_none_or(|until| at < until))?;
        Some(waker)
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fabric")
    }
}
