//! The head of an object that no node holds yet: what the source says of it, without its content.
//!
//! It has to be what a node says that holds the object. What only the content tells, such as a tag where the source has no
//! strong one, is left out.

use headers::{AcceptRanges, ContentLength, HeaderMapExt, LastModified};
use http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};

use super::{
    content::{Representation, Upstream},
    decide::{Answer, decide},
    fetch::content_type,
    manifest::Object,
    setup::Files,
};
use crate::{
    key::Key,
    provider::{Body, UpdateError, empty},
};

/// Preconditions, whose answer may need a tag.
const CONDITIONS: [HeaderName; 4] =
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];

impl Files {
    /// Answers a HEAD from what the source says. `None`: only who holds the object can.
    pub(super) async fn preview_object(
        &self,
        key: &Key,
        request: &Parts,
    ) -> Result<Option<Response<Body>>, UpdateError> {
        self.check(key)?;
        if self.is_prefix(key) || Key::from_path(request.uri.path()).as_ref() != Ok(key) {
            return Ok(None);
        }
        let (upstream, representation) = self.source.describe(key).await?;
        Ok(head_of(key, upstream, representation, request))
    }
}

fn head_of(key: &Key, upstream: Upstream, representation: Representation, request: &Parts) -> Option<Response<Body>> {
    let Upstream { size, modified, validator } = upstream;
    let (is_tagged, content_type) = (validator.starts_with('"'), content_type(key, &representation));
    let is_conditional = CONDITIONS.iter().any(|name| request.headers.contains_key(name));
    if is_conditional && (!is_tagged || size.is_none()) {
        return None;
    }
    let fields = representation.fields;
    // The hash only counts where there is no tag of the source.
    let sha256 = "0".repeat(64);
    let known = Object { size: size.unwrap_or(0), sha256, modified, content_type, validator, fields };
    let validators = known.validators();
    let status = match decide(&request.method, &request.headers, &validators) {
        Answer::NotModified => StatusCode::NOT_MODIFIED,
        Answer::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Answer::Whole | Answer::Part(_) | Answer::RangeNotSatisfiable => StatusCode::OK,
    };
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if is_tagged {
        headers.typed_insert(validators.etag);
    }
    if let Some(modified) = validators.modified {
        headers.typed_insert(LastModified::from(modified));
    }
    headers.typed_insert(AcceptRanges::bytes());
    for (name, value) in &known.fields {
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
    }
    if status == StatusCode::OK {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&known.content_type).ok()?);
        size.into_iter().for_each(|size| headers.typed_insert(ContentLength(size)));
    }
    Some(response)
}
