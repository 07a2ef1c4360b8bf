//! The network: datagrams that arrive late, twice, out of order, or not at all.
//!
//! ```text
//!   quinn -- try_send --> Fabric: drop? copy? when? --> heap by (time, sequence) --> courier --> inbox -- poll_recv --> quinn
//! ```
//!
//! Everything random is drawn from one generator in the order of sending, and delivered in the order of (time, sequence),
//! so that a run repeats itself as long as the nodes do. Time is tokio's, which is paused and jumps to the next timer; its
//! grain is a millisecond. Faults act at the moment of sending and again at delivery: what is on its way when a link is
//! cut is lost. Queues are bounded and drop what does not fit, as sockets do.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    fmt, io,
    io::IoSliceMut,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::Notify,
    time::{Instant, Sleep},
};

use crate::trace::Trace;

/// Datagrams that wait in one socket; about what a receive buffer of 4 MiB takes.
const INBOX_MAX: usize = 2048;
/// Datagrams on their way, all links together.
const FLYING_MAX: usize = 1 << 18;

/// How links behave, all of them alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Weather {
    /// Shortest way of a datagram.
    pub latency: Duration,
    /// At most this is added, evenly distributed.
    pub jitter: Duration,
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplication: f64,
    /// Largest datagram that gets through, in bytes.
    pub mtu: usize,
}

impl Default for Weather {
    fn default() -> Self {
        let latency = Duration::from_millis(1);
        Self { latency, jitter: Duration::from_millis(1), loss: 0.0, duplication: 0.0, mtu: 9_000 }
    }
}

/// The network of one run. A handle; clones are the same network.
#[derive(Clone)]
pub struct Fabric {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    earlier: Notify,
    trace: Trace,
}

struct State {
    rng: StdRng,
    weather: Weather,
    /// Cut links: from, to.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// Machines without power.
    down: BTreeSet<IpAddr>,
    sockets: BTreeMap<SocketAddr, Inbox>,
    flying: BinaryHeap<Reverse<Flying>>,
    sequence: u64,
    bindings: u64,
    lost: u64,
}

struct Inbox {
    binding: u64,
    waiting: VecDeque<(SocketAddr, Bytes)>,
    waker: Option<Waker>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: Instant,
    sequence: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Bytes,
}

