//! The machine below one simulated node: a socket on the fabric, a disk in memory, virtual clock, seeded generator.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use datad_gossip::world::{Disk, Socket, World};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::fabric::{Fabric, VirtualRuntime};

/// The wall clock at the beginning of every run, in milliseconds since 1970.
const BEGAN_UNIX_MS: u64 = 1_790_000_000_000;

/// Records that outlive the node that wrote them. A handle; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<BTreeMap<String, Bytes>>>);

#[async_trait]
impl Disk for MemoryDisk {
    async fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        Ok(self.0.lock().expect("nothing panics while it holds this lock").get(name).cloned())
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        self.0.lock().expect("nothing panics while it holds this lock").insert(name.to_owned(), bytes);
        Ok(())
    }
}

/// One start of one simulated machine.
#[derive(Debug)]
pub struct SimWorld {
    fabric: Fabric,
    disk: MemoryDisk,
    rng: Mutex<StdRng>,
    began: Instant,
}

impl SimWorld {
    /// A machine on `fabric`; the run began at `began`.
    #[must_use]
    pub fn new(fabric: Fabric, disk: MemoryDisk, seed: u64, began: Instant) -> Self {
        Self { fabric, disk, rng: Mutex::new(StdRng::seed_from_u64(seed)), began }
    }
}

impl World for SimWorld {
    fn bind(&self, listen: SocketAddr) -> io::Result<Socket> {
        Ok((self.fabric.bind(listen), Arc::new(VirtualRuntime)))
    }

    fn disk(&self) -> Option<Arc<dyn Disk>> {
        Some(Arc::new(self.disk.clone()))
    }

    fn unix_ms(&self) -> u64 {
        BEGAN_UNIX_MS + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn seed(&self) -> u64 {
        self.rng.lock().expect("nothing panics while it holds this lock").next_u64()
    }
}
