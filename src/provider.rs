//! The local data source: what a user implements to have it spread over a cluster.
//!
//! A node owns one [`Provider`]. The node decides *which* keys are held *where* and *when* they are fetched; the
//! provider alone knows *what* a key is. The contract that everything else rests on:
//!
//! - When `update` returns `Ok`, the key is durable on this machine, and `has` says so, also after a crash.
//! - `update` never runs twice at once for the same key. It may run while `serve` serves that key, so replace data
//!   atomically and let readers finish on the old version.
//! - A future that is dropped is cancelled: no key may be left half written.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{HeaderName, Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use crate::key::{Key, KeyError, NodeName};
pub use crate::meanwhile::{Awaited, Meanwhile};

/// A field with which a provider marks a response that says what it lacks, such as a version that another copy of the key may
/// have: the other holders are asked first, and the response is passed on, without the field, if none has a better one.
pub const SECOND_OPINION: HeaderName = HeaderName::from_static("x-datad-second-opinion");

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streamed body. Make one with [`body`], [`empty`] or [`full`].
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body broke off. A type of its own, because the compiler cannot see through a bare [`BoxError`] when it checks that
/// a future which holds a body may be sent to another thread.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(pub BoxError);

impl BodyError {
    /// An error that says `reason`.
    pub fn new(reason: impl Into<BoxError>) -> Self {
        Self(reason.into())
    }
}

/// Boxes any body of bytes.
pub fn body<B>(inner: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    inner.map_err(BodyError::new).boxed_unsync()
}

/// The body of no bytes.
#[must_use]
pub fn empty() -> Body {
    body(http_body_util::Empty::new())
}

/// A body that is all there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    body(http_body_util::Full::new(bytes.into()))
}

