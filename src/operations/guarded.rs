//! A body that gives back what it holds when it ends, however it ends.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};

/// A body that keeps `held` until it is dropped.
pub(crate) struct GuardedBody<B, G> {
    inner: B,
    _held: G,
}

impl<B, G> GuardedBody<B, G> {
    pub(crate) fn new(inner: B, held: G) -> Self {
        Self { inner, _held: held }
    }
}

impl<B: http_body::Body + Unpin, G: Unpin> http_body::Body for GuardedBody<B, G> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_held_is_given_back_with_the_body() {
        let held = Arc::new(());
        let body = GuardedBody::new(http_body_util::Full::new(Bytes::from_static(b"abc")), held.clone());
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
