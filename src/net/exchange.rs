//! HTTP over one QUIC stream: a small head each way, then raw bytes to the end of the stream.
//!
//! ```text
//!  asker                                   holder
//!    | head(method, target, headers)  ->     |
//!    | body bytes ... FIN             ->     |   provider.serve(key, request)
//!    |     <-  head(status, headers)         |
//!    |     <-  body bytes ... FIN            |
//! ```
//!
//! Bodies stream through with at most one chunk and QUIC's own window in memory. A body that ends without FIN is an
//! error at the reader, never a short success: a sender that gives up resets the stream. A reader that gives up stops
//! it, and the provider's body is dropped at once.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::io::poll_read_buf;

use super::{
    errors::{CallError, code},
    peer::Peer,
    peer_service::PeerService,
    wire::{Purpose, Rejection, RequestHead, ResponseHead, StreamHeader},
};
use crate::{
    key::Key,
    provider::{self, Body, BoxError},
    util::codec::{self, CodecError, OPENING_BYTES_MAX},
};

/// Read buffer of one body. Fewer, larger chunks cost less per byte further up.
const CHUNK_BYTES: usize = 64 << 10;
/// The first read of a body: most bodies are no longer than this.
const FIRST_CHUNK_BYTES: usize = 8 << 10;

/// Why a request has no response from this peer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ExchangeError {
    /// The peer answered that it will not.
    #[error(transparent)]
    Refused(#[from] Rejection),
    /// The peer could not be reached, or broke off.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The request's own body failed; the peer is not to blame.
    #[error("the request could not be read: {0}")]
    Request(String),
}

impl From<CodecError> for ExchangeError {
    fn from(error: CodecError) -> Self {
        Self::Call(error.into())
    }
}

impl Peer {
    /// Sends a request for `key` and waits for the head of the response; its body streams.
    ///
    /// There is no deadline here: the router has one. Dropping the future, or later the response, cancels the request
    /// at the peer.
    pub(crate) async fn exchange(
        &self,
        key: &Key,
        purpose: Purpose,
        request: Request<Body>,
    ) -> Result<Response<Body>, ExchangeError> {
        let room = match purpose {
            Purpose::Serve | Purpose::Relay { .. } => &self.rooms.clients,
            Purpose::Part => &self.rooms.parts,
            Purpose::Export => &self.rooms.exports,
        };
        // Held until the answer has been read to its end, or given up.
        let Ok(room) = room.clone().try_acquire_owned() else { return Err(Rejection::Overloaded.into()) };
        let (mut send, mut recv) = self.open().await?;
        let (parts, body) = request.into_parts();
        let head = RequestHead {
            key: key.clone(),
            purpose,
            method: parts.method.as_str().to_owned(),
            target: parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            headers: list(&parts.headers),
        };
        let head = codec::frame(&StreamHeader::Exchange(head))?;
        if head.len() > OPENING_BYTES_MAX {
            // No peer would read it, and this one would look broken.
            let _ = send.reset(code::BROKEN);
            return Err(Rejection::Malformed(format!("the head of the request takes {} bytes", head.len())).into());
        }
        codec::write(&mut send, head.into()).await.map_err(|error| CallError::Broken(error.to_string()))?;
        let head = if body.is_end_stream() {
            let _ = send.finish();
            codec::read_frame::<ResponseHead>(&mut recv, OPENING_BYTES_MAX).await
        } else {
            // The peer may answer before it has read everything, so both directions run at once.
            let mut sending = Box::pin(send_body(send, body));
            tokio::select! {
                head = codec::read_frame::<ResponseHead>(&mut recv, OPENING_BYTES_MAX) => {
                    tokio::spawn(sending);
                    head
                }
                sent = &mut sending => {
                    sent?;
                    codec::read_frame::<ResponseHead>(&mut recv, OPENING_BYTES_MAX).await
                }
            }
        };
        match head? {
            Some(ResponseHead::Answer { status, headers }) => {
                response(status, headers, recv, room).map_err(|error| CallError::Broken(error).into())
            }
            Some(ResponseHead::Refused(refusal)) => Err(refusal.into()),
            None => Err(CallError::Broken("the peer ended the stream without an answer".into()).into()),
        }
    }
}

fn response(
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    recv: quinn::RecvStream,
    room: OwnedSemaphorePermit,
) -> Result<Response<Body>, String> {
    let mut response = Response::new(ReceivedBody::of_response(recv, &headers, room));
    *response.status_mut() = StatusCode::from_u16(status).map_err(|error| error.to_string())?;
    *response.headers_mut() = map(headers)?;
    Ok(response)
}

