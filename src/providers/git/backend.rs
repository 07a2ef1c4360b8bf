//! Serving a mirror through `git http-backend`, git's own CGI program.
//!
//! ```text
//!  request body --> stdin  [ http-backend -> upload-pack -> pack-objects ]  stdout --> head, response body
//! ```
//!
//! Both bodies are streamed, so a repository of any size takes a few buffers. Each exchange is a
//! process group that lives exactly as long as the response body: a client that goes away takes it
//! along. A limit applies to the number at a time; further requests wait for their turn.

use std::{io, path::Path, process::Stdio, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header, request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout, Command},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    cgi::{HEAD_BYTES_MAX, parse_head},
    outcome::is_shortage,
    process::{Group, Program, tail},
    readers::{Readers, Reading},
    turns::{Turn, Turns},
};
use crate::provider::{Body, BoxError, SECOND_OPINION, ServeError, body, empty, read_ahead};

/// A request's body is read up to this length before it gets its turn, so that a client that sends slowly holds no turn.
/// What git clients say while they negotiate is shorter.
const AHEAD_BYTES_MAX: usize = 256 << 10;
/// Size of the pieces that the response is read in.
const CHUNK_BYTES: usize = 64 << 10;
/// How long the first words of an answer are waited for. That something is not here is said at once.
const FIRST_WORDS: Duration = Duration::from_secs(1);
/// What a request may have besides the references that it names, which is what git allows in all.
const REQUEST_BYTES: u64 = 10 << 20;
/// Longest header value that is handed to git.
const VALUE_BYTES_MAX: usize = 1 << 10;

/// Runs `http-backend`, with a limit on the number at a time.
#[derive(Debug)]
pub(crate) struct Backend {
    program: Program,
    turns: Turns,
    readers: Readers,
}

impl Backend {
    pub(crate) fn new(program: Program, at_once: usize, readers: Readers) -> Self {
        Self { program, turns: Turns::new(at_once), readers }
    }

    /// Answers `request` for the mirror in `slot`, which has checked that it is a fetch. `service` is the tail of the
    /// path, such as `/info/refs`.
    ///
    /// # Errors
    /// git cannot be run, or cannot read the mirror.
    pub(crate) async fn exchange(
        &self,
        slot: &Path,
        service: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, ServeError> {
        let (head, request_body) = request.into_parts();
        let request_body =
            read_ahead(request_body, AHEAD_BYTES_MAX).await.map_err(|error| ServeError::Failed(error.0))?;
        let turn = self.turns.take().await?;
        let reading = self.readers.enter(slot);
        let mut group = Group::spawn(&mut self.command(slot, service, &head).await)?;
        let stdin = group.child.stdin.take().expect("piped by `command`");
        let stdout = group.child.stdout.take().expect("piped by `command`");
        let stderr = group.child.stderr.take().expect("piped by `command`");
        let mut reply = Reply {
            group,
            stdout,
            buffer: BytesMut::new(),
            request: AbortOnDropHandle::new(tokio::spawn(pump(request_body, stdin))),
            complaints: Some(AbortOnDropHandle::new(tokio::spawn(tail(stderr)))),
            refused: false,
            _turn: turn,
            _reading: reading,
        };
        let mut parts = reply.head().await?;
        if parts.status.is_server_error() || parts.status == http::StatusCode::NOT_FOUND {
            let complaints = reply.complaints().await;
            return Err(failed(&complaints, format!("git answered {}: {complaints}", parts.status)));
        }
        if head.method == Method::POST && reply.is_refusal().await? {
            // Most likely it wants what an update has not brought here yet.
            parts.headers.insert(SECOND_OPINION, HeaderValue::from_static("?1"));
        }
        let reply = if head.method == Method::HEAD { empty() } else { body(StreamBody::new(reply.frames())) };
        Ok(Response::from_parts(parts, reply))
    }

    async fn command(&self, slot: &Path, service: &str, head: &request::Parts) -> Command {
        let mut command = self.program.command(["http-backend"], None);
        let name = slot.file_name().expect("a slot has a name").to_string_lossy();
        command
            .stdin(Stdio::piped())
            .env("GIT_PROJECT_ROOT", slot.parent().expect("a slot has a parent"))
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_HTTP_MAX_REQUEST_BUFFER", request_bytes_max(slot).await.to_string())
            .env("GATEWAY_INTERFACE", "CGI/1.1")
            .env("SERVER_PROTOCOL", "HTTP/1.1")
            .env("PATH_INFO", format!("/{name}{service}"))
            .env("REQUEST_METHOD", head.method.as_str())
            .env("QUERY_STRING", head.uri.query().unwrap_or(""));
        let passed_on = [
            ("CONTENT_TYPE", "content-type"),
            ("CONTENT_LENGTH", "content-length"),
            ("HTTP_CONTENT_ENCODING", "content-encoding"),
            ("GIT_PROTOCOL", "git-protocol"),
        ];
        for (variable, name) in passed_on {
            if let Some(value) = plain(&head.headers, name) {
                command.env(variable, value);
            }
        }
        command
    }
}

/// Whether this is the mirror's fault is in what git complained of.
fn failed(complaints: &str, reason: String) -> ServeError {
    if is_shortage(complaints) { ServeError::shortage(reason) } else { ServeError::Failed(reason.into()) }
}

/// How long a request for the mirror in `slot` may be: git keeps it in memory. A clone names every object that a reference
/// points to, in 50 bytes; in `packed-refs`, where all but some hundred references stand, each takes more than that.
async fn request_bytes_max(slot: &Path) -> u64 {
    let packed = tokio::fs::metadata(slot.join("packed-refs")).await.map_or(0, |file| file.len());
    REQUEST_BYTES + packed.saturating_mul(2)
}

/// Whether this is how git tells a client what is wrong (gitprotocol-common(5), `error-line`).
fn is_error_packet(bytes: &[u8]) -> bool {
    bytes.get(..4).is_some_and(|length| length.iter().all(u8::is_ascii_hexdigit)) && bytes[4..].starts_with(b"ERR ")
}

/// The value of a header if it is short, printable text.
fn plain<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().filter(|value| value.len() <= VALUE_BYTES_MAX)
}

