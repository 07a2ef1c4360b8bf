//! Transports: [`tower::Service`]s through which an embedding program sends its requests.
//!
//! [`KeyTransport`] is bound to one key, whatever the path; [`PathTransport`] derives the key from each request's path.
//! Both are cheap to clone, always ready, stream bodies in both directions, and cancel what they started elsewhere when
//! the future is dropped.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use tower::Service;

use crate::{
    key::{Key, KeyError},
    operations::send::route,
    provider::{self, Body, BoxError},
    route_error::RouteError,
    runtime::{Names, Shared},
};

/// Sends requests to the holders of one key.
#[derive(Clone)]
pub struct KeyTransport {
    shared: Arc<Shared>,
    key: Key,
    prefix: Arc<str>,
}

impl KeyTransport {
    pub(crate) fn new(shared: Arc<Shared>, key: Key) -> Self {
        Self { shared, key, prefix: "".into() }
    }

    /// Prepends `prefix` to the path of every request, for providers that expect their keys below one.
    #[must_use]
    pub fn with_path_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.trim_end_matches('/').into();
        self
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The nodes that a request would ask now. Every request looks anew, so there is nothing to
    /// keep fresh.
    #[must_use]
    pub fn nodes(&self) -> Names {
        self.shared.lookup.ready_holders(&self.key)
    }

    /// Asks every live member for what it has published so far, and returns the nodes that hold the
    /// key then. For callers that cannot wait until a change elsewhere arrives by itself. Cancel
    /// safe.
    pub async fn sync_with_registry(&self) -> Names {
        crate::operations::pull::sync(&self.shared).await;
        self.nodes()
    }
}

impl std::fmt::Debug for KeyTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyTransport").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for KeyTransport
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = RouteError;
    type Future = BoxFuture<'static, Result<Response<Body>, RouteError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), RouteError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { shared, key, prefix } = self.clone();
        Box::pin(async move {
            let mut request = request.map(provider::body);
            if !prefix.is_empty() {
                let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
                *request.uri_mut() = format!("{prefix}{target}")
                    .parse()
                    .map_err(|error: http::uri::InvalidUri| RouteError::Request(error.to_string()))?;
            }
            route(&shared, &key, request).await
        })
    }
}

/// Sends each request to the holders of the key that its path names.
#[derive(Clone)]
pub struct PathTransport {
    shared: Arc<Shared>,
}

/// Why a [`PathTransport`] has no response.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path names no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No node answers for the key.
    #[error(transparent)]
    Route(#[from] RouteError),
}

impl PathTransport {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The key that `path` belongs to, as the provider says; without a provider, the path itself.
    ///
    /// # Errors
    /// The path names no key.
    pub fn key_of(&self, path: &str) -> Result<Key, KeyError> {
        match &self.shared.context.provider {
            Some(provider) => provider.key_of(path),
            None => Key::from_path(path),
        }
    }
}

impl std::fmt::Debug for PathTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PathTransport")
    }
}

impl<B> Service<Request<B>> for PathTransport
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = PathError;
    type Future = BoxFuture<'static, Result<Response<Body>, PathError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), PathError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let key = match &this.shared.context.provider {
                Some(provider) => provider.key_of_request(request.uri())?,
                None => Key::from_path(request.uri().path())?,
            };
            Ok(route(&this.shared, &key, request.map(provider::body)).await?)
        })
    }
}
