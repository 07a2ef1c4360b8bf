//! The local data is read once after a start, and registered.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use tracing::{error, info, warn};

use crate::{
    key::Key,
    provider::Provider,
    runtime::{Shared, mailbox::Mailbox, ports::registry::Request},
};

/// Keys of the first scan that are claimed in one go, and how long a part of them may wait for company.
const SCAN_BATCH_KEYS: usize = 128;
const SCAN_BATCH_WAIT: Duration = Duration::from_millis(20);
/// A scan that broke off starts again after this.
const SCAN_RETRY: Duration = Duration::from_secs(5);
/// How often a long scan says how far it is.
const SCAN_NEWS: Duration = Duration::from_secs(5);

/// Walks over the local data once and registers it.
pub(crate) async fn scan(shared: Arc<Shared>, provider: Arc<dyn Provider>, registry: Mailbox<Request>) {
    loop {
        shared.disk.scan_found.store(0, Ordering::Release);
        let walk = std::panic::AssertUnwindSafe(walk(&shared, &*provider, &registry)).catch_unwind();
        match walk.await {
            Ok(true) => break,
            Ok(false) => return,
            Err(_) => error!("the provider panicked while listing its keys; trying again in {SCAN_RETRY:?}"),
        }
        tokio::time::sleep(SCAN_RETRY).await;
    }
    registry.scan_ended();
}

/// Whether the walk got to its end; `false` if the registry is gone.
async fn walk(shared: &Shared, provider: &dyn Provider, registry: &Mailbox<Request>) -> bool {
    let batches = tokio_stream::StreamExt::chunks_timeout(provider.keys(), SCAN_BATCH_KEYS, SCAN_BATCH_WAIT);
    let mut batches = std::pin::pin!(batches);
    let (began, mut told) = (shared.context.uptime(), shared.context.uptime());
    while let Some(batch) = batches.next().await {
        let keys: Vec<Key> = batch
            .into_iter()
            .filter_map(|item| item.inspect_err(|error| warn!(%error, "an entry of the local data is unusable")).ok())
            .collect();
        let found = shared.disk.scan_found.fetch_add(keys.len(), Ordering::AcqRel) + keys.len();
        if registry.found(keys).await.is_err() {
            return false;
        }
        let now = shared.context.uptime();
        if now >= told + SCAN_NEWS {
            told = now;
            info!(found, took = ?(now - began), "reading the local data goes on");
        }
    }
    info!(found = shared.disk.scan_found.load(Ordering::Acquire), took = ?(shared.context.uptime() - began), "the local data was read");
    true
}
