//! Keys and their bytes in RAM: the provider of tests, examples and the simulator.
//!
//! It touches no clock, no disk and no thread, and keeps everything in order, so a simulated cluster of such nodes
//! behaves the same in every run. The knobs that a test turns (losing a key behind the node's back, failing to serve)
//! and what it counts (asks of the origin, copies from peers) are part of it. A [`Memory`] is a handle: clones share
//! the same bytes, so a test keeps one while the node owns the other.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;

use super::{there_is, version_of};
use crate::{
    key::{Key, NodeName},
    provider::{
        Body, BoxError, Capacity, Description, Provider, ProviderError, ServeError, UpdateContext, UpdateError, empty,
        full,
    },
};

/// Longest value that is copied from a peer, in bytes: values live in RAM, and a peer may not fill it.
const VALUE_BYTES_MAX: usize = 64 << 20;

/// Where the bytes of a key come from when no peer has them. Every `Fn(Key) -> impl Future` of the right output is one.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// The bytes of `key`.
    ///
    /// # Errors
    /// What the update then fails with.
    async fn fetch(&self, key: Key) -> Result<Bytes, UpdateError>;
}

#[async_trait]
impl<F, A> Origin for F
where
    F: Fn(Key) -> A + Send + Sync + 'static,
    A: Future<Output = Result<Bytes, UpdateError>> + Send + 'static,
{
    async fn fetch(&self, key: Key) -> Result<Bytes, UpdateError> {
        self(key).await
    }
}

/// A provider in RAM; see the module.
#[derive(Clone)]
pub struct Memory {
    origin: Arc<dyn Origin>,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Memory {
    /// Leaves out what is held, which may be much.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    held: BTreeMap<Key, Bytes>,
    origin_asks: BTreeMap<Key, u64>,
    peer_copies: u64,
    serve_failure: Option<String>,
    /// Bytes that may be held.
    limit: Option<u64>,
}

impl State {
    fn used(&self) -> u64 {
        self.held.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Holds `bytes` for `key`, if there is room for them. Returns what was there before.
    fn hold(&mut self, key: &Key, bytes: Bytes) -> Result<Option<Bytes>, UpdateError> {
        if let Some(limit) = self.limit {
            let replaced = self.held.get(key).map_or(0, Bytes::len) as u64;
            if self.used() - replaced + bytes.len() as u64 > limit {
                return Err(io::Error::from(io::ErrorKind::StorageFull).into());
            }
        }
        Ok(self.held.insert(key.clone(), bytes))
    }
}

impl Default for Memory {
    /// A memory whose origin knows no key.
    fn default() -> Self {
        Self::new(|_: Key| async { Err(UpdateError::NotFound) })
    }
}

impl Memory {
    /// An empty memory that asks `origin` for what no peer has.
    #[must_use]
    pub fn new(origin: impl Origin) -> Self {
        Self { origin: Arc::new(origin), state: Arc::default() }
    }

    /// Puts a key in place as if it had been there before the node started. A node that already runs is not told.
    pub fn insert(&self, key: Key, bytes: impl Into<Bytes>) {
        self.state().held.insert(key, bytes.into());
    }

    /// Takes a key away behind the node's back, like a disk that lost a file; says whether it was there.
    pub fn lose(&self, key: &Key) -> bool {
        self.state().held.remove(key).is_some()
    }

    /// Makes every [`Provider::serve`] and [`Provider::export`] fail with this reason, or, with `None`, work again.
    pub fn fail_serving(&self, reason: Option<&str>) {
        self.state().serve_failure = reason.map(str::to_owned);
    }

    /// Sets the capacity in bytes, or, with `None`, removes the limit. Keys that are held stay.
    pub fn limit(&self, bytes: Option<u64>) {
        self.state().limit = bytes;
    }

    /// The bytes held for `key`.
    #[must_use]
    pub fn bytes(&self, key: &Key) -> Option<Bytes> {
        self.state().held.get(key).cloned()
    }

    /// How many keys are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// How often the origin was asked, whatever it said, for all keys together.
    #[must_use]
    pub fn origin_asks(&self) -> u64 {
        self.state().origin_asks.values().sum()
    }

