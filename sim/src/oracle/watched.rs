//! A provider around the provider of a node, which tells the oracle what the node does.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datad_gossip::{
    key::{Key, KeyError},
    provider::{Awaited, Body, Capacity, Meanwhile, Provider, ProviderError, ServeError, UpdateContext, UpdateError},
};
use futures::stream::BoxStream;
use http::{Request, Response, request::Parts};

use super::Oracle;

impl Oracle {
    /// A provider that does what `inner` does, under this oracle's eyes.
    #[must_use]
    pub fn watch(&self, machine: usize, inner: Arc<dyn Provider>) -> Arc<dyn Provider> {
        Arc::new(Watched { oracle: self.clone(), machine, inner })
    }
}

struct Watched {
    oracle: Oracle,
    machine: usize,
    inner: Arc<dyn Provider>,
}

#[async_trait]
impl Provider for Watched {
    fn key_of(&self, path: &str) -> Result<Key, KeyError> {
        self.inner.key_of(path)
    }

    fn key_of_repository(&self, urls: &[&str], path: Option<&str>) -> Option<Key> {
        self.inner.key_of_repository(urls, path)
    }

    fn kind(&self) -> Option<String> {
        self.inner.kind()
    }

    fn may_fetch(&self, key: &Key) -> Result<(), String> {
        self.inner.may_fetch(key)
    }

    fn may_fetch_some(&self, pattern: &Key) -> Result<(), String> {
        self.inner.may_fetch_some(pattern)
    }

    fn key_of_request(&self, uri: &http::Uri) -> Result<Key, KeyError> {
        self.inner.key_of_request(uri)
    }

    fn origin_of(&self, key: &Key) -> String {
        self.inner.origin_of(key)
    }

    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        self.inner.has(key).await
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        self.inner.keys()
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        let reason = context.reason();
        let guard = self.oracle.begin(self.machine, key, context.peers().is_empty());
        let outcome = self.inner.update(key, context).await;
        self.oracle.ended(guard.id, reason, &outcome);
        outcome
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        self.oracle.removing(self.machine, key);
        self.inner.remove(key).await
    }

    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.inner.serve(key, request).await
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        let capacity = self.inner.capacity().await;
        if let Ok(Some(room)) = capacity {
            self.oracle.truth().told_of_room(self.machine, room);
        }
        capacity
    }

    async fn is_at_origin(&self, key: &Key) -> Result<Option<bool>, UpdateError> {
        let said = self.inner.is_at_origin(key).await;
        if matches!(said, Ok(Some(true))) {
            self.oracle.vouched(self.machine, key);
        }
        said
    }

    async fn preview(&self, key: &Key, request: &Parts) -> Result<Option<Response<Body>>, UpdateError> {
        self.inner.preview(key, request).await
    }

    fn meanwhile(&self, key: &Key, request: &Parts, body: &[u8]) -> Meanwhile {
        self.inner.meanwhile(key, request, body)
    }

    async fn serve_part(&self, key: &Key, request: Request<Bytes>) -> Result<Option<Response<Body>>, ServeError> {
        self.inner.serve_part(key, request).await
    }

    fn begin(&self, key: &Key, request: &Request<Bytes>, awaited: Awaited) -> Result<Response<Body>, Awaited> {
        self.inner.begin(key, request, awaited)
    }

    async fn export(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.inner.export(key, request).await
    }

    fn is_idempotent(&self, request: &Parts) -> bool {
        self.inner.is_idempotent(request)
    }
}
