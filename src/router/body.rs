//! Bodies on their way through the router: requests that can be sent twice, responses that survive their holder, and those
//! that give back what they hold when they end, however they end.
//!
//! - A request body is kept for a second attempt if it is short ([`Replay`]).
//! - The beginning of a response is held back until it is long enough or has taken too long ([`hold_back`]): a holder
//!   that dies within a short response then costs the client nothing.
//! - A longer one goes on from another holder where both have the same bytes, which a strong ETag says
//!   ([`Resumable`]; RFC 9110, sections 8.8.3 and 14.2).

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use headers::{ContentLength, ContentRange, ETag, HeaderMapExt};
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::lookout::Lookout;
use crate::provider::{self, Body, BodyError, BoxError};

/// Longest request body that is kept for a second attempt: ample for what a git client says while it negotiates.
const REPLAY_BYTES_MAX: usize = 256 << 10;
/// How much of a response is held back, and for how long after its head.
const HOLD_BACK_BYTES: usize = 256 << 10;
const HOLD_BACK_TIME: Duration = Duration::from_millis(500);
/// How often one response is taken up again.
const RESUMES_MAX: u8 = 3;

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

/// The beginning of a body.
enum Start {
    /// It has ended.
    Whole(VecDeque<Bytes>),
    /// It goes on.
    Part(VecDeque<Bytes>),
}

/// Reads `body` until it ends or has more than `limit` bytes.
async fn start_of(body: &mut Body, limit: usize) -> Result<Start, BodyError> {
    let (mut start, mut length) = (VecDeque::new(), 0);
    while length <= limit {
        match body.frame().await {
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

/// The same body, of which a beginning of about `limit` bytes is there already when this returns.
///
/// # Errors
/// The body broke off within that.
pub(crate) async fn read_ahead(mut body: Body, limit: usize) -> Result<Body, BodyError> {
    Ok(match start_of(&mut body, limit).await? {
        Start::Whole(start) => whole(start),
        Start::Part(start) => provider::body(Prefixed { start, rest: Some(body) }),
    })
}

/// Only what has a length counts towards a limit, so nothing else is kept.
fn set_aside(start: &mut VecDeque<Bytes>, data: Bytes) {
    if !data.is_empty() {
        start.push_back(data);
    }
}

/// All of a request's body, which is short enough to be kept.
///
/// # Errors
/// It breaks off, or is longer.
pub(super) async fn all_of(mut body: Body) -> Result<Bytes, BodyError> {
    match start_of(&mut body, REPLAY_BYTES_MAX).await? {
        Start::Whole(mut start) => Ok(start.make_contiguous().concat().into()),
        Start::Part(_) => Err(BodyError::new(format!("its body has more than {REPLAY_BYTES_MAX} bytes"))),
    }
}

/// What was read ahead, then the rest.
struct Prefixed {
    start: VecDeque<Bytes>,
    rest: Option<Body>,
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

/// A body that keeps `held` until it is dropped.
pub(crate) struct Guarded<B, G> {
    inner: B,
    _held: G,
}

impl<B, G> Guarded<B, G> {
    pub(crate) fn new(inner: B, held: G) -> Self {
        Self { inner, _held: held }
    }
}

impl<B: http_body::Body + Unpin, G: Unpin> http_body::Body for Guarded<B, G> {
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

/// Reads the beginning of a response, so that its failure is still a failed attempt and not a failed response.
pub(super) async fn hold_back(response: Response<Body>) -> Result<Response<Body>, BoxError> {
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

fn whole(mut start: VecDeque<Bytes>) -> Body {
    match (start.pop_front(), start.is_empty()) {
        (None, _) => provider::empty(),
        (Some(only), true) => provider::full(only),
        (Some(first), false) => {
            start.push_front(first);
            provider::body(Prefixed { start, rest: None })
        }
    }
}

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
                    // Who sends the rest is looked after no more: there is a limit to how often it is taken up anyway.
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

    use super::*;
    use crate::router::lookout::testing::{PAUSES, answering};

    fn broken_after(parts: &[&'static str]) -> Body {
        let good = parts.iter().map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
        let bad = std::iter::once(Err(std::io::Error::other("gone")));
        provider::body(http_body_util::StreamBody::new(stream::iter(good.chain(bad).collect::<Vec<_>>())))
    }

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
        let body = || {
            let chunks = [0; 1_000].into_iter().chain([REPLAY_BYTES_MAX + 1]);
            let frames = chunks.map(|bytes| Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![b'x'; bytes]))));
            provider::body(http_body_util::StreamBody::new(stream::iter(frames)))
        };
        let mut request = Replay::new(body(), true).await.unwrap().take().unwrap();
        assert!(!request.frame().await.unwrap().unwrap().into_data().unwrap().is_empty());
        let mut response = hold_back(Response::new(body())).await.unwrap().into_body();
        assert!(!response.frame().await.unwrap().unwrap().into_data().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_response_that_breaks_early_is_a_failed_attempt() {
        assert!(hold_back(Response::new(broken_after(&["a", "b"]))).await.is_err());
        let good = hold_back(Response::new(provider::full("abc"))).await.unwrap();
        assert_eq!(text(good.into_body()).await, "abc");
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_trickles_is_not_held_for_long() {
        let (_keep, body) = http_body_util::channel::Channel::<Bytes, BoxError>::new(1);
        let started = Instant::now();
        hold_back(Response::new(provider::body(body))).await.unwrap();
        assert_eq!(started.elapsed(), HOLD_BACK_TIME);
    }

    #[test]
    fn what_is_held_is_given_back_with_the_body() {
        let held = Arc::new(());
        let body = Guarded::new(http_body_util::Full::new(Bytes::from_static(b"abc")), held.clone());
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
        assert_eq!(Arc::strong_count(&held), 2);
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
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