    /// How often the origin was asked for `key`, whatever it said.
    #[must_use]
    pub fn origin_asks_for(&self, key: &Key) -> u64 {
        self.state().origin_asks.get(key).copied().unwrap_or(0)
    }

    /// How many updates were satisfied by a peer.
    #[must_use]
    pub fn peer_copies(&self) -> u64 {
        self.state().peer_copies
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    async fn fetch_from_origin(&self, key: Key) -> Result<Bytes, UpdateError> {
        *self.state().origin_asks.entry(key.clone()).or_default() += 1;
        self.origin.fetch(key).await
    }

    async fn copy_from_peers(&self, key: &Key, context: &UpdateContext) -> Result<Bytes, UpdateError> {
        let mut reasons = Vec::new();
        for peer in context.peers() {
            match copy(key, peer, context).await {
                Ok(bytes) => {
                    self.state().peer_copies += 1;
                    return Ok(bytes);
                }
                Err(reason) => reasons.push(format!("{peer}: {reason}")),
            }
        }
        Err(UpdateError::Unavailable(format!("no peer could be copied from: {}", reasons.join("; "))))
    }
}

async fn copy(key: &Key, peer: &NodeName, context: &UpdateContext) -> Result<Bytes, BoxError> {
    let response = context.fetch(peer, key, Request::new(empty())).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("answered {}", response.status()).into());
    }
    let (mut body, mut bytes) = (response.into_body(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(&frame?.into_data().unwrap_or_default());
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(format!("more than {VALUE_BYTES_MAX} bytes").into());
        }
    }
    Ok(bytes.freeze())
}

#[async_trait]
impl Provider for Memory {
    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        Ok(self.state().held.contains_key(key))
    }

    /// By fetching it, which counts as an ask.
    async fn is_at_origin(&self, key: &Key) -> Result<Option<bool>, UpdateError> {
        there_is(self.fetch_from_origin(key.clone()).await)
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        stream::unfold(None, move |last: Option<Key>| {
            let state = self.state();
            let after = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = state.held.range::<Key, _>((after, Bound::Unbounded)).next().map(|(key, _)| key.clone());
            std::future::ready(next.map(|key| (Ok(key.clone()), Some(key))))
        })
        .boxed()
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        let bytes = if context.peers().is_empty() {
            self.fetch_from_origin(key.clone()).await?
        } else {
            self.copy_from_peers(key, &context).await?
        };
        let before = self.state().hold(key, bytes.clone())?;
        context.report_changed(before != Some(bytes));
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        self.state().held.remove(key);
        Ok(())
    }

    fn refuse(&self, _key: &Key, request: &http::request::Parts) -> Option<Response<Body>> {
        (!matches!(request.method, Method::GET | Method::HEAD)).then(wrong_method)
    }

    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        let state = self.state();
        if let Some(reason) = &state.serve_failure {
            return Err(ServeError::Failed(reason.as_str().into()));
        }
        let bytes = state.held.get(key).ok_or(ServeError::NotHeld)?.clone();
        match *request.method() {
            Method::GET => Ok(Response::new(full(bytes))),
            Method::HEAD => {
                let length = header::HeaderValue::from(bytes.len());
                let mut response = Response::new(empty());
                response.headers_mut().insert(header::CONTENT_LENGTH, length);
                Ok(response)
            }
            _ => Ok(wrong_method()),
        }
    }

    async fn describe(&self, key: &Key) -> Result<Description, ProviderError> {
        let bytes = self.bytes(key).ok_or_else(|| ProviderError::new("the key is not held here"))?;
        Ok(Description { version: Some(version_of(&bytes)), bytes: Some(bytes.len() as u64), updated_ms: None })
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        let state = self.state();
        Ok(state.limit.map(|total| Capacity { used: state.used(), total }))
    }
}