/// The local data source of one node. All methods take `&self` and may run concurrently; see the module for the rules.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The key that a request path belongs to. `path` is the raw path of the URI, with its leading slash and its
    /// percent escapes. The default makes every path a key of its own.
    ///
    /// # Errors
    /// The path names no key that this provider could have; the client gets 400 with the reason.
    fn key_of(&self, path: &str) -> Result<Key, KeyError> {
        Key::from_path(path)
    }

    /// The key that a request belongs to. The default goes by its path alone. A provider that would give two requests one
    /// answer which its origin tells apart by their queries refuses them here.
    ///
    /// # Errors
    /// As [`Provider::key_of`].
    fn key_of_request(&self, uri: &http::Uri) -> Result<Key, KeyError> {
        self.key_of(uri.path())
    }

    /// The key of a repository that its forge calls by one of these URLs, or, whatever the name of its host, by this path:
    /// in such words forges tell of pushes. The default knows none.
    fn key_of_repository(&self, urls: &[&str], path: Option<&str>) -> Option<Key> {
        let _ = (urls, path);
        None
    }

    /// Where `key` comes from, if no peer has it: a host, for instance. Updates share the updaters fairly by that, so that an
    /// origin that hangs does not stop the keys of others. The default is the first component of the key; a provider with
    /// one origin for all keys says the same of each.
    fn origin_of(&self, key: &Key) -> String {
        key.components().next().unwrap_or_default().to_owned()
    }

    /// What the keys are, in a few words that are the same on all nodes of a cluster, such as `git`, and differ where a key of
    /// one node means nothing to another. A node that says something else than the members that it meets is not taken in.
    /// `None`, the default, goes with everything.
    fn kind(&self) -> Option<String> {
        None
    }

    /// Whether the operator's rules let the key be fetched, as far as can be said without asking the origin. Pins of keys that
    /// they do not are refused.
    ///
    /// # Errors
    /// The rule.
    fn may_fetch(&self, key: &Key) -> Result<(), String> {
        let _ = key;
        Ok(())
    }

    /// As [`Provider::may_fetch`], of a pattern of keys (`*` is any run of characters, `?` any single one): whether the rules let
    /// any key be fetched that matches it. A pin of one that they do not is refused.
    ///
    /// # Errors
    /// The rule.
    fn may_fetch_some(&self, pattern: &Key) -> Result<(), String> {
        let _ = pattern;
        Ok(())
    }

    /// The answer to a request that is the same whatever `key` holds, such as that the method is not possible. It is given
    /// before the key is looked for, so that a request which is refused anyway makes no node fetch anything. By default there
    /// is none, and every request needs its key.
    fn refuse(&self, key: &Key, request: &http::request::Parts) -> Option<Response<Body>> {
        let _ = (key, request);
        None
    }

    /// Whether the key is on this machine, complete.
    ///
    /// # Errors
    /// The source cannot say.
    async fn has(&self, key: &Key) -> Result<bool, ProviderError>;

    /// All keys on this machine, as they are found. Registered one by one while the stream goes on, so it need not be
    /// quick, and it must not collect first. An item that is an error is logged and passed over.
    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>>;

    /// Fetches the key, or brings it up to date, and makes it durable. Where [`UpdateContext::peers`] is not empty, copy
    /// from one of those nodes; contact the origin only when it is empty. [`UpdateContext::report_changed`] takes word of
    /// whether there was anything new, [`UpdateContext::note_progress`] of how it goes: an update that no request waits for
    /// any more is cancelled if it does not get on.
    ///
    /// Dropping the future cancels the update and must leave the previous state, or none.
    ///
    /// # Errors
    /// Nothing became visible; the variant says what the cluster does next.
    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError>;

    /// Deletes the key from this machine. Removing a key that is not there is no error.
    ///
    /// # Errors
    /// The key may still be there; the node asks [`Provider::has`] what to claim.
    async fn remove(&self, key: &Key) -> Result<(), ProviderError>;

    /// Answers a request for something in `key`. A 404 or 500 *response* is an answer and is passed on as it is. An
    /// `Err` means that this node cannot answer for the key at all; another holder is tried, and this node corrects
    /// its claim.
    ///
    /// # Errors
    /// See [`ServeError`].
    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError>;

    /// Answers a HEAD request for something in a key that no node holds, from what the origin says of it, so that nobody waits
    /// for the whole to be fetched. `None`, the default: it has to be fetched first. What is answered has to be what
    /// [`Provider::serve`] would say afterwards, or less.
    ///
    /// # Errors
    /// The origin does not say; the key is fetched then.
    async fn preview(&self, key: &Key, request: &http::request::Parts) -> Result<Option<Response<Body>>, UpdateError> {
        let _ = (key, request);
        Ok(None)
    }

    /// What can be done about a request while a node still fetches the key that it is for. `body` is all of its body; longer
    /// ones, and requests that may not be repeated, just wait. So does every request by default.
    fn meanwhile(&self, key: &Key, request: &http::request::Parts, body: &[u8]) -> Meanwhile {
        let _ = (key, request, body);
        Meanwhile::Wait
    }

    /// Answers a request of the kind [`Meanwhile::Part`] on the node whose [`Provider::update`] of `key` runs, from what that
    /// has brought so far. It may wait until there is enough, and is dropped when the update ends. `None`, the default: it has
    /// no answer now; it is asked again in a moment. What is answered has to be what [`Provider::serve`] would say afterwards.
    ///
    /// # Errors
    /// As [`Provider::serve`]; the request waits for the key then.
    async fn serve_part(&self, key: &Key, request: Request<Bytes>) -> Result<Option<Response<Body>>, ServeError> {
        let _ = (key, request);
        Ok(None)
    }

    /// Begins the response to a request of the kind [`Meanwhile::Begin`], before any node has the key. Its body goes on with
    /// that of the awaited one, or says why there is none.
    ///
    /// # Errors
    /// It cannot be begun; what is given back is awaited without.
    fn begin(&self, key: &Key, request: &Request<Bytes>, awaited: Awaited) -> Result<Response<Body>, Awaited> {
        let _ = (key, request);
        Err(awaited)
    }

    /// Whether the origin has the key now, so that it could be fetched again. When no node of the cluster has room, the only copy
    /// of a key that nobody pinned may go if the answer is `Some(true)`. It is asked for a few keys a second at most, and should
    /// cost less than a fetch. `None`, the default: there is no telling, and the copy stays.
    ///
    /// # Errors
    /// The origin cannot be asked; the copy stays. After [`UpdateError::Later`], or errors about several keys in a row, the origin
    /// is left alone for a while.
    async fn is_at_origin(&self, key: &Key) -> Result<Option<bool>, UpdateError> {
        let _ = key;
        Ok(None)
    }

    /// Answers another node that copies the key in its own [`Provider::update`], through [`UpdateContext::fetch`].
    /// Unlike [`Provider::serve`] it is never reached by clients, so paths may be of the provider's own making.
    ///
    /// # Errors
    /// As [`Provider::serve`].
    async fn export(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.serve(key, request).await
    }

    /// How much room there is for keys, as the file system or a quota says. Asked every few seconds, and when an update
    /// found no room, so it has to be cheap. A node that runs out of room takes no new keys until it has some again.
    ///
    /// `None`, the default: there is no telling, and the node never takes itself for full.
    ///
    /// # Errors
    /// The source cannot say; what was known before stands.
    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        Ok(None)
    }

    /// What there is of `key` on this machine, for people and for estimates: it may cost a look at the disk or a short
    /// program, as it is asked for a few keys now and then. Nothing is known by default.
    ///
    /// # Errors
    /// The key is not here, or cannot be read.
    async fn describe(&self, key: &Key) -> Result<Description, ProviderError> {
        let _ = key;
        Ok(Description::default())
    }

    /// Whether a request may be sent a second time to another node without harm. By default, what its method says
    /// (RFC 9110, section 9.2.2).
    fn is_idempotent(&self, request: &http::request::Parts) -> bool {
        request.method.is_idempotent()
    }
}

