//! What the node tells an update of one key, and what the update tells the node.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::BodyExt;

use super::body::{Body, BoxError, body};
use crate::key::{Key, NodeName};

/// Why an update runs; also its place in the queue, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum UpdateReason {
    /// A client waits for the key.
    Request,
    /// The key has fewer replicas than it should.
    Repair,
    /// The key is held and may be out of date.
    Refresh,
    /// The ring gave the key to this node.
    Rebalance,
}

/// Sends requests to other nodes on behalf of an update.
#[async_trait]
pub trait PeerFetch: Send + Sync + 'static {
    /// Asks `peer`'s [`Provider::export`](super::Provider::export) about `key`.
    ///
    /// # Errors
    /// The peer cannot be reached, or refuses.
    async fn fetch(&self, peer: &NodeName, key: &Key, request: Request<Body>) -> Result<Response<Body>, BoxError>;
}

/// What the node tells an update.
#[derive(Clone)]
pub struct UpdateContext {
    reason: UpdateReason,
    peers: Vec<NodeName>,
    fetch: Arc<dyn PeerFetch>,
    changed: Arc<OnceLock<bool>>,
    progress: Progress,
}

/// How far an update is. A handle; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Adds `bytes` to the progress.
    pub(crate) fn note(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl UpdateContext {
    /// Nodes make these. The constructor is public for tests of a provider on its own.
    #[must_use]
    pub fn new(reason: UpdateReason, peers: Vec<NodeName>, fetch: Arc<dyn PeerFetch>) -> Self {
        Self { reason, peers, fetch, changed: Arc::default(), progress: Progress::default() }
    }

    /// Why the update runs.
    #[must_use]
    pub fn reason(&self) -> UpdateReason {
        self.reason
    }

    /// The nodes to copy the key from, best first. Empty: fetch it from the origin.
    #[must_use]
    pub fn peers(&self) -> &[NodeName] {
        &self.peers
    }

    /// Says whether the update changes what the node holds, if the provider can tell. The first
    /// call counts. The node refreshes the key more or less often accordingly. A provider need not
    /// call this.
    pub fn report_changed(&self, changed: bool) {
        let _ = self.changed.set(changed);
    }

    /// The first value that this or any clone gave to [`UpdateContext::report_changed`].
    #[must_use]
    pub fn changed(&self) -> Option<bool> {
        self.changed.get().copied()
    }

    pub(crate) fn with_progress(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// Says that the update brought `bytes` more. [`UpdateContext::fetch`] counts its own bytes.
    /// The node may cancel an update that stands still: when no request waits for it any more, or
    /// when its origin has more than its share of the updaters and keys of another origin wait. The
    /// update of a provider that never calls this stands still.
    pub fn note_progress(&self, bytes: u64) {
        self.progress.note(bytes);
    }

    /// All bytes that this or any clone gave to [`UpdateContext::note_progress`] so far.
    #[must_use]
    pub fn progress_bytes(&self) -> u64 {
        self.progress.bytes()
    }

    /// Sends a request to `peer`'s [`Provider::export`](super::Provider::export). The body of the response streams and fails if the peer dies.
    ///
    /// # Errors
    /// The peer cannot be reached, or refuses; try the next one.
    pub async fn fetch(&self, peer: &NodeName, key: &Key, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let progress = self.progress.clone();
        let response = self.fetch.fetch(peer, key, request).await?;
        Ok(response.map(|inner| {
            body(inner.map_frame(move |frame| {
                progress.note(frame.data_ref().map_or(0, |data| data.len() as u64));
                frame
            }))
        }))
    }
}

impl fmt::Debug for UpdateContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateContext")
            .field("reason", &self.reason)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
