//! Request bodies that can be sent twice: those that are short enough to be kept.

use bytes::Bytes;
use http_body::Body as _;

use crate::provider::{self, Body, BodyError, BoxError, Prefixed, Start, start_of};

/// Longest request body that is kept for a second attempt: ample for what a git client says while it negotiates.
const REPLAY_BYTES_MAX: usize = 256 << 10;

/// A request body, for as many attempts as it allows.
pub(super) enum Replay {
    /// All of it.
    Kept(Bytes),
    /// Too long to keep, or not worth it: for one attempt.
    Once(Option<Body>),
}

impl Replay {
    /// Keeps `body` if it is short. Waits until it is there or proves to be long.
    pub(super) async fn new(mut body: Body, keep: bool) -> Result<Self, BoxError> {
        if body.is_end_stream() {
            return Ok(Self::Kept(Bytes::new()));
        }
        if !keep || body.size_hint().lower() > REPLAY_BYTES_MAX as u64 {
            return Ok(Self::Once(Some(body)));
        }
        Ok(match start_of(&mut body, REPLAY_BYTES_MAX).await? {
            Start::Whole(parts) => Self::Kept(parts.into_iter().flatten().collect()),
            Start::Part(start) => Self::Once(Some(provider::body(Prefixed { start, rest: Some(body) }))),
        })
    }

    /// The body for one more attempt, if there can be one.
    pub(super) fn take(&mut self) -> Option<Body> {
        match self {
            Self::Kept(bytes) if bytes.is_empty() => Some(provider::empty()),
            Self::Kept(bytes) => Some(provider::full(bytes.clone())),
            Self::Once(body) => body.take(),
        }
    }

    /// Whether [`Replay::take`] has a body to give.
    pub(super) fn is_there(&self) -> bool {
        matches!(self, Self::Kept(_) | Self::Once(Some(_)))
    }

    /// Takes a body back that was not sent.
    pub(super) fn put_back(&mut self, body: Body) {
        if let Self::Once(gone @ None) = self {
            *gone = Some(body);
        }
    }

    pub(super) fn can_repeat(&self) -> bool {
        matches!(self, Self::Kept(_))
    }

    /// The whole of it, if it is kept.
    pub(super) fn kept(&self) -> Option<&Bytes> {
        match self {
            Self::Kept(bytes) => Some(bytes),
            Self::Once(_) => None,
        }
    }
}

/// All of a request's body, which is short enough to be kept.
///
/// # Errors
/// It breaks off, or is longer.
pub(crate) async fn all_of(mut body: Body) -> Result<Bytes, BodyError> {
    match start_of(&mut body, REPLAY_BYTES_MAX).await? {
        Start::Whole(mut start) => Ok(start.make_contiguous().concat().into()),
        Start::Part(_) => Err(BodyError::new(format!("its body has more than {REPLAY_BYTES_MAX} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body::Frame;
    use http_body_util::BodyExt;

    use super::*;

    async fn text(body: Body) -> String {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_short_request_body_can_be_sent_again_and_a_long_one_once() {
        let mut short = Replay::new(provider::full("abc"), true).await.unwrap();
        for _ in 0..2 {
            assert_eq!(text(short.take().unwrap()).await, "abc");
        }
        let chunks = (0..9).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; 50_000]))));
        let long = provider::body(http_body_util::StreamBody::new(stream::iter(chunks.collect::<Vec<_>>())));
        let mut long = Replay::new(long, true).await.unwrap();
        assert!(!long.can_repeat());
        assert_eq!(text(long.take().unwrap()).await.len(), 450_000);
        assert!(long.take().is_none());
    }

    #[tokio::test]
    async fn frames_without_data_are_not_kept() {
        let chunks = [0; 1_000].into_iter().chain([REPLAY_BYTES_MAX + 1]);
        let frames = chunks.map(|bytes| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; bytes]))));
        let body = provider::body(http_body_util::StreamBody::new(stream::iter(frames)));
        let mut request = Replay::new(body, true).await.unwrap().take().unwrap();
        assert!(!request.frame().await.unwrap().unwrap().into_data().unwrap().is_empty());
    }
}
