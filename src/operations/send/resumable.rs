//! Responses that survive their holder: one that breaks off goes on from another holder where both have the same bytes, which
//! a strong ETag says (RFC 9110, sections 8.8.3 and 14.2).

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use headers::{ContentLength, ContentRange, ETag, HeaderMapExt};
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body::{Frame, SizeHint};

use super::lookout::Lookout;
use crate::provider::{self, Body, BodyError, BoxError};

/// How often one response is taken up again.
const RESUMES_MAX: u8 = 3;

/// Asks another holder for the rest of a response.
pub(super) type Refetch = Box<dyn FnMut(Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BoxError>> + Send>;

/// A response to GET whose rest can be had elsewhere.
pub(super) struct Resumable {
    body: Body,
    request: Parts,
    etag: ETag,
    /// Position of the next byte and of the end, in the whole representation.
    next: u64,
    end: u64,
    resumes_left: u8,
    refetch: Refetch,
    resuming: Option<BoxFuture<'static, Result<Response<Body>, BoxError>>>,
    /// Of a response that another node sends.
    lookout: Option<Lookout>,
}

impl Resumable {
    /// Wraps `response` if it can be resumed: GET, a known length, a strong validator, no encoding on the way.
    pub(super) fn wrap(
        request: &Parts,
        response: Response<Body>,
        refetch: Refetch,
        lookout: Option<Lookout>,
    ) -> Response<Body> {
        let Some((etag, next, end)) = Self::window(request, &response) else { return response };
        let (head, body) = response.into_parts();
        let request = request.clone();
        let (resumes_left, resuming) = (RESUMES_MAX, None);
        let resumable = Self { body, request, etag, next, end, resumes_left, refetch, resuming, lookout };
        Response::from_parts(head, provider::body(resumable))
    }

    fn window(request: &Parts, response: &Response<Body>) -> Option<(ETag, u64, u64)> {
        let headers = response.headers();
        let etag_text = headers.get(header::ETAG)?.to_str().ok()?;
        if request.method != Method::GET
            || etag_text.starts_with("W/")
            || headers.contains_key(header::CONTENT_ENCODING)
        {
            return None;
        }
        let etag = headers.typed_get::<ETag>()?;
        match response.status() {
            StatusCode::OK => Some((etag, 0, headers.typed_get::<ContentLength>()?.0)),
            StatusCode::PARTIAL_CONTENT => {
                let (first, last) = headers.typed_get::<ContentRange>()?.bytes_range()?;
                Some((etag, first, last.checked_add(1)?))
            }
            _ => None,
        }
    }

    fn resume(&mut self) {
        self.resumes_left -= 1;
        self.lookout = None;
        let mut parts = self.request.clone();
        for condition in
            [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE]
        {
            parts.headers.remove(condition);
        }
        let range = format!("bytes={}-{}", self.next, self.end - 1);
        parts.headers.insert(header::RANGE, range.parse().expect("digits are a header value"));
        parts.headers.typed_insert(headers::IfRange::etag(self.etag.clone()));
        self.resuming = Some((self.refetch)(Request::from_parts(parts, provider::empty())));
    }

    /// Whether `response` is exactly the rest that was asked for.
    fn continues(&self, response: &Response<Body>) -> bool {
        let headers = response.headers();
        response.status() == StatusCode::PARTIAL_CONTENT
            && headers.typed_get::<ETag>().as_ref() == Some(&self.etag)
            && headers.typed_get::<ContentRange>().and_then(|range| range.bytes_range())
                == Some((self.next, self.end - 1))
    }
}

impl http_body::Body for Resumable {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(resuming) = &mut self.resuming {
                let response = ready!(resuming.as_mut().poll(context));
                self.resuming = None;
                match response {
                    // The sender of the rest is not watched: the number of resumptions is limited
                    // anyway.
                    Ok(response) if self.continues(&response) => self.body = response.into_body(),
                    Ok(_) => return Poll::Ready(Some(Err(BodyError::new("no other holder has the same bytes")))),
                    Err(error) => return Poll::Ready(Some(Err(BodyError(error)))),
                }
            }
            let this = &mut *self;
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
                let may_resume = this.resumes_left > 0 && this.next < this.end;
                let Some(lookout) = this.lookout.as_mut().filter(|_| may_resume) else { return Poll::Pending };
                ready!(lookout.poll_lost(context));
                tracing::info!(
                    at = this.next,
                    of = this.end,
                    "the sender of a response does not answer; going on from another holder"
                );
                self.resume();
                continue;
            };
            if let Some(lookout) = &mut this.lookout {
                lookout.reset();
            }
            match frame {
                Some(Ok(frame)) => {
                    self.next += frame.data_ref().map_or(0, |data| data.len() as u64);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Err(error)) if self.resumes_left > 0 && self.next < self.end => {
                    tracing::info!(%error, at = self.next, of = self.end, "a response broke off; going on from another holder");
                    self.resume();
                }
                other => return Poll::Ready(other),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.resuming.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.next))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::{FutureExt, stream};
    use http_body_util::BodyExt;
    use tokio::time::Instant;

    use super::*;
    use crate::operations::send::lookout::testing::{PAUSES, answering};

    fn broken_after(parts: &[&'static str]) -> Body {
        let good = parts.iter().map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
        let bad = std::iter::once(Err(std::io::Error::other("gone")));
        provider::body(http_body_util::StreamBody::new(stream::iter(good.chain(bad).collect::<Vec<_>>())))
    }

    async fn text(body: Body) -> String {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    fn resumed(first: Response<Body>, second: Response<Body>) -> (Body, Arc<Mutex<Vec<String>>>) {
        looked_after(first, second, None)
    }

    fn looked_after(
        first: Response<Body>,
        second: Response<Body>,
        lookout: Option<Lookout>,
    ) -> (Body, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, mut second) = (asked.clone(), Some(second));
        let refetch: Refetch = Box::new(move |request| {
            log.lock().unwrap().push(request.headers()[header::RANGE].to_str().unwrap().to_owned());
            let answer = second.take().ok_or_else(|| "nobody left".into());
            async move { answer }.boxed()
        });
        let (request, ()) = Request::get("/x").body(()).unwrap().into_parts();
        (Resumable::wrap(&request, first, refetch, lookout).into_body(), asked)
    }

    fn part(etag: &str, range: &str, body: Body) -> Response<Body> {
        let builder = Response::builder().status(206).header("etag", etag).header("content-range", range);
        builder.body(body).unwrap()
    }

    fn whole_of_six(body: Body) -> Response<Body> {
        Response::builder().header("etag", "\"v\"").header("content-length", "6").body(body).unwrap()
    }

    #[tokio::test]
    async fn a_broken_response_goes_on_where_it_stopped() {
        let (body, asked) =
            resumed(whole_of_six(broken_after(&["ab", "c"])), part("\"v\"", "bytes 3-5/6", provider::full("def")));
        assert_eq!(text(body).await, "abcdef");
        assert_eq!(*asked.lock().unwrap(), ["bytes=3-5"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_whose_sender_falls_silent_goes_on_elsewhere_and_one_that_is_slow_does_not() {
        let [first, looks] = PAUSES;
        for (answers, patience) in [(0, first), (20, first + 20 * looks)] {
            let (mut sender, body) = http_body_util::channel::Channel::<Bytes, BoxError>::new(1);
            let rest = part("\"v\"", "bytes 3-5/6", provider::full("def"));
            let (body, asked) =
                looked_after(whole_of_six(provider::body(body)), rest, answering(move |asked| asked < answers));
            sender.send_data(Bytes::from_static(b"abc")).await.unwrap();
            let begun = Instant::now();
            assert_eq!(text(body).await, "abcdef");
            assert_eq!(*asked.lock().unwrap(), ["bytes=3-5"]);
            assert_eq!(begun.elapsed(), patience);
        }
        let (mut sender, body) = http_body_util::channel::Channel::<Bytes, BoxError>::new(1);
        // Every other answer is late.
        let lookout = answering(|asked| asked % 2 == 1);
        let (body, asked) = looked_after(whole_of_six(provider::body(body)), whole_of_six(provider::empty()), lookout);
        let slow = tokio::spawn(async move {
            for piece in ["ab", "cd", "ef"] {
                tokio::time::sleep(10 * looks).await;
                sender.send_data(Bytes::from_static(piece.as_bytes())).await.unwrap();
            }
        });
        assert_eq!(text(body).await, "abcdef");
        assert!(asked.lock().unwrap().is_empty(), "nothing is asked for twice of a node that is only slow");
        slow.await.unwrap();
    }

    #[tokio::test]
    async fn a_part_is_resumed_at_its_own_offset() {
        let first = part("\"v\"", "bytes 10-15/99", broken_after(&["ab"]));
        let (body, asked) = resumed(first, part("\"v\"", "bytes 12-15/99", provider::full("cdef")));
        assert_eq!(text(body).await, "abcdef");
        assert_eq!(*asked.lock().unwrap(), ["bytes=12-15"]);
    }

    #[tokio::test]
    async fn other_bytes_are_never_spliced_in() {
        for other in [
            part("\"w\"", "bytes 3-5/6", provider::full("xyz")),
            part("\"v\"", "bytes 2-5/6", provider::full("wxyz")),
            whole_of_six(provider::full("uvwxyz")),
        ] {
            let (body, _) = resumed(whole_of_six(broken_after(&["abc"])), other);
            assert!(body.collect().await.is_err());
        }
    }

    #[tokio::test]
    async fn a_part_that_claims_to_end_where_no_number_does_is_not_resumed() {
        let first = part("\"v\"", "bytes 0-18446744073709551615/*", broken_after(&["abc"]));
        let (body, asked) = resumed(first, whole_of_six(provider::empty()));
        assert!(body.collect().await.is_err());
        assert!(asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_has_no_strong_validator_is_not_resumed() {
        let weak = Response::builder().header("etag", "W/\"v\"").header("content-length", "6");
        let (body, asked) = resumed(weak.body(broken_after(&["abc"])).unwrap(), whole_of_six(provider::empty()));
        assert!(body.collect().await.is_err());
        assert!(asked.lock().unwrap().is_empty());
    }
}
