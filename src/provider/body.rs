//! Streamed bodies, as providers give and take them.

use bytes::Bytes;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streamed body. Make one with [`body`], [`empty`] or [`full`].
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body broke off. The type exists because the compiler cannot see through a bare [`BoxError`]
/// when it checks that a future which holds a body may be sent to another thread.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(pub BoxError);

impl BodyError {
    /// An error that says `reason`.
    pub fn new(reason: impl Into<BoxError>) -> Self {
        Self(reason.into())
    }
}

/// Boxes any body of bytes.
pub fn body<B>(inner: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    inner.map_err(BodyError::new).boxed_unsync()
}

/// The body of no bytes.
#[must_use]
pub fn empty() -> Body {
    body(http_body_util::Empty::new())
}

/// A body that is all there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    body(http_body_util::Full::new(bytes.into()))
}
