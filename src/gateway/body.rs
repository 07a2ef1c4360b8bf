//! Bodies at the border: one that fails when its sender falls silent.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::provider::BoxError;

/// A body that fails if the next frame takes longer than `patience`. Time in which nobody asks for one does not count.
pub(super) struct Impatient<B> {
    inner: B,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<B> Impatient<B> {
    pub(super) fn new(inner: B, patience: Duration) -> Self {
        Self { inner, patience, waiting: None }
    }
}

impl<B> Body for Impatient<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            this.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = Instant::now() + this.patience;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Some(Err(format!("nothing was received for {:?}", this.patience).into())))
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
    use http_body_util::{BodyExt, Channel};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_falls_silent_fails_and_one_that_goes_on_does_not() {
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
        let mut body = Impatient::new(body, Duration::from_secs(10));
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(9)).await;
            sender.send_data(Bytes::from_static(b"x")).await.unwrap();
            assert!(body.frame().await.unwrap().is_ok());
        }
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("10s"), "{error}");
    }
}
