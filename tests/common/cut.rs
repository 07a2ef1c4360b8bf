//! A machine whose links can be cut: datagrams between two addresses are dropped, in one direction or both.

use std::{
    collections::BTreeSet,
    fmt, io,
    io::IoSliceMut,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
};

use datad_gossip::world::{Disk, Machine, Socket, World};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// Which links are cut. Clones share the same cuts.
#[derive(Debug, Clone, Default)]
pub struct Cuts(Arc<Mutex<BTreeSet<(SocketAddr, SocketAddr)>>>);

impl Cuts {
    /// Cuts all links between the two groups, both ways.
    pub fn between(&self, some: &[SocketAddr], others: &[SocketAddr]) {
        let mut cuts = self.0.lock().unwrap();
        for a in some {
            for b in others {
                cuts.insert((*a, *b));
                cuts.insert((*b, *a));
            }
        }
    }

    /// Mends all links.
    pub fn heal(&self) {
        self.0.lock().unwrap().clear();
    }

    fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.0.lock().unwrap().contains(&(from, to))
    }
}

/// The real machine behind links that can be cut, with a clock that can be wrong.
#[derive(Debug, Default)]
pub struct CutWorld {
    machine: Machine,
    cuts: Cuts,
    clock: WallClock,
}

/// A wall clock that can be set wrong, in milliseconds from the right time.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Arc<AtomicI64>);

impl WallClock {
    pub fn set_off_by(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl CutWorld {
    pub fn new(cuts: &Cuts, clock: &WallClock) -> Self {
        Self { machine: Machine::default(), cuts: cuts.clone(), clock: clock.clone() }
    }
}

impl World for CutWorld {
    fn bind(&self, listen: SocketAddr) -> io::Result<Socket> {
        let (inner, runtime) = self.machine.bind(listen)?;
        Ok((Arc::new(CutSocket { inner, cuts: self.cuts.clone() }), runtime))
    }

    fn disk(&self) -> Option<Arc<dyn Disk>> {
        None
    }

    fn unix_ms(&self) -> u64 {
        self.machine.unix_ms().saturating_add_signed(self.clock.0.load(Ordering::Relaxed))
    }

    fn seed(&self) -> u64 {
        self.machine.seed()
    }
}

struct CutSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    cuts: Cuts,
}

impl fmt::Debug for CutSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CutSocket")
    }
}

impl AsyncUdpSocket for CutSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.cuts.is_cut(self.inner.local_addr()?, transmit.destination) {
            return Ok(());
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
