//! What a node asks of a provider of files.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Method, Request, Response, Uri, request::Parts};

use super::{cache::MANIFEST, setup::Files, source::Source};
use crate::{
    key::{Key, KeyError},
    provider::{
        Body, Capacity, Description, Meanwhile, Provider, ProviderError, ServeError, UpdateContext, UpdateError,
    },
    providers::there_is,
};

#[async_trait]
impl Provider for Files {
    fn key_of(&self, path: &str) -> Result<Key, KeyError> {
        let whole = Key::from_path(path)?;
        let Some(depth) = self.key_depth else { return Ok(whole) };
        Key::new(whole.components().take(depth).collect::<Vec<_>>().join("/"))
    }

    /// A web server may answer a query with something else; keys are paths, so there is no place for both answers.
    fn key_of_request(&self, uri: &Uri) -> Result<Key, KeyError> {
        if self.source.heeds_queries() && uri.query().is_some_and(|query| !query.is_empty()) {
            let reason = "objects of a web server are asked for by their paths; leave out the query, from `?` on";
            return Err(KeyError::Refused(reason.to_owned()));
        }
        self.key_of(uri.path())
    }

    /// All keys come from the one source.
    fn origin_of(&self, _key: &Key) -> String {
        String::new()
    }

    /// What a key holds follows from the key depth. The same source may have another path on each machine.
    fn kind(&self) -> Option<String> {
        Some(self.key_depth.map_or_else(|| "files".to_owned(), |depth| format!("files to depth {depth}")))
    }

    fn may_fetch(&self, key: &Key) -> Result<(), String> {
        self.check(key).map_err(|error| error.to_string())
    }

    fn may_fetch_some(&self, pattern: &Key) -> Result<(), String> {
        self.allow.check_pattern(pattern)
    }

    fn refuse(&self, _key: &Key, request: &http::request::Parts) -> Option<Response<Body>> {
        self.refusal(request)
    }

    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        Ok(self.cache.shelf.holds(key, MANIFEST).await?)
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        self.cache.shelf.keys(MANIFEST)
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        self.check(key)?;
        if context.peers().is_empty() {
            self.fetch_from_source(key, &context).await?;
        } else {
            self.copy_from_peers(key, &context).await?;
        }
        self.cache.shelf.touch(key).await;
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        Ok(self.cache.remove(key).await?)
    }

    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.respond(key, &request.into_parts().0).await
    }

    async fn preview(&self, key: &Key, request: &Parts) -> Result<Option<Response<Body>>, UpdateError> {
        self.preview_object(key, request).await
    }

    /// What is asked for of an object may be here long before the rest, and so may the beginning of all of it; but not of what
    /// is copied from a directory.
    fn meanwhile(&self, _key: &Key, request: &Parts, _body: &[u8]) -> Meanwhile {
        let comes_in_parts = request.method == Method::GET && !matches!(*self.source, Source::Directory { .. });
        if comes_in_parts { Meanwhile::Part { on: false } } else { Meanwhile::Wait }
    }

    async fn serve_part(&self, _key: &Key, request: Request<Bytes>) -> Result<Option<Response<Body>>, ServeError> {
        Ok(self.incoming.answer(&request.into_parts().0).await?)
    }

    async fn is_at_origin(&self, key: &Key) -> Result<Option<bool>, UpdateError> {
        self.check(key)?;
        if self.is_prefix(key) {
            let listed = self.source.list(key).await;
            return there_is(
                listed.and_then(|found| if found.is_empty() { Err(UpdateError::NotFound) } else { Ok(()) }),
            );
        }
        there_is(self.source.head(key).await)
    }

    async fn describe(&self, key: &Key) -> Result<Description, ProviderError> {
        let manifest = self.cache.manifest(key).await?.ok_or_else(|| ProviderError::new("the key is not held here"))?;
        Ok(Description {
            version: Some(manifest.version()),
            bytes: Some(manifest.objects.values().map(|object| object.size).sum()),
            updated_ms: self.cache.shelf.touched_ms(key).await,
        })
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        Ok(Some(self.cache.shelf.capacity().await?))
    }

    async fn export(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        if request.method() != Method::GET {
            return self.respond(key, &request.into_parts().0).await;
        }
        self.export_to_peer(key, request.uri().path()).await
    }
}
