//! What a node asks of a provider of git repositories.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Method, Request, Response, StatusCode, header};
use url::Url;

use super::{
    backend::Backend,
    bridge::Bridge,
    early,
    path::{self, Wish},
    setup::Git,
    upstream::Errand,
};
use crate::{
    key::{Key, KeyError, NodeName},
    provider::{
        Awaited, Body, Capacity, Description, Meanwhile, Provider, ProviderError, ServeError, UpdateContext,
        UpdateError, full,
    },
    providers::{key_store::KEY_FILE, there_is},
};

#[async_trait]
impl Provider for Git {
    fn key_of(&self, path: &str) -> Result<Key, KeyError> {
        path::key_of(path, &self.template)
    }

    /// The one that the template makes of a URL; else, unless keys name their hosts, that of the path.
    fn key_of_repository(&self, urls: &[&str], path: Option<&str>) -> Option<Key> {
        let named = |name: &str| self.key_of(&format!("/{name}")).ok();
        let by_url = urls.iter().find_map(|url| named(&self.template.name_in(&Url::parse(url).ok()?)?));
        by_url.or_else(|| path.filter(|_| !self.template.host_in_key()).and_then(named))
    }

    /// Keys that begin with a host are others than those that do not. Where either are fetched from may differ from node to
    /// node, as while it is changed.
    fn kind(&self) -> Option<String> {
        Some(if self.template.host_in_key() { "git by host" } else { "git" }.to_owned())
    }

    fn may_fetch(&self, key: &Key) -> Result<(), String> {
        let allowed = self.allow.check(key).map_err(|error| error.to_string());
        let is_one = path::check(key).and_then(|()| self.template.remote(key).map(drop));
        allowed.and(is_one.map_err(|error| error.to_string()))
    }

    fn may_fetch_some(&self, pattern: &Key) -> Result<(), String> {
        self.allow.check_pattern(pattern)
    }

    /// All but fetching by smart HTTP, so that neither a crawler nor a push makes a mirror.
    fn refuse(&self, _key: &Key, request: &http::request::Parts) -> Option<Response<Body>> {
        match path::wish(&request.method, request.uri.path(), request.uri.query()) {
            Wish::Advertisement | Wish::UploadPack => None,
            Wish::LargeFiles => Some(no_large_files()),
            Wish::Refused(status, text) => Some(refusal(status, text)),
        }
    }

    /// The host: of the key if that begins with one, else of the template.
    fn origin_of(&self, key: &Key) -> String {
        let host = key.components().next().filter(|_| self.template.host_in_key());
        host.unwrap_or_default().to_owned()
    }

    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        Ok(self.mirrors.shelf.holds(key, KEY_FILE).await?)
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        self.mirrors.shelf.keys(KEY_FILE)
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        let forbidden = |error: KeyError| UpdateError::Forbidden(error.to_string());
        path::check(key).map_err(forbidden)?;
        let remote = self.template.remote(key).map_err(forbidden)?;
        self.allow.check(key)?;
        let changed = match context.peers() {
            [] => self.fetch(key, remote, &context).await?,
            _ => self.copy(key, &context).await?,
        };
        self.mirrors.shelf.touch(key).await;
        context.report_changed(changed);
        Ok(())
    }

    /// If it has a HEAD, which a repository without commits has not.
    async fn is_at_origin(&self, key: &Key) -> Result<Option<bool>, UpdateError> {
        let forbidden = |error: KeyError| UpdateError::Forbidden(error.to_string());
        path::check(key).map_err(forbidden)?;
        let remote = self.template.remote(key).map_err(forbidden)?;
        self.allow.check(key)?;
        let head = self.reach(key, remote, Errand::Look).await;
        there_is(head.and_then(|is_there| if is_there { Ok(()) } else { Err(UpdateError::NotFound) }))
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        Ok(self.mirrors.shelf.remove(key).await?)
    }

    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.answer(&self.backend, key, request).await
    }

    fn meanwhile(&self, _key: &Key, request: &http::request::Parts, body: &[u8]) -> Meanwhile {
        early::meanwhile(request, body)
    }

    async fn serve_part(&self, key: &Key, request: Request<Bytes>) -> Result<Option<Response<Body>>, ServeError> {
        self.answer_early(key, request).await
    }

    fn begin(&self, _key: &Key, request: &Request<Bytes>, awaited: Awaited) -> Result<Response<Body>, Awaited> {
        early::begin(request, awaited)
    }

    /// With turns of its own: clients do not keep other nodes from copying a mirror, nor the other way round.
    async fn export(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.answer(&self.exports, key, request).await
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        Ok(Some(self.mirrors.shelf.capacity().await?))
    }

    /// The version is what a client would be told: where the references point.
    async fn describe(&self, key: &Key) -> Result<Description, ProviderError> {
        // Looked up first: what is touched while it is described is described anew.
        let updated_ms = self.mirrors.shelf.touched_ms(key).await;
        let describe = async {
            Ok(Description {
                version: Some(self.mirrors.version(key).await.map_err(ProviderError::new)?),
                bytes: Some(self.mirrors.shelf.bytes(key).await?),
                updated_ms,
            })
        };
        self.describing.of(key, updated_ms, describe).await
    }

    /// Fetching only reads, also where it is a POST.
    fn is_idempotent(&self, request: &http::request::Parts) -> bool {
        request.method.is_idempotent()
            || (request.method == Method::POST && request.uri.path().ends_with("/git-upload-pack"))
    }
}

impl Git {
    async fn answer(&self, backend: &Backend, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        let slot = self.mirrors.shelf.slot(key);
        if !self.mirrors.shelf.holds(key, KEY_FILE).await? {
            return Err(ServeError::NotHeld);
        }
        match path::wish(request.method(), request.uri().path(), request.uri().query()) {
            Wish::Advertisement => backend.exchange(&slot, "/info/refs", request).await,
            Wish::UploadPack => backend.exchange(&slot, "/git-upload-pack", request).await,
            Wish::LargeFiles => Ok(no_large_files()),
            Wish::Refused(status, text) => Ok(refusal(status, text)),
        }
    }

    async fn copy(&self, key: &Key, context: &UpdateContext) -> Result<bool, UpdateError> {
        let mut reasons = Vec::new();
        for peer in context.peers() {
            match self.copy_from(peer, key, context).await {
                Ok(changed) => return Ok(changed),
                // No other peer has more room for us.
                Err(UpdateError::NoRoom(reason)) => return Err(UpdateError::NoRoom(reason)),
                Err(error) => reasons.push(format!("{peer}: {error}")),
            }
        }
        Err(UpdateError::Unavailable(format!("no peer could be copied from: {}", reasons.join("; "))))
    }

    async fn copy_from(&self, peer: &NodeName, key: &Key, context: &UpdateContext) -> Result<bool, UpdateError> {
        let bridge = Bridge::open(context, peer, key).await?;
        let remote = bridge.remote()?;
        tokio::select! {
            outcome = self.mirrors.bring(key, &remote, context) => outcome,
            never = bridge.run() => match never {},
        }
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, header::HeaderValue::from_static("POST"));
    }
    response
}

/// What a client of Git LFS shows to its user: an error in the form of its API.
fn no_large_files() -> Response<Body> {
    let text = r#"{"message":"Git LFS is not served by this mirror: set lfs.url to the LFS server of the origin"}"#;
    let mut response = refusal(StatusCode::NOT_IMPLEMENTED, text);
    let json = header::HeaderValue::from_static("application/vnd.git-lfs+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
