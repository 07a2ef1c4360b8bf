//! The provider: the local keys of a node, which a program implements to spread them over a
//! cluster.
//!
//! A node owns one [`Provider`]. The node decides *which* keys are held *where* and *when* they are fetched; the
//! provider alone knows *what* a key is. The contract that everything else rests on:
//!
//! - When `update` returns `Ok`, the key is durable on this machine, and `has` says so, also after a crash.
//! - `update` never runs twice at once for the same key. It may run while `serve` serves that key, so replace data
//!   atomically and let readers finish on the old version.
//! - A future that is dropped is cancelled: no key may be left half written.

mod ahead;
mod body;
mod errors;
mod meanwhile;
mod update;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{HeaderName, Request, Response};

pub(crate) use self::{
    ahead::{Prefixed, Start, read_ahead, set_aside, start_of, whole},
    errors::is_shortage,
    update::Progress,
};
pub use self::{
    body::{Body, BodyError, BoxError, body, empty, full},
    errors::{ProviderError, ServeError, UpdateError},
    meanwhile::{Awaited, Meanwhile},
    update::{PeerFetch, UpdateContext, UpdateReason},
};
use crate::key::{Key, KeyError};

/// A field that marks a response which says what it lacks, such as a version that another copy of
/// the key may have. The node then asks the other holders first, and if none has a better response,
/// passes this one on without the field.
pub const SECOND_OPINION: HeaderName = HeaderName::from_static("x-datad-second-opinion");

