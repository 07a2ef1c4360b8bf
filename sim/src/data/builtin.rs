//! The data that runs have unless somebody brings their own: values of an upstream, kept in RAM behind a simulated disk.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use datad_gossip::{
    key::Key,
    provider::{Body, BoxError, Capacity, Provider, ProviderError, ServeError, UpdateContext, UpdateError, empty},
    providers::Memory,
};
use futures::stream::BoxStream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;

use super::{Data, upstream::Upstream};
use crate::{machine::disk::SimDisk, model::Left, script::FaultKind};

/// The data of all machines.
pub struct Builtin {
    upstream: Upstream,
    /// By machine.
    shelves: Vec<Memory>,
    disks: Vec<SimDisk>,
    disk_bytes: u64,
    /// Whether nodes can ask which keys the upstream has.
    vouches: bool,
}

/// Room on a disk of which nothing is said: a terabyte, which no run fills.
const DISK_BYTES: u64 = 1 << 40;

/// An empty shelf with room for so many bytes.
fn shelf(disk_bytes: u64) -> Memory {
    let shelf = Memory::default();
    shelf.limit(Some(disk_bytes));
    shelf
}

impl Builtin {
    /// Empty disks, each with room for so many bytes of values.
    #[must_use]
    pub fn new(upstream: Upstream, disks: Vec<SimDisk>, disk_bytes: Option<u64>) -> Self {
        let disk_bytes = disk_bytes.unwrap_or(DISK_BYTES);
        let shelves = disks.iter().map(|_| shelf(disk_bytes)).collect();
        Self { upstream, shelves, disks, disk_bytes, vouches: false }
    }

    /// The same, with an upstream that nodes can ask which keys it has, if `vouches` says so.
    #[must_use]
    pub fn vouching(self, vouches: bool) -> Self {
        Self { vouches, ..self }
    }

    /// Puts the current value of a key on a machine's disk, as if it had always been there.
    pub fn place(&self, machine: usize, key: &Key) {
        if let Some(bytes) = self.upstream.value(key) {
            self.shelves[machine].insert(key.clone(), bytes);
        }
    }
}

impl Data for Builtin {
    fn keys(&self) -> Vec<Key> {
        self.upstream.keys()
    }

    fn provider(&mut self, machine: usize) -> Arc<dyn Provider> {
        let (shelf, disk) = (self.shelves[machine].clone(), self.disks[machine].clone());
        Arc::new(Shelf { shelf, disk, upstream: self.upstream.clone(), vouches: self.vouches })
    }

    fn holds(&self, machine: usize, key: &Key) -> bool {
        self.shelves[machine].bytes(key).is_some()
    }

    fn was_published(&self, key: &Key, bytes: &Bytes) -> bool {
        self.upstream.was_published(key, bytes)
    }

    fn size(&self, key: &Key) -> u64 {
        self.upstream.value(key).map_or(0, |bytes| bytes.len() as u64)
    }

    fn crash(&mut self, machine: usize, left: Left) {
        // What an update was writing goes with the process; what it reported is synced.
        if left == Left::Nothing {
            self.shelves[machine] = shelf(self.disk_bytes);
        }
    }

    fn fault(&mut self, kind: &FaultKind, begins: bool) -> bool {
        let named =
            |keys: &[String]| -> Vec<Key> { keys.iter().filter_map(|key| Key::new(key.as_str()).ok()).collect() };
        let machine = || kind.machines().first().and_then(|name| name.strip_prefix('n')?.parse::<usize>().ok());
        let by_name = || machine().map(|number| number - 1).filter(|number| *number < self.shelves.len());
        match kind {
            FaultKind::UpstreamSlow { delay } => self.upstream.set_slower(*delay, begins),
            FaultKind::UpstreamDown {} => self.upstream.set_down(begins),
            FaultKind::UpstreamLacks { keys } => self.upstream.set_lacking(&named(keys), begins),
            FaultKind::Change { keys } => named(keys).iter().for_each(|key| self.upstream.change(key)),
            FaultKind::Vanish { keys, .. } => {
                let Some(machine) = by_name() else { return false };
                named(keys).iter().for_each(|key| _ = self.shelves[machine].lose(key));
            }
            FaultKind::Appear { keys, .. } => {
                let Some(machine) = by_name() else { return false };
                named(keys).iter().for_each(|key| self.place(machine, key));
            }
            _ => return false,
        }
        true
    }

    fn may_lack(&self, key: &Key, within: Duration) -> bool {
        self.upstream.lacked(key, within)
    }
}

/// The provider of one start of one node.
struct Shelf {
    shelf: Memory,
    disk: SimDisk,
    upstream: Upstream,
    vouches: bool,
}

#[async_trait]
impl Provider for Shelf {
    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        self.shelf.has(key).await
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        self.shelf.keys()
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        let bytes =
            if context.peers().is_empty() { self.upstream.fetch(key).await? } else { copy(key, &context).await? };
        self.disk.write().await?;
        // The new value is written beside the old one.
        let room = self.shelf.capacity().await.ok().flatten();
        if room.is_some_and(|room| room.used + bytes.len() as u64 > room.total) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC).into());
        }
        context.report_changed(self.shelf.bytes(key).as_ref() != Some(&bytes));
        self.shelf.insert(key.clone(), bytes);
        Ok(())
    }

    async fn is_at_origin(&self, key: &Key) -> Result<Option<bool>, UpdateError> {
        if !self.vouches {
            return Ok(None);
        }
        match self.upstream.fetch(key).await {
            Ok(_) => Ok(Some(true)),
            Err(UpdateError::NotFound) => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        self.shelf.remove(key).await
    }

    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.shelf.serve(key, request).await
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        let room = self.shelf.capacity().await?;
        let full = |room: Capacity| Capacity { used: room.total, ..room };
        Ok(if self.disk.is_full() { room.map(full) } else { room })
    }
}

async fn copy(key: &Key, context: &UpdateContext) -> Result<Bytes, UpdateError> {
    let mut reasons = Vec::new();
    for peer in context.peers() {
        let copied: Result<Bytes, BoxError> = async {
            let response = context.fetch(peer, key, Request::new(empty())).await?;
            if response.status() != StatusCode::OK {
                return Err(response.status().to_string().into());
            }
            let (mut body, mut bytes) = (response.into_body(), BytesMut::new());
            while let Some(frame) = body.frame().await {
                bytes.extend_from_slice(&frame?.into_data().unwrap_or_default());
            }
            Ok(bytes.freeze())
        }
        .await;
        match copied {
            Ok(bytes) => return Ok(bytes),
            Err(error) => reasons.push(format!("{peer}: {error}")),
        }
    }
    Err(UpdateError::Unavailable(format!("no peer could be copied from: {}", reasons.join("; "))))
}
