//! Everything a node takes from the machine below it: sockets, a little disk, the wall clock, randomness.
//!
//! This is the seam at which the deterministic simulator replaces the world. Nothing else in a node may open a socket,
//! read the wall clock or draw from the operating system's generator. Monotonic time is not here: nodes use tokio's,
//! which a paused runtime already controls.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use rand::{SeedableRng, rngs::StdRng};

use crate::durable::{Durable, blocking};

/// Bytes of socket buffer that a node asks of the kernel. Large enough for a burst of a full send
/// window; the kernel may grant less (`net.core.rmem_max`).
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// A bound UDP socket and the runtime that drives it, as quinn wants them.
pub type Socket = (Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>);

/// The machine as a node sees it.
pub trait World: Send + Sync + fmt::Debug + 'static {
    /// Binds the one UDP socket of a node.
    ///
    /// # Errors
    /// The address is taken, or this machine does not have it.
    fn bind(&self, listen: SocketAddr) -> io::Result<Socket>;

    /// Where the node keeps its own small records; `None` for a node that remembers nothing.
    fn disk(&self) -> Option<Arc<dyn Disk>>;

    /// Milliseconds since 1970. The clock may jump; nodes use it only for times that they compare
    /// across machines or restarts.
    fn unix_ms(&self) -> u64;

    /// The address of this machine from which packets to `target` go out. Sends nothing. Nodes that
    /// are reached that way find a node that listens on all interfaces at this address.
    ///
    /// # Errors
    /// No route leads there, or this world does not know it.
    fn source_for(&self, target: SocketAddr) -> io::Result<IpAddr> {
        let _ = target;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A fresh seed for a generator. Each call returns a different one.
    fn seed(&self) -> u64;
}

/// A generator for one purpose, seeded by the world.
pub(crate) fn rng(world: &dyn World) -> StdRng {
    StdRng::seed_from_u64(world.seed())
}

/// A few small named records. Each is replaced as a whole or added to, and is durable when the call
/// returns.
#[async_trait]
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// The record, if it was ever written.
    ///
    /// # Errors
    /// The medium failed.
    async fn read(&self, name: &str) -> io::Result<Option<Bytes>>;

    /// Replaces the record; after a crash it is the old or the new one, never a mixture.
    ///
    /// # Errors
    /// The old record still stands.
    async fn replace(&self, name: &str, bytes: Bytes) -> io::Result<()>;

    /// Adds to the end of the record, which begins empty. After a crash or an error, the record has
    /// all that was there before, and any part of `bytes`. The caller has to recognise a torn end,
    /// and to [replace](Disk::replace) the record before it adds more.
    ///
    /// # Errors
    /// See above.
    async fn append(&self, name: &str, bytes: Bytes) -> io::Result<()>;
}

/// The real machine.
#[derive(Debug, Default)]
pub struct Machine {
    folder: Option<Folder>,
}

impl Machine {
    /// A machine whose node keeps its records in `folder`, which is created when first needed.
    #[must_use]
    pub fn with_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: Some(Folder::new(folder.into(), Durable::default())) }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where they are allowed")]
impl World for Machine {
    fn bind(&self, listen: SocketAddr) -> io::Result<Socket> {
        let socket = UdpSocket::bind(listen)?;
        let options = socket2::SockRef::from(&socket);
        // Best effort: a small buffer costs throughput, not correctness.
        let _ = options.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = options.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        Ok((runtime.wrap_udp_socket(socket)?, runtime))
    }

    fn disk(&self) -> Option<Arc<dyn Disk>> {
        Some(Arc::new(self.folder.clone()?))
    }

    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn source_for(&self, target: SocketAddr) -> io::Result<IpAddr> {
        let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        // Connecting a datagram socket looks the route up, and no more.
        socket.connect(target)?;
        Ok(socket.local_addr()?.ip())
    }

    fn seed(&self) -> u64 {
        rand::random()
    }
}

/// Records as files of one folder. A handle; clones share the folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    durable: Durable,
    /// Held during each operation, because an operation that has begun continues after its caller
    /// is gone.
    busy: Arc<Mutex<()>>,
}

impl Folder {
    pub(crate) fn new(path: PathBuf, durable: Durable) -> Self {
        Self { path, durable, busy: Arc::default() }
    }

    /// Runs `work` on the file of a record, on the blocking pool, after all operations that began
    /// before.
    async fn on<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Durable, &Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (folder, file) = (self.clone(), self.path.join(name));
        blocking(move || {
            // An operation that panicked leaves the same state as a crash.
            let _one_at_a_time = folder.busy.lock().unwrap_or_else(PoisonError::into_inner);
            fs::create_dir_all(&folder.path)?;
            work(&folder.durable, &file)
        })
        .await
    }
}

#[async_trait]
impl Disk for Folder {
    async fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        let read = self.on(name, |_, file| match fs::read(file) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        read.await
    }

    async fn replace(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        self.on(name, move |durable, file| durable.replace(file, &bytes)).await
    }

    async fn append(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        self.on(name, move |durable, file| durable.append(file, &bytes)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_is_what_was_last_written() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Machine::with_folder(folder.path().join("below")).disk().unwrap();
        assert_eq!(disk.read("x").await.unwrap(), None);
        disk.replace("x", Bytes::from_static(b"one")).await.unwrap();
        disk.replace("x", Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(disk.read("x").await.unwrap().unwrap(), "two");
        disk.append("x", Bytes::from_static(b" three")).await.unwrap();
        disk.append("y", Bytes::from_static(b"four")).await.unwrap();
        assert_eq!(disk.read("x").await.unwrap().unwrap(), "two three");
        assert_eq!(disk.read("y").await.unwrap().unwrap(), "four");
    }
}
