//! How fast this node copies from others to restore or to move replicas: all such copies together keep to a rate, so that
//! requests find the network free. What people wait for is not held up.
//!
//! The rate is kept by virtual scheduling (the generic cell rate algorithm of ITU-T I.371): instead of a bucket that is
//! refilled there is one time at which the next byte is due. Holding the reader back holds the sender back as well, by
//! QUIC's flow control. Our own because the crates for it bring a clock of their own, which a simulation cannot.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::provider::{Body, BodyError};

/// How much may come at once after a quiet time.
const BURST: Duration = Duration::from_millis(250);

/// A rate that many copies share.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    next_due: Mutex<Duration>,
}

impl Pace {
    /// So many bytes per second; 0 is no limit.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, next_due: Mutex::default() }
    }

    /// So many bytes came at `now`, on any monotonic clock: how long to wait before taking more.
    pub(crate) fn take(&self, now: Duration, bytes: usize) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut next_due = self.next_due.lock().expect("no panic under this lock");
        *next_due = (*next_due).max(now.saturating_sub(BURST)) + cost;
        next_due.saturating_sub(now)
    }
}

/// A body that is read at the pace.
pub(super) struct Paced {
    body: Body,
    pace: Arc<Pace>,
    origin: Instant,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(body: Body, pace: Arc<Pace>, origin: Instant) -> Self {
        Self { body, pace, origin, wait: None }
    }
}

impl http_body::Body for Paced {
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

    #[test]
    fn copies_share_the_rate_and_a_quiet_time_is_not_saved_up() {
        let pace = Pace::new(1_000);
        let at = Duration::from_secs;
        assert_eq!(pace.take(at(10), 500), Duration::from_millis(250), "a burst is for free");
        assert_eq!(pace.take(at(10), 500), Duration::from_millis(750), "whoever comes next waits for both");
        assert_eq!(pace.take(at(1_000), 1_000), Duration::from_millis(750), "an hour of rest is worth one burst");
        assert_eq!(Pace::new(0).take(at(10), usize::MAX), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_comes_whole_and_at_the_pace() {
        let frames =
            futures::stream::iter((0..10).map(|_| Ok::<_, BodyError>(Frame::data(Bytes::from_static(&[7; 100])))));
        let body = provider::body(http_body_util::StreamBody::new(frames));
        let begin = Instant::now();
        let paced = Paced::new(body, Arc::new(Pace::new(100)), begin);
        assert_eq!(paced.collect().await.unwrap().to_bytes(), vec![7; 1_000]);
        let seconds = begin.elapsed().as_secs_f64();
        assert!((8.0..=10.0).contains(&seconds), "1,000 bytes at 100 a second took {seconds} s");
    }
}
