//! The machine below one simulated node: a socket on the fabric, a disk, a wall clock that may be wrong, a generator.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use datad_gossip::world::{Disk, Socket, World};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    disk::SimDisk,
    fabric::Fabric,
    socket::{FabricSocket, VirtualRuntime},
};
use crate::model::Clock;

/// The wall clock at the beginning of every run, in milliseconds since 1970.
const BEGAN_UNIX_MS: u64 = 1_790_000_000_000;

/// How wrong a wall clock is, in milliseconds. A handle; clones are the same clock's.
pub type Skew = Arc<AtomicI64>;

/// One start of one simulated machine.
#[derive(Debug)]
pub struct SimWorld {
    fabric: Fabric,
    disk: SimDisk,
    rng: Mutex<StdRng>,
    clock: Clock,
    skew: Skew,
}

impl SimWorld {
    /// A machine on `fabric`.
    #[must_use]
    pub fn new(fabric: Fabric, disk: SimDisk, seed: u64, clock: Clock, skew: Skew) -> Self {
        Self { fabric, disk, rng: Mutex::new(StdRng::seed_from_u64(seed)), clock, skew }
    }
}

impl World for SimWorld {
    fn bind(&self, listen: SocketAddr) -> io::Result<Socket> {
        Ok((FabricSocket::bind(&self.fabric, listen), Arc::new(VirtualRuntime)))
    }

    fn disk(&self) -> Option<Arc<dyn Disk>> {
        Some(Arc::new(self.disk.clone()))
    }

    fn unix_ms(&self) -> u64 {
        let right = BEGAN_UNIX_MS + u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX);
        right.saturating_add_signed(self.skew.load(Ordering::Relaxed))
    }

    fn seed(&self) -> u64 {
        self.rng.lock().expect("nothing panics while it holds this lock").next_u64()
    }
}