/// Carries the request body into the process. One that breaks off makes the answer fail, whatever git made of the rest.
async fn pump(mut body: Body, mut stdin: ChildStdin) -> Result<(), BoxError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data()
            && stdin.write_all(&data).await.is_err()
        {
            // git has read what it wanted; what it thinks of the rest is in its answer.
            return Ok(());
        }
    }
    let _ = stdin.shutdown().await;
    Ok(())
}

/// A running exchange. Dropping it kills the processes first.
struct Reply {
    group: Group,
    stdout: ChildStdout,
    /// What was read and not yet passed on.
    buffer: BytesMut,
    request: AbortOnDropHandle<Result<(), BoxError>>,
    complaints: Option<AbortOnDropHandle<String>>,
    /// Whether git began by saying what is wrong with the request. It then ends as if it had failed.
    refused: bool,
    _turn: Turn,
    _reading: Reading,
}

impl Reply {
    async fn head(&mut self) -> Result<http::response::Parts, ServeError> {
        loop {
            let wrong = |reason| ServeError::Failed(format!("git's answer cannot be read: {reason}").into());
            if let Some((mut parts, length)) = parse_head(&self.buffer).map_err(wrong)? {
                let _ = self.buffer.split_to(length);
                parts.headers.remove(header::CONNECTION);
                return Ok(parts);
            }
            self.buffer.reserve(HEAD_BYTES_MAX);
            if self.stdout.read_buf(&mut self.buffer).await? == 0 {
                let complaints = self.complaints().await;
                return Err(failed(&complaints, format!("git did not answer: {complaints}")));
            }
        }
    }

    /// Waits a moment for the first words, and tells whether they say that the request cannot be answered. Once the other side
    /// was sent anything else, it cannot be asked elsewhere any more.
    async fn is_refusal(&mut self) -> Result<bool, ServeError> {
        if self.buffer.is_empty() {
            self.buffer.reserve(CHUNK_BYTES);
            if let Ok(read) = tokio::time::timeout(FIRST_WORDS, self.stdout.read_buf(&mut self.buffer)).await {
                read?;
            }
        }
        self.refused = is_error_packet(&self.buffer);
        Ok(self.refused)
    }

    fn frames(self) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
        stream::try_unfold(self, |mut reply| async move {
            Ok(reply.chunk().await?.map(|bytes| (Frame::data(bytes), reply)))
        })
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BoxError> {
        if self.buffer.is_empty() {
            self.buffer.reserve(CHUNK_BYTES);
            if self.stdout.read_buf(&mut self.buffer).await? == 0 {
                return self.end().await.map(|()| None);
            }
        }
        Ok(Some(self.buffer.split().freeze()))
    }

    /// The body is whole only if both git and the request ended well.
    async fn end(&mut self) -> Result<(), BoxError> {
        let status = self.group.wait().await?;
        if self.request.is_finished() {
            (&mut self.request).await.map_err(io::Error::other)??;
        }
        if status.success() || self.refused && status.code().is_some() {
            return Ok(());
        }
        Err(format!("git http-backend ended with {status}: {}", self.complaints().await).into())
    }

    async fn complaints(&mut self) -> String {
        let Some(complaints) = self.complaints.take() else { return String::new() };
        let text = complaints.await.unwrap_or_default();
        tracing::debug!(complaints = text.trim(), "git http-backend");
        text.trim().to_owned()
    }
}