/// What a machine has of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Description {
    /// Something short that replicas with the same data have in common, and others almost surely not.
    pub version: Option<String>,
    /// Bytes that it takes on this machine, about.
    pub bytes: Option<u64>,
    /// When it was last brought up to date, changed or not: milliseconds since the Unix epoch, by this machine's clock.
    pub updated_ms: Option<u64>,
}

/// Room for keys on one machine. Both numbers count whatever shares that room, the data of others included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Capacity {
    /// Bytes that are taken.
    pub used: u64,
    /// Bytes that can be taken, the used ones among them.
    pub total: u64,
}

impl Capacity {
    /// The share that is used, usually `0.0..=1.0`. No room at all is all used.
    #[must_use]
    pub fn share(self) -> f64 {
        if self.total == 0 { 1.0 } else { self.used as f64 / self.total as f64 }
    }
}

/// The local data source failed. A retry may help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProviderError(pub BoxError);

impl ProviderError {
    /// An error that says `reason`.
    pub fn new(reason: impl Into<BoxError>) -> Self {
        Self(reason.into())
    }
}

impl From<std::io::Error> for ProviderError {
    fn from(error: std::io::Error) -> Self {
        Self(error.into())
    }
}

/// Why a node cannot answer for a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The key is not on this machine. The node withdraws its claim.
    #[error("the key is not held here")]
    NotHeld,
    /// The data cannot be read. The node marks its claim as failed and repairs it later.
    #[error("the data source failed: {0}")]
    Failed(BoxError),
    /// This machine has no descriptors, processes, memory or turns to spare. Says nothing about the key: another holder is
    /// asked, and the claim stands. Clients get 503.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// What is lacking.
        reason: String,
        /// When to ask again.
        retry_after: std::time::Duration,
    },
}

impl ServeError {
    /// This machine lacks something for the moment.
    pub(crate) fn shortage(reason: impl ToString) -> Self {
        Self::Overloaded { reason: reason.to_string(), retry_after: std::time::Duration::from_secs(1) }
    }
}

impl From<std::io::Error> for ServeError {
    fn from(error: std::io::Error) -> Self {
        if is_shortage(&error) { Self::shortage(error) } else { Self::Failed(error.into()) }
    }
}