fn wrong_method() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    response
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;
    use crate::providers::testing::{Peers, alone, key, with_peers};

    fn answering(bytes: &'static str) -> Memory {
        Memory::new(move |_: Key| async move { Ok(Bytes::from_static(bytes.as_bytes())) })
    }

    #[tokio::test]
    async fn the_origin_is_asked_when_there_are_no_peers() {
        let memory = answering("x");
        memory.update(&key("a"), alone()).await.unwrap();
        assert!(memory.has(&key("a")).await.unwrap());
        assert_eq!(memory.bytes(&key("a")).unwrap(), "x");
        assert_eq!((memory.origin_asks(), memory.origin_asks_for(&key("b"))), (1, 0));
    }

    #[tokio::test]
    async fn an_update_says_whether_it_changed_anything() {
        let memory = answering("x");
        for expected in [true, false] {
            let context = alone();
            memory.update(&key("a"), context.clone()).await.unwrap();
            assert_eq!(context.changed(), Some(expected));
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_not_taken_and_what_is_there_stays() {
        let memory = answering("four");
        assert_eq!(memory.capacity().await.unwrap(), None);
        memory.limit(Some(7));
        memory.update(&key("a"), alone()).await.unwrap();
        assert!(matches!(memory.update(&key("b"), alone()).await, Err(UpdateError::NoRoom(_))));
        assert!(!memory.has(&key("b")).await.unwrap());
        memory.update(&key("a"), alone()).await.unwrap();
        assert_eq!(memory.capacity().await.unwrap(), Some(Capacity { used: 4, total: 7 }));
    }

    #[tokio::test]
    async fn a_key_that_the_origin_lacks_leaves_nothing() {
        let memory = Memory::default();
        assert!(matches!(memory.update(&key("a"), alone()).await, Err(UpdateError::NotFound)));
        assert!(!memory.has(&key("a")).await.unwrap());
    }

    #[tokio::test]
    async fn peers_are_tried_in_order_and_the_origin_is_left_alone() {
        let (broken, good) = (Memory::default(), Memory::default());
        good.insert(key("a"), "from a peer");
        broken.fail_serving(Some("disk on fire"));
        let peers = Peers::new([("n1", Arc::new(broken) as Arc<dyn Provider>), ("n2", Arc::new(good))]);
        let memory = answering("from the origin");
        memory.update(&key("a"), with_peers(&["n1", "n2"], &peers)).await.unwrap();
        assert_eq!(memory.bytes(&key("a")).unwrap(), "from a peer");
        assert_eq!((memory.origin_asks(), memory.peer_copies()), (0, 1));
    }

    #[tokio::test]
    async fn when_no_peer_answers_the_update_may_be_tried_again() {
        let memory = answering("x");
        let outcome = memory.update(&key("a"), with_peers(&["gone"], &Peers::new([]))).await;
        assert!(matches!(outcome, Err(UpdateError::Unavailable(_))));
    }

    #[tokio::test]
    async fn get_and_head_are_served_and_nothing_else() {
        let memory = Memory::default();
        memory.insert(key("a"), "hello");
        let ask = |method: Method| Request::builder().method(method).uri("/a").body(empty()).unwrap();
        let got = memory.serve(&key("a"), ask(Method::GET)).await.unwrap();
        assert_eq!(got.into_body().collect().await.unwrap().to_bytes(), "hello");
        let head = memory.serve(&key("a"), ask(Method::HEAD)).await.unwrap();
        assert_eq!(head.headers()[header::CONTENT_LENGTH], "5");
        let put = memory.serve(&key("a"), ask(Method::PUT)).await.unwrap();
        assert_eq!(
            (put.status(), &put.headers()[header::ALLOW]),
            (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD".parse().unwrap())
        );
        assert!(matches!(memory.serve(&key("b"), ask(Method::GET)).await, Err(ServeError::NotHeld)));
    }

    #[tokio::test]
    async fn keys_come_in_order_and_a_lost_key_is_gone() {
        let memory = Memory::default();
        for name in ["b", "a", "c"] {
            memory.insert(key(name), name);
        }
        assert!(memory.lose(&key("b")));
        let keys: Vec<Key> = memory.keys().try_collect().await.unwrap();
        assert_eq!(keys, [key("a"), key("c")]);
    }
}