/// The answering side of one exchange.
pub(super) async fn answer(
    inbound: Arc<dyn PeerService>,
    from: &Peer,
    head: RequestHead,
    mut send: quinn::SendStream,
    recv: quinn::RecvStream,
) -> Result<(), CodecError> {
    let outcome = match request(&head, recv) {
        Ok(request) => {
            let given_up = send.stopped();
            tokio::select! {
                outcome = inbound.exchange(&from.name, head, request) => outcome,
                _ = given_up => return Ok(()),
            }
        }
        Err(reason) => Err(Rejection::Malformed(reason)),
    };
    drop(inbound);
    match outcome {
        Ok(response) => {
            let (parts, body) = response.into_parts();
            let head = ResponseHead::Answer { status: parts.status.as_u16(), headers: list(&parts.headers) };
            codec::write_frame(&mut send, &head).await?;
            send_body(send, body).await.map_err(|error| CodecError::Broken(error.to_string()))
        }
        Err(refusal) => {
            codec::write_frame(&mut send, &ResponseHead::Refused(refusal.for_revision(from.revision))).await?;
            let _ = send.finish();
            Ok(())
        }
    }
}

fn request(head: &RequestHead, recv: quinn::RecvStream) -> Result<Request<Body>, String> {
    let mut request = Request::new(provider::body(ReceivedBody::new(recv, None, None)));
    *request.method_mut() = Method::from_bytes(head.method.as_bytes()).map_err(|error| error.to_string())?;
    *request.uri_mut() = head.target.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    *request.headers_mut() = map(head.headers.clone())?;
    Ok(request)
}

/// Resets its stream unless the body went through to its end; QUIC would otherwise end it as if complete.
struct Unfinished(quinn::SendStream, bool);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.1 {
            let _ = self.0.reset(code::BROKEN);
        }
    }
}

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the body broke off: {0}")]
    Body(String),
    #[error("the stream broke off: {0}")]
    Stream(String),
}

impl From<SendError> for ExchangeError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Body(reason) => Self::Request(reason),
            SendError::Stream(_) => CallError::Broken(error.to_string()).into(),
        }
    }
}

/// Sends `body` to the end. Stops pulling it as soon as the reader gives up, which is not an error:
/// it may have its reasons, and say them.
async fn send_body(send: quinn::SendStream, mut body: Body) -> Result<(), SendError> {
    let given_up = send.stopped();
    tokio::pin!(given_up);
    let mut send = Unfinished(send, false);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = &mut given_up => return Ok(()),
        };
        match frame {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                match codec::write(&mut send.0, data).await {
                    Ok(()) => {}
                    Err(quinn::WriteError::Stopped(_)) => return Ok(()),
                    Err(error) => return Err(SendError::Stream(error.to_string())),
                }
            }
            Some(Err(error)) => return Err(SendError::Body(error.to_string())),
            None => break,
        }
    }
    send.1 = true;
    let _ = send.0.finish();
    Ok(())
}

/// The bytes of a stream as a body.
struct ReceivedBody {
    recv: quinn::RecvStream,
    buffer: BytesMut,
    remaining: Option<u64>,
    started: bool,
    ended: bool,
    /// On the connection, of an answer.
    _room: Option<OwnedSemaphorePermit>,
}

impl ReceivedBody {
    fn new(recv: quinn::RecvStream, length: Option<u64>, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { recv, buffer: BytesMut::new(), remaining: length, started: false, ended: false, _room: room }
    }

    /// A response body; its length is known where the head says so, which lets HTTP/1.1 pass it on unchunked.
    fn of_response(recv: quinn::RecvStream, headers: &[(String, Vec<u8>)], room: OwnedSemaphorePermit) -> Body {
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .and_then(|(_, value)| std::str::from_utf8(value).ok()?.parse().ok());
        provider::body(Self::new(recv, length, Some(room)))
    }
}

impl http_body::Body for ReceivedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        this.buffer.reserve(if this.started { CHUNK_BYTES } else { FIRST_CHUNK_BYTES });
        match ready!(poll_read_buf(Pin::new(&mut this.recv), context, &mut this.buffer)) {
            Ok(0) => {
                this.ended = true;
                Poll::Ready(None)
            }
            Ok(filled) => {
                this.started = true;
                this.remaining = this.remaining.map(|left| left.saturating_sub(filled as u64));
                Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))))
            }
            Err(error) => {
                this.ended = true;
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn list(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

fn map(list: Vec<(String, Vec<u8>)>) -> Result<HeaderMap, String> {
    list.into_iter()
        .map(|(name, value)| {
            let name: HeaderName = name.parse().map_err(|error: http::header::InvalidHeaderName| error.to_string())?;
            let value = HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|error| error.to_string())?;
            Ok((name, value))
        })
        .collect()
}