impl Fabric {
    /// A network and its courier, which runs until the runtime ends.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn new(seed: u64, weather: Weather, trace: Trace) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            weather,
            cut: BTreeSet::new(),
            down: BTreeSet::new(),
            sockets: BTreeMap::new(),
            flying: BinaryHeap::new(),
            sequence: 0,
            bindings: 0,
            lost: 0,
        };
        let fabric = Self { shared: Arc::new(Shared { state: Mutex::new(state), earlier: Notify::new(), trace }) };
        tokio::spawn(fabric.clone().carry());
        fabric
    }

    /// Binds a socket, in place of an earlier one at this address.
    #[must_use]
    pub fn bind(&self, address: SocketAddr) -> Arc<dyn AsyncUdpSocket> {
        let mut state = self.state();
        state.bindings += 1;
        let binding = state.bindings;
        state.sockets.insert(address, Inbox { binding, waiting: VecDeque::new(), waker: None });
        Arc::new(FabricSocket { fabric: self.clone(), address, binding })
    }

    /// Changes how links behave from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Cuts the way from one machine to another, not the way back.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.state().cut.insert((from, to));
    }

    /// Mends every link.
    pub fn mend(&self) {
        self.state().cut.clear();
    }

    /// Whether datagrams can get from one machine to the other and back.
    #[must_use]
    pub fn is_linked(&self, one: IpAddr, other: IpAddr) -> bool {
        let state = self.state();
        !state.cut.contains(&(one, other)) && !state.cut.contains(&(other, one))
    }

    /// Takes a machine's power away: its sockets are gone, and whatever its tasks still send is lost.
    pub fn power_off(&self, machine: IpAddr) {
        let mut state = self.state();
        state.down.insert(machine);
        state.sockets.retain(|address, _| address.ip() != machine);
    }

    /// Gives it back.
    pub fn power_on(&self, machine: IpAddr) {
        self.state().down.remove(&machine);
    }

    /// Datagrams that were lost for whatever reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.state().lost
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("nothing panics while it holds this lock")
    }

    fn send(&self, from: SocketAddr, binding: u64, to: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        let mut state = self.state();
        if state.sockets.get(&from).is_none_or(|inbox| inbox.binding != binding) {
            return;
        }
        self.shared.trace.datagram(from, to, bytes);
        let (loss, duplication) = (state.weather.loss, state.weather.duplication);
        let lost = state.rng.random_bool(loss);
        let copies = if state.rng.random_bool(duplication) { 2 } else { 1 };
        let full = state.flying.len() >= FLYING_MAX;
        if lost || full || bytes.len() > state.weather.mtu || !state.passes(from, to) {
            state.lost += 1;
            return;
        }
        let bytes = Bytes::copy_from_slice(bytes);
        for _ in 0..copies {
            let jitter_us = u64::try_from(state.weather.jitter.as_micros()).unwrap_or(u64::MAX);
            let jitter = Duration::from_micros(state.rng.random_range(0..=jitter_us));
            let at = now + state.weather.latency + jitter;
            state.sequence += 1;
            let sequence = state.sequence;
            state.flying.push(Reverse(Flying { at, sequence, from, to, bytes: bytes.clone() }));
        }
        drop(state);
        self.shared.earlier.notify_one();
    }

    async fn carry(self) {
        loop {
            let next = self.deliver();
            let earlier = self.shared.earlier.notified();
            match next {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, earlier).await;
                }
                None => earlier.await,
            }
        }
    }

    /// Delivers what is due; when the next one is.
    fn deliver(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut wakers = Vec::new();
        let mut state = self.state();
        let next = loop {
            let due = state.flying.peek().map(|Reverse(flying)| flying.at);
            match due {
                Some(at) if at <= now => {}
                next => break next,
            }
            let Some(Reverse(Flying { from, to, bytes, .. })) = state.flying.pop() else { break None };
            let passes = state.passes(from, to);
            let inbox = state.sockets.get_mut(&to).filter(|inbox| passes && inbox.waiting.len() < INBOX_MAX);
            let Some(inbox) = inbox else {
                state.lost += 1;
                continue;
            };
            inbox.waiting.push_back((from, bytes));
            wakers.extend(inbox.waker.take());
        };
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        next
    }
}

impl State {
    fn passes(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let (from, to) = (from.ip(), to.ip());
        !self.cut.contains(&(from, to)) && !self.down.contains(&from) && !self.down.contains(&to)
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fabric")
    }
}

#[derive(Debug)]
struct FabricSocket {
    fabric: Fabric,
    address: SocketAddr,
    binding: u64,
}

impl AsyncUdpSocket for FabricSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(segment) {
            self.fabric.send(self.address, self.binding, transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.fabric.state();
        // A socket whose machine lost its power stays silent for ever.
        let Some(inbox) = state.sockets.get_mut(&self.address).filter(|inbox| inbox.binding == self.binding) else {
            return Poll::Pending;
        };
        if inbox.waiting.is_empty() {
            inbox.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((from, bytes)) = inbox.waiting.pop_front() else { break };
            let length = bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            *meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (from, length, length);
            meta.dst_ip = Some(self.address.ip());
            count += 1;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A send never waits: what does not fit is lost.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Timers and tasks of quinn on tokio's clock.
#[derive(Debug)]
pub struct VirtualRuntime;

impl Runtime for VirtualRuntime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(Box::pin(tokio::time::sleep_until(at.into()))))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, _socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "there are no real sockets in a simulation"))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

#[derive(Debug)]
struct Timer(Pin<Box<Sleep>>);

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: std::time::Instant) {
        self.0.as_mut().reset(at.into());
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        ready!(Future::poll(self.0.as_mut(), context));
        Poll::Ready(())
    }
}
