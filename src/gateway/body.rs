//! Bodies at the border: one that fails when its sender stands still.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::progress::BYTES_MIN;
use crate::provider::BoxError;

/// A body that fails if less than [`BYTES_MIN`] come within `patience`, unless it ends. Time in which no frame is asked for
/// does not count.
pub(super) struct IdleTimeoutBody<B> {
    inner: B,
    patience: Duration,
    /// When the time is up in which enough has to come; present while a frame is waited for.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Of that time, what is left while no frame is waited for.
    left: Duration,
    bytes: u64,
}

impl<B> IdleTimeoutBody<B> {
    pub(super) fn new(inner: B, patience: Duration) -> Self {
        Self { inner, patience, waiting: None, left: patience, bytes: 0 }
    }
}

impl<B> Body for IdleTimeoutBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            if let Some(waiting) = this.waiting.take() {
                this.left = waiting.deadline().saturating_duration_since(Instant::now());
            }
            if let Some(Ok(frame)) = &frame {
                this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            if this.bytes >= BYTES_MIN {
                (this.bytes, this.left) = (0, this.patience);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = Instant::now() + this.left;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(waiting.as_mut().poll(context));
        let error = format!("hardly anything was received for {:?}", this.patience);
        Poll::Ready(Some(Err(error.into())))
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
        let mut body = IdleTimeoutBody::new(body, Duration::from_secs(10));
        for _ in 0..3 {
            // No frame is asked for meanwhile.
            tokio::time::advance(Duration::from_secs(99)).await;
            sender.send_data(Bytes::from_static(&[0; BYTES_MIN as usize])).await.unwrap();
            assert!(body.frame().await.unwrap().is_ok());
        }
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("10s"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_which_a_byte_comes_now_and_then_fails() {
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
        let mut body = IdleTimeoutBody::new(body, Duration::from_secs(10));
        let trickle = tokio::spawn(async move {
            while sender.send_data(Bytes::from_static(b"x")).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let began = Instant::now();
        while body.frame().await.unwrap().is_ok() {}
        assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
        trickle.abort();
    }
}
