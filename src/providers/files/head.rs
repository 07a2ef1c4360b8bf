//! The head of a response, from what is known of an object. Pure.

use std::{io, ops::Range};

use headers::{AcceptRanges, ContentLength, ContentRange, HeaderMapExt, LastModified};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use super::{
    decide::{Answer, decide},
    manifest::Object,
};
use crate::provider::{Body, empty, full};

/// The response to `request` apart from its body, and which part of the object that is, if it has one.
pub(super) fn head_of(request: &Parts, object: &Object) -> io::Result<(Response<Body>, Option<Range<u64>>)> {
    let known = object.validators();
    let decision = decide(&request.method, &request.headers, &known);
    let (status, range) = match decision {
        Answer::Whole => (StatusCode::OK, 0..object.size),
        Answer::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Answer::NotModified => (StatusCode::NOT_MODIFIED, 0..0),
        Answer::PreconditionFailed => return Ok((plain(StatusCode::PRECONDITION_FAILED, ""), None)),
        Answer::RangeNotSatisfiable => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "");
            response.headers_mut().typed_insert(ContentRange::unsatisfied_bytes(object.size));
            return Ok((response, None));
        }
    };
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.typed_insert(known.etag);
    if let Some(modified) = known.modified {
        headers.typed_insert(LastModified::from(modified));
    }
    for (name, value) in &object.fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        headers.insert(name, HeaderValue::from_str(value).map_err(io::Error::other)?);
    }
    headers.typed_insert(AcceptRanges::bytes());
    if status == StatusCode::NOT_MODIFIED {
        return Ok((response, None));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&object.content_type).map_err(io::Error::other)?);
    headers.typed_insert(ContentLength(range.end - range.start));
    if status == StatusCode::PARTIAL_CONTENT {
        headers.typed_insert(ContentRange::bytes(range.clone(), object.size).map_err(io::Error::other)?);
    }
    Ok((response, (request.method == Method::GET).then_some(range)))
}

/// A response without an object, and the words that say why.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
