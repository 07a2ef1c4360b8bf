//! Bodies whose beginning the node has read already.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::body::{Body, BodyError, body, empty, full};

/// The beginning of a body.
pub(crate) enum Start {
    /// The body has ended.
    Whole(VecDeque<Bytes>),
    /// The body goes on.
    Part(VecDeque<Bytes>),
}

/// Reads `inner` until it ends or has more than `limit` bytes.
pub(crate) async fn start_of(inner: &mut Body, limit: usize) -> Result<Start, BodyError> {
    let (mut start, mut length) = (VecDeque::new(), 0);
    while length <= limit {
        match inner.frame().await {
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    length += data.len();
                    set_aside(&mut start, data);
                }
            }
            None => return Ok(Start::Whole(start)),
        }
    }
    Ok(Start::Part(start))
}

/// Reads about the first `limit` bytes of a body, and returns the same body.
///
/// # Errors
/// The body broke off within `limit`.
pub(crate) async fn read_ahead(mut inner: Body, limit: usize) -> Result<Body, BodyError> {
    Ok(match start_of(&mut inner, limit).await? {
        Start::Whole(start) => whole(start),
        Start::Part(start) => body(Prefixed { start, rest: Some(inner) }),
    })
}

/// Keeps only frames that have a length: no other frame counts towards a limit.
pub(crate) fn set_aside(start: &mut VecDeque<Bytes>, data: Bytes) {
    if !data.is_empty() {
        start.push_back(data);
    }
}

/// What was read ahead, then the rest.
pub(crate) struct Prefixed {
    pub(crate) start: VecDeque<Bytes>,
    pub(crate) rest: Option<Body>,
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.start.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.start.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead: u64 = self.start.iter().map(|data| data.len() as u64).sum();
        let Some(rest) = &self.rest else { return SizeHint::with_exact(ahead) };
        let rest = rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

/// A body that is all there.
pub(crate) fn whole(mut start: VecDeque<Bytes>) -> Body {
    match (start.pop_front(), start.is_empty()) {
        (None, _) => empty(),
        (Some(only), true) => full(only),
        (Some(first), false) => {
            start.push_front(first);
            body(Prefixed { start, rest: None })
        }
    }
}
