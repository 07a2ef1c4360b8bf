//! Objects of plain HTTP servers.
//!
//! `object_store` reads them, too, but wants a length, makes up a date where there is none, and keeps from its caller what
//! a server says of itself when it refuses. So this asks by itself, over the same client; only lists of what a WebDAV
//! server has come from `object_store`.

use std::io;

use futures::{StreamExt, TryStreamExt};
use headers::{ContentLength, ContentRange, HeaderMapExt, LastModified};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyDataStream;
use object_store::client::{HttpClient, HttpRequestBody, HttpResponse};
use url::Url;

use super::{
    connector::refusal_in,
    content::{Content, Representation, Upstream, seconds_of},
};
use crate::{
    key::Key,
    provider::UpdateError,
    providers::{credentials::scrub, later::asks_for_patience},
};

/// A web server, and the folder of it that is the source.
#[derive(Debug, Clone)]
pub(crate) struct Web {
    client: HttpClient,
    base: Url,
}

impl Web {
    pub(crate) fn new(client: HttpClient, base: Url) -> Self {
        Self { client, base }
    }

    /// What the server says of an object without giving it.
    pub(crate) async fn head(&self, path: &Key) -> Result<Upstream, UpdateError> {
        self.describe(path).await.map(|(upstream, _)| upstream)
    }

    /// The same, and how it is represented.
    pub(crate) async fn describe(&self, path: &Key) -> Result<(Upstream, Representation), UpdateError> {
        let response = self.ask(Method::HEAD, path, &HeaderMap::new()).await?;
        let not_for_heads = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
        if not_for_heads.contains(&response.status()) {
            return self.read(path).await.map(|content| (content.upstream, content.representation));
        }
        let fields = found(&response)?.headers();
        Ok((upstream_of(fields), representation_of(fields)))
    }

    pub(crate) async fn read(&self, path: &Key) -> Result<Content, UpdateError> {
        let response = self.ask(Method::GET, path, &HeaderMap::new()).await?;
        let fields = found(&response)?.headers();
        let (upstream, representation) = (upstream_of(fields), representation_of(fields));
        Ok(Content { upstream, representation, bytes: bytes_of(response) })
    }

    /// What is left of an object from `at` on, if it still is the one with this tag.
    pub(crate) async fn read_from(&self, path: &Key, at: u64, tag: &str) -> Result<Content, UpdateError> {
        let tag = HeaderValue::from_str(tag).map_err(broken)?;
        let range = HeaderValue::from_str(&format!("bytes={at}-")).map_err(broken)?;
        let fields = [(header::IF_MATCH, tag.clone()), (header::IF_RANGE, tag.clone()), (header::RANGE, range)];
        let response = self.ask(Method::GET, path, &fields.into_iter().collect()).await?;
        let fields = found(&response)?.headers();
        let begins = fields.typed_get::<ContentRange>().and_then(|range| range.bytes_range());
        let is_rest = response.status() == StatusCode::PARTIAL_CONTENT && begins.is_some_and(|(first, _)| first == at);
        if !is_rest || fields.get(header::ETAG) != Some(&tag) {
            return Err(UpdateError::Unavailable("the origin does not give the rest of what broke off".to_owned()));
        }
        let (upstream, representation) = (upstream_of(fields), representation_of(fields));
        Ok(Content { upstream, representation, bytes: bytes_of(response) })
    }

    async fn ask(&self, method: Method, path: &Key, fields: &HeaderMap) -> Result<HttpResponse, UpdateError> {
        let mut request = Request::new(HttpRequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = self.url(path).as_str().parse().map_err(broken)?;
        *request.headers_mut() = fields.clone();
        self.client.execute(request).await.map_err(|error| refusal_in(&error).unwrap_or_else(|| broken(error)))
    }

    fn url(&self, path: &Key) -> Url {
        let mut url = self.base.clone();
        url.set_query(None);
        url.set_fragment(None);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.components());
        }
        url
    }
}

/// The response, if it is one with an object.
fn found(response: &HttpResponse) -> Result<&HttpResponse, UpdateError> {
    let status = response.status();
    if let Some(later) = asks_for_patience(status, response.headers()) {
        return Err(later);
    }
    match status {
        StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION | StatusCode::PARTIAL_CONTENT => Ok(response),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(UpdateError::NotFound),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
            Err(UpdateError::Forbidden(format!("the origin answered {status}")))
        }
        _ => Err(UpdateError::Unavailable(format!("the origin answered {status}"))),
    }
}

fn upstream_of(fields: &HeaderMap) -> Upstream {
    let text = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let modified = fields.typed_get::<LastModified>().map_or(0, |modified| seconds_of(modified.into()));
    let validator = text(header::ETAG).or_else(|| text(header::LAST_MODIFIED)).unwrap_or_default().to_owned();
    Upstream { size: fields.typed_get::<ContentLength>().map(|length| length.0), modified, validator }
}

fn representation_of(fields: &HeaderMap) -> Representation {
    let text = |name: header::HeaderName| {
        let value = fields.get(&name)?.to_str().ok()?.to_owned();
        Some((name.as_str().to_owned(), value))
    };
    let content_type = text(header::CONTENT_TYPE).map(|(_, value)| value);
    let kept = [header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::CONTENT_DISPOSITION, header::CACHE_CONTROL];
    Representation { content_type, is_exact: true, fields: kept.into_iter().filter_map(text).collect() }
}

fn bytes_of(response: HttpResponse) -> futures::stream::BoxStream<'static, Result<bytes::Bytes, UpdateError>> {
    BodyDataStream::new(response.into_body()).map_err(broken).boxed()
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> UpdateError {
    UpdateError::Unavailable(scrub(&io::Error::other(error).to_string()))
}
