//! The local data source: what a user implements to have it spread over a cluster.
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

/// A field with which a provider marks a response that says what it lacks, such as a version that another copy of the key may
/// have: the other holders are asked first, and the response is passed on, without the field, if none has a better one.
pub const SECOND_OPINION: HeaderName = HeaderName::from_static("x-datad-second-opinion");

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