/// The local keys of one node. All methods take `&self` and may run concurrently; see the module
/// for the rules.
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

    /// The key that a request belongs to. The default uses the path alone. If the origin answers
    /// two requests differently because of their queries, and the provider would answer them alike,
    /// the provider refuses them here.
    ///
    /// # Errors
    /// As [`Provider::key_of`].
    fn key_of_request(&self, uri: &http::Uri) -> Result<Key, KeyError> {
        self.key_of(uri.path())
    }

    /// The key of a repository that its forge calls by one of these URLs or by this path, whatever
    /// the name of its host. Forges report pushes in these terms. The default knows no such key.
    fn key_of_repository(&self, urls: &[&str], path: Option<&str>) -> Option<Key> {
        let _ = (urls, path);
        None
    }

    /// The origin of `key`, from which a node fetches it if no peer has it: a host, for instance.
    /// Updates share the updaters fairly by origin, so that an origin that hangs does not stop the
    /// keys of others. The default is the first component of the key. A provider with one origin
    /// for all keys returns the same text for each.
    fn origin_of(&self, key: &Key) -> String {
        key.components().next().unwrap_or_default().to_owned()
    }

    /// The kind of the keys, in a few words, such as `git`. The kind is the same on all nodes of a
    /// cluster, and differs where a key of one node means nothing to another. Members do not take
    /// in a node whose kind differs from theirs. `None`, the default, goes with every kind.
    fn kind(&self) -> Option<String> {
        None
    }

    /// Whether the operator's rules let the key be fetched, as far as the provider can say without
    /// asking the origin. Nodes refuse pins of keys that the rules exclude.
    ///
    /// # Errors
    /// The rule.
    fn may_fetch(&self, key: &Key) -> Result<(), String> {
        let _ = key;
        Ok(())
    }

    /// As [`Provider::may_fetch`], for a pattern of keys (`*` is any run of characters, `?` any
    /// single one): whether the rules let any key be fetched that matches it. Nodes refuse the pin
    /// of a pattern that the rules exclude.
    ///
    /// # Errors
    /// The rule.
    fn may_fetch_some(&self, pattern: &Key) -> Result<(), String> {
        let _ = pattern;
        Ok(())
    }

    /// The response to a request that is the same whatever `key` holds, such as that the method is
    /// not possible. The node asks for it before it looks for the key, so that a request which is
    /// refused anyway makes no node fetch anything. By default every request needs its key.
    fn refuse(&self, key: &Key, request: &http::request::Parts) -> Option<Response<Body>> {
        let _ = (key, request);
        None
    }

    /// Whether the key is on this machine, complete.
    ///
    /// # Errors
    /// The provider cannot say.
    async fn has(&self, key: &Key) -> Result<bool, ProviderError>;

    /// All keys on this machine, as the provider finds them. The node registers each key while the
    /// stream goes on, so the stream need not be quick, and it must not collect the keys first. The
    /// node logs an item that is an error and passes over it.
    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>>;

    /// Fetches the key, or brings it up to date, and makes it durable. Where
    /// [`UpdateContext::peers`] is not empty, copy from one of those nodes; contact the origin only
    /// when it is empty. Tell [`UpdateContext::report_changed`] whether there was anything new, and
    /// [`UpdateContext::note_progress`] how the update proceeds: the node cancels an update that
    /// makes no progress once no request waits for it.
    ///
    /// Dropping the future cancels the update and must leave the previous state, or none.
    ///
    /// # Errors
    /// Nothing became visible; the variant says what the cluster does next.
    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError>;

    /// Deletes the key from this machine. Removing an absent key is not an error.
    ///
    /// # Errors
    /// The key may still be there; the node asks [`Provider::has`] what to claim.
    async fn remove(&self, key: &Key) -> Result<(), ProviderError>;

    /// Answers a request for something in `key`. A 404 or 500 *response* is an answer, and the node
    /// passes it on as it is. An `Err` means that this node cannot answer for the key at all;
    /// another holder is tried, and this node corrects its claim.
    ///
    /// # Errors
    /// See [`ServeError`].
    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError>;

    /// Answers a HEAD request for something in a key that no node holds, from what the origin says
    /// of it, so that the client need not wait for the whole fetch. `None`, the default: a node has
    /// to fetch the key first. The answer has to be what [`Provider::serve`] would say afterwards,
    /// or less.
    ///
    /// # Errors
    /// The origin does not say; the node then fetches the key.
    async fn preview(&self, key: &Key, request: &http::request::Parts) -> Result<Option<Response<Body>>, UpdateError> {
        let _ = (key, request);
        Ok(None)
    }

    /// What a node can do about a request while a node still fetches its key. `body` is the whole
    /// body of the request. Requests with longer bodies, and requests that may not be repeated,
    /// only wait. By default every request only waits.
    fn meanwhile(&self, key: &Key, request: &http::request::Parts, body: &[u8]) -> Meanwhile {
        let _ = (key, request, body);
        Meanwhile::Wait
    }

    /// Answers a request of the kind [`Meanwhile::Part`] on the node whose [`Provider::update`] of
    /// `key` runs, from the data that the update has brought so far. The call may wait until there
    /// is enough data, and is dropped when the update ends. `None`, the default: the provider has
    /// no answer now; the node asks it again in a moment. The answer has to be what
    /// [`Provider::serve`] would say afterwards.
    ///
    /// # Errors
    /// As [`Provider::serve`]; the request waits for the key then.
    async fn serve_part(&self, key: &Key, request: Request<Bytes>) -> Result<Option<Response<Body>>, ServeError> {
        let _ = (key, request);
        Ok(None)
    }

    /// Begins the response to a request of the kind [`Meanwhile::Begin`], before any node has the
    /// key. The body of the response goes on with that of the awaited one, or says why there is
    /// none.
    ///
    /// # Errors
    /// The response cannot be begun; the node awaits the returned value without it.
    fn begin(&self, key: &Key, request: &Request<Bytes>, awaited: Awaited) -> Result<Response<Body>, Awaited> {
        let _ = (key, request);
        Err(awaited)
    }

    /// Whether the origin has the key now, so that a node could fetch it again. When no node of the
    /// cluster has free disk space, the only copy of an unpinned key may go if the answer is
    /// `Some(true)`. The node asks for a few keys a second at most, and the answer should cost less
    /// than a fetch. `None`, the default: the provider cannot tell, and the copy stays.
    ///
    /// # Errors
    /// The origin cannot be asked; the copy stays. After [`UpdateError::Later`], or errors about
    /// several keys in a row, the node leaves the origin alone for a while.
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

    /// How much disk space there is for keys, as the file system or a quota says. The node asks
    /// every few seconds, and when an update found no space, so the call has to be cheap. A node
    /// that runs out of space takes no new keys until it has some again.
    ///
    /// `None`, the default: the provider cannot tell, and the node never takes itself for full.
    ///
    /// # Errors
    /// The provider cannot say; the last known capacity stands.
    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        Ok(None)
    }

    /// What this machine has of `key`, for operators and for estimates. The call may cost a look at
    /// the disk or a short program, as the node asks for a few keys now and then. By default
    /// nothing is known.
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
    /// A short text that is the same for replicas with the same data, and almost surely differs for
    /// others.
    pub version: Option<String>,
    /// Bytes that it takes on this machine, about.
    pub bytes: Option<u64>,
    /// When it was last brought up to date, changed or not: milliseconds since the Unix epoch, by this machine's clock.
    pub updated_ms: Option<u64>,
}

/// Disk space for keys on one machine. Both numbers count all data that shares the space, other
/// programs' included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Capacity {
    /// Bytes that are in use.
    pub used: u64,
    /// Bytes that can be used, including those in use.
    pub total: u64,
}

impl Capacity {
    /// The share that is used, usually `0.0..=1.0`. A capacity of zero counts as all used.
    #[must_use]
    pub fn share(self) -> f64 {
        if self.total == 0 { 1.0 } else { self.used as f64 / self.total as f64 }
    }
}