/// Whether this machine lacks open files, processes or memory. That passes, and says nothing about what was to be done.
pub(crate) fn is_shortage(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOBUFS];
    error.raw_os_error().is_some_and(|number| shortages.iter().any(|shortage| shortage.raw_os_error() == number))
}

/// Why an update did not happen. Whatever the variant, the previous state of the key still stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The origin says that there is no such key: 404 for everyone, and remembered for a while.
    #[error("the origin has no such key")]
    NotFound,
    /// The operator's rules do not let this key be fetched: 403. Asking again does not help.
    #[error("this key may not be fetched: {0}")]
    Forbidden(String),
    /// The origin has too much to do, or this caller has asked too often, and it says when to come back: 503 with that time,
    /// and the origin is not asked for the key before, for at most an hour.
    #[error("{reason}; to be asked again after {after:?}")]
    Later {
        /// What the origin said.
        reason: String,
        /// When to ask it again.
        after: std::time::Duration,
    },
    /// The origin or peer could not be reached or broke off: 502, retried with back-off.
    #[error("{0}")]
    Unavailable(String),
    /// There is no room for it on this machine: 502, retried with back-off. The node looks at its
    /// [capacity](Provider::capacity) at once, and if it is full, another node fetches the key.
    #[error("{0}")]
    NoRoom(String),
    /// Anything else: 502, retried with back-off.
    #[error("{0}")]
    Failed(String),
}

impl From<std::io::Error> for UpdateError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::NoRoom(error.to_string()),
            _ if is_shortage(&error) => Self::Unavailable(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Why an update runs; also its place in the queue, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum UpdateReason {
    /// Somebody waits for the key.
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
    /// Asks `peer`'s [`Provider::export`] about `key`.
    ///
    /// # Errors
    /// The peer cannot be reached, or refuses.
    async fn fetch(&self, peer: &NodeName, key: &Key, request: Request<Body>) -> Result<Response<Body>, BoxError>;
}

/// What an update is told.
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
    /// So many bytes more.
    pub(crate) fn note(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl UpdateContext {
    /// Nodes make these; public for those who test a provider on its own.
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

    /// Says whether the update changes what is held, if the provider can tell; the first word counts. How often a key is
    /// refreshed follows it. Saying nothing is fine.
    pub fn report_changed(&self, changed: bool) {
        let _ = self.changed.set(changed);
    }

    /// What [`UpdateContext::report_changed`] was told, by this or any clone.
    #[must_use]
    pub fn changed(&self) -> Option<bool> {
        self.changed.get().copied()
    }

    pub(crate) fn with_progress(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// Says that the update got so many bytes further. What [`UpdateContext::fetch`] brings is counted without it. An
    /// update that stands still may be cancelled: when no request waits for it any more, or when its origin has more than
    /// its share of the updaters and keys of another one wait. A provider that never says anything stands still.
    pub fn note_progress(&self, bytes: u64) {
        self.progress.note(bytes);
    }

    /// The bytes that [`UpdateContext::note_progress`] was told of so far, by this or any clone.
    #[must_use]
    pub fn progress_bytes(&self) -> u64 {
        self.progress.bytes()
    }

    /// Sends a request to `peer`'s [`Provider::export`]. The body of the response streams and fails if the peer dies.
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

#[cfg(test)]
mod tests {
    use std::io::Error;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_lack_of_resources_is_no_damage_of_a_key() {
        for shortage in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN] {
            assert!(matches!(ServeError::from(Error::from(shortage)), ServeError::Overloaded { .. }), "{shortage}");
            assert!(matches!(UpdateError::from(Error::from(shortage)), UpdateError::Unavailable(_)), "{shortage}");
        }
        assert!(matches!(ServeError::from(Error::from(Errno::IO)), ServeError::Failed(_)));
        assert!(matches!(UpdateError::from(Error::from(Errno::IO)), UpdateError::Failed(_)));
        assert!(matches!(UpdateError::from(Error::from(Errno::NOSPC)), UpdateError::NoRoom(_)));
    }
}
