//! A body that is read no faster than a rate that many bodies share.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::{
    core::router::CopyRateLimiter,
    provider::{Body, BodyError},
};

/// A body that is read at the pace.
pub(super) struct RateLimitedBody {
    body: Body,
    pace: Arc<CopyRateLimiter>,
    origin: Instant,
    wait: Option<Pin<Box<Sleep>>>,
}

impl RateLimitedBody {
    pub(super) fn new(body: Body, pace: Arc<CopyRateLimiter>, origin: Instant) -> Self {
        Self { body, pace, origin, wait: None }
    }
}

impl http_body::Body for RateLimitedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let wait = self.pace.take(self.origin.elapsed(), bytes);
            if !wait.is_zero() {
                self.wait = Some(Box::pin(tokio::time::sleep(wait)));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::provider;

    #[tokio::test(start_paused = true)]
    async fn a_body_comes_whole_and_at_the_pace() {
        let frames =
            futures::stream::iter((0..10).map(|_| Ok::<_, BodyError>(Frame::data(Bytes::from_static(&[7; 100])))));
        let body = provider::body(http_body_util::StreamBody::new(frames));
        let begin = Instant::now();
        let paced = RateLimitedBody::new(body, Arc::new(CopyRateLimiter::new(100)), begin);
        assert_eq!(paced.collect().await.unwrap().to_bytes(), vec![7; 1_000]);
        let seconds = begin.elapsed().as_secs_f64();
        assert!((8.0..=10.0).contains(&seconds), "1,000 bytes at 100 a second took {seconds} s");
    }
}
