//! The beginning of a response is held back until it is long enough or has taken too long: a holder that dies within a short
//! response then costs the client nothing.

use std::{collections::VecDeque, time::Duration};

use http::Response;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::provider::{self, Body, BoxError, Prefixed, set_aside, whole};

/// How much of a response is held back, and for how long after its head.
const HOLD_BACK_BYTES: usize = 256 << 10;
const HOLD_BACK_TIME: Duration = Duration::from_millis(500);

/// Reads the beginning of a response, so that its failure is still a failed attempt and not a failed response.
pub(super) async fn prebuffer(response: Response<Body>) -> Result<Response<Body>, BoxError> {
    let (head, mut body) = response.into_parts();
    let until = Instant::now() + HOLD_BACK_TIME;
    let mut start = VecDeque::new();
    let mut length = 0;
    while length < HOLD_BACK_BYTES {
        let Ok(frame) = tokio::time::timeout_at(until, body.frame()).await else { break };
        match frame {
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    length += data.len();
                    set_aside(&mut start, data);
                }
            }
            None => return Ok(Response::from_parts(head, whole(start))),
        }
    }
    Ok(Response::from_parts(head, provider::body(Prefixed { start, rest: Some(body) })))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;
    use http_body::Frame;

    use super::*;

    #[tokio::test]
    async fn frames_without_data_are_not_kept() {
        let chunks = [0; 1_000].into_iter().chain([HOLD_BACK_BYTES + 1]);
        let frames = chunks.map(|bytes| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; bytes]))));
        let body = provider::body(http_body_util::StreamBody::new(stream::iter(frames)));
        let mut response = prebuffer(Response::new(body)).await.unwrap().into_body();
        assert!(!response.frame().await.unwrap().unwrap().into_data().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_response_that_breaks_early_is_a_failed_attempt() {
        let parts = [Ok(Frame::data(Bytes::from_static(b"ab"))), Err(std::io::Error::other("gone"))];
        let broken = provider::body(http_body_util::StreamBody::new(stream::iter(parts)));
        assert!(prebuffer(Response::new(broken)).await.is_err());
        let good = prebuffer(Response::new(provider::full("abc"))).await.unwrap();
        assert_eq!(good.into_body().collect().await.unwrap().to_bytes(), "abc");
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_trickles_is_not_held_for_long() {
        let (_keep, body) = http_body_util::channel::Channel::<Bytes, BoxError>::new(1);
        let started = Instant::now();
        prebuffer(Response::new(provider::body(body))).await.unwrap();
        assert_eq!(started.elapsed(), HOLD_BACK_TIME);
    }
}
