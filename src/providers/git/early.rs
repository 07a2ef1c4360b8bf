//! What git clients get while the mirror that they want is still being made, which may take longer than anybody on the way
//! waits for an answer. Protocol version 2 lets the wait lie where its user sees it:
//!
//! ```text
//!   info/refs    what this git can do: the same for every repository
//!   ls-refs      what the origin has, from the node that makes the mirror (`making`)
//!   fetch        "packfile", then every few seconds how far the mirror is, then the pack itself
//! ```
//!
//! A fetch whose response begins with anything else than the pack, a shallow one for instance, is not told how far it is; it
//! waits for as long. Older protocols wait as any request does.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use bytesize::ByteSize;
use futures::{Stream, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::{
    making::Told,
    packets::{self, Channel, Command, FLUSH, KEEP_ALIVE, PACKFILE, Packet, on},
    path::{self, Wish},
    references::{Answer, Format},
    setup::Git,
};
use crate::{
    key::Key,
    provider::{Awaited, Body, BoxError, Meanwhile, ServeError, body, full},
    route_error::RouteError,
};

/// How often a client hears that its response goes on: git's own servers do it as often.
const BEAT: Duration = Duration::from_secs(5);
/// Longest reason that a client is told.
const REASON_CHARS_MAX: usize = 1_000;
/// What the first packet of a response ends within, as git makes packets.
const START_BYTES_MAX: usize = 64 << 10;
const RESULT: HeaderValue = HeaderValue::from_static("application/x-git-upload-pack-result");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, max-age=0, must-revalidate");

/// What can be done about `request` while the mirror is being made.
pub(super) fn meanwhile(request: &Parts, body: &[u8]) -> Meanwhile {
    if !packets::speaks_version_2(request) {
        return Meanwhile::Wait;
    }
    match path::wish(&request.method, request.uri.path(), request.uri.query()) {
        Wish::Advertisement if request.method == Method::GET => Meanwhile::Part { on: true },
        Wish::UploadPack => match Command::read(request, body) {
            Some(command) if command.name == "ls-refs" => Meanwhile::Part { on: true },
            Some(command) if command.name == "fetch" && command.begins_with_pack() => Meanwhile::Begin,
            Some(command) if command.name == "fetch" => Meanwhile::WaitOn,
            _ => Meanwhile::Wait,
        },
        _ => Meanwhile::Wait,
    }
}

impl Git {
    /// Answers from what is known of a mirror that is being made: what its origin has.
    pub(super) async fn answer_early(
        &self,
        key: &Key,
        request: Request<Bytes>,
    ) -> Result<Option<Response<Body>>, ServeError> {
        // A client that is told that there is something has to find it: so the origin is asked even where its answer is not
        // needed yet.
        let Some(told) = self.mirrors.told(key).await else { return Ok(None) };
        let (parts, sent) = request.into_parts();
        if parts.method == Method::GET {
            let blank = self.blank(told.references.format).await?;
            let request = Request::from_parts(parts, full(sent));
            return self.backend.exchange(&blank, "/info/refs", request).await.map(Some);
        }
        let command = Command::read(&parts, &sent).filter(|command| command.name == "ls-refs");
        Ok(command.map(|command| result(body(StreamBody::new(references(told, Answer::to(&command)))))))
    }

    /// A repository of nothing, which is made when it is needed first: what this git can do is the same for all.
    async fn blank(&self, format: Format) -> Result<PathBuf, ServeError> {
        let path = self.mirrors.shelf.root().join(format!("blank-{}", format.name()));
        let make = async {
            let made = self.mirrors.init(&path, format).await;
            made.map(|()| path.clone()).map_err(|error| ServeError::Failed(error.to_string().into()))
        };
        self.blanks[format as usize].get_or_try_init(|| make).await.cloned()
    }
}

/// `answer`, made as its client reads it, from what all clients share. In between, others get their turn.
fn references(told: Arc<Told>, answer: Answer) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
    stream::unfold((told, answer), |(told, mut answer)| async move {
        loop {
            let piece = told.references.piece(&mut answer)?;
            tokio::task::yield_now().await;
            if !piece.is_empty() {
                return Some((Ok(Frame::data(piece.into())), (told, answer)));
            }
        }
    })
}

fn result(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, RESULT);
    response.headers_mut().insert(header::CACHE_CONTROL, NO_CACHE);
    response
}

/// Begins the response to a fetch, with word of how far the mirror is.
pub(super) fn begin(request: &Request<Bytes>, awaited: Awaited) -> Result<Response<Body>, Awaited> {
    let (parts, ()) = request.clone().map(drop).into_parts();
    let Some(command) = Command::read(&parts, request.body()) else { return Err(awaited) };
    let fetch = Fetch { quiet: command.has("no-progress"), step: Step::Begins(awaited) };
    Ok(result(body(StreamBody::new(fetch.frames()))))
}

/// A response that begins before there is anything to respond with.
struct Fetch {
    /// Whether the client wants no words.
    quiet: bool,
    step: Step,
}

enum Step {
    Begins(Awaited),
    Waits(Awaited),
    /// The mirror answers.
    Passes(Body),
    Ended,
}

impl Fetch {
    fn frames(self) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
        stream::try_unfold(
            self,
            |mut fetch| async move { Ok(fetch.next().await?.map(|bytes| (Frame::data(bytes), fetch))) },
        )
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        match std::mem::replace(&mut self.step, Step::Ended) {
            Step::Begins(awaited) => {
                self.step = Step::Waits(awaited);
                let words = self.words("Waiting for the mirror to be made\r");
                Ok(Some([PACKFILE, &words[..]].concat().into()))
            }
            Step::Waits(mut awaited) => {
                tokio::select! {
                    response = awaited.response() => self.go_on(response).await.map(Some),
                    () = tokio::time::sleep(BEAT) => {
                        let words = match awaited.progress().await {
                            Some(bytes) => format!("Waiting for the mirror to be made: {} received\r", ByteSize(bytes).display().iec()),
                            None => "Waiting for the mirror to be made\r".to_owned(),
                        };
                        self.step = Step::Waits(awaited);
                        Ok(Some(self.words(&words)))
                    }
                }
            }
            Step::Passes(mut body) => {
                while let Some(frame) = body.frame().await {
                    if let Ok(data) = frame?.into_data() {
                        self.step = Step::Passes(body);
                        return Ok(Some(data));
                    }
                }
                Ok(None)
            }
            Step::Ended => Ok(None),
        }
    }

    fn words(&self, words: &str) -> Bytes {
        if self.quiet { Bytes::from_static(KEEP_ALIVE) } else { on(Channel::Progress, words) }
    }

    /// Goes on with the mirror's own response, without the beginning that was sent already.
    async fn go_on(&mut self, response: Result<Response<Body>, RouteError>) -> Result<Bytes, BoxError> {
        let response = match response {
            Ok(response) if response.status() == StatusCode::OK => response,
            Ok(response) => return Ok(fatal(&format!("the mirror answered {}", response.status()))),
            Err(error) => return Ok(fatal(&error.to_string())),
        };
        let mut rest = response.into_body();
        let mut start = BytesMut::new();
        while packets::first(&start).is_none()
            && start.len() < START_BYTES_MAX
            && let Some(frame) = rest.frame().await
        {
            start.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
        match packets::first(&start) {
            Some((Packet::Data(b"packfile\n"), more)) => {
                let words = self.words("Waiting for the mirror to be made: done\n");
                let bytes = [&words[..], more].concat();
                self.step = Step::Passes(rest);
                Ok(bytes.into())
            }
            Some((Packet::Data(text), _)) if text.starts_with(b"ERR ") => {
                Ok(fatal(&String::from_utf8_lossy(&text[b"ERR ".len()..])))
            }
            _ => Ok(fatal("the mirror is here now, and cannot go on with this response; ask again")),
        }
    }
}

/// Ends a response with the reason for which it cannot go on; git shows it and fails.
fn fatal(reason: &str) -> Bytes {
    let reason: String = reason.trim().chars().take(REASON_CHARS_MAX).collect();
    [&on(Channel::Fatal, &format!("{reason}\n"))[..], FLUSH].concat().into()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::providers::git::packets::packet;

    fn fetch(arguments: &[&str]) -> Request<Bytes> {
        let lines = [&["want 1"], arguments, &["done"]].concat();
        let lines: Vec<u8> = lines.iter().flat_map(|line| packet(format!("{line}\n").as_bytes())).collect();
        let body = [packet(b"command=fetch\n"), b"0001".to_vec(), lines, FLUSH.to_vec()].concat();
        let request = Request::post("/a/git-upload-pack").header("git-protocol", "version=2");
        request.body(body.into()).unwrap()
    }

    fn pack(parts: &[&'static str]) -> Response<Body> {
        let frames = parts.iter().map(|part| Ok::<_, BoxError>(Frame::data(Bytes::from_static(part.as_bytes()))));
        Response::new(body(StreamBody::new(stream::iter(frames.collect::<Vec<_>>()))))
    }

    /// What a client reads whose mirror is made after twelve seconds, when it answers so.
    async fn read(request: &Request<Bytes>, response: Result<Response<Body>, RouteError>) -> Result<String, BoxError> {
        let made = async {
            tokio::time::sleep(Duration::from_secs(12)).await;
            response
        };
        let awaited = Awaited::new(made, || async { Some(5 << 19) }.boxed());
        let response = begin(request, awaited).unwrap();
        Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_hears_how_far_the_mirror_is_and_then_gets_the_pack() {
        let text = read(&fetch(&[]), Ok(pack(&["000", "dpackfi", "le\n000", "bx\u{1}PACK0000"]))).await.unwrap();
        assert!(text.starts_with("000dpackfile\n0027\u{2}Waiting for the mirror to be made\r"), "{text:?}");
        assert_eq!(text.matches("2.5 MiB received\r").count(), 2, "{text:?}");
        assert!(text.ends_with("done\n000bx\u{1}PACK0000"), "{text:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_wants_no_words_hears_that_its_response_goes_on() {
        let text = read(&fetch(&["no-progress"]), Ok(pack(&["000dpackfile\nPACK"]))).await.unwrap();
        assert_eq!(text, format!("000dpackfile\n{}PACK", "0005\u{1}".repeat(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_go_on_says_why_and_is_never_a_short_success() {
        let gone = RouteError::NotFound { key: Key::new("a").unwrap() };
        let refused = Response::builder().status(500).body(full("no")).unwrap();
        for (response, reason) in [
            (Err(gone), "there is no key a"),
            (Ok(refused), "500"),
            (Ok(pack(&["000fERR not ours"])), "not our"),
            (Ok(pack(&["0011shallow-info\n"])), "ask again"),
            (Ok(pack(&["000dpack"])), "ask again"),
        ] {
            let text = read(&fetch(&["no-progress"]), response).await.unwrap();
            let (_, said) = text.rsplit_once('\u{3}').unwrap();
            assert!(said.contains(reason) && said.ends_with("\n0000"), "{text:?}");
        }
        let broken = stream::iter([Ok(Frame::data(Bytes::from_static(b"000dpackfile\nPA"))), Err("gone")]);
        assert!(read(&fetch(&[]), Ok(Response::new(body(StreamBody::new(broken))))).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_begins_with_no_packet_is_not_read_for_ever() {
        let endless = stream::repeat_with(|| Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"no packet"))));
        let text = read(&fetch(&[]), Ok(Response::new(body(StreamBody::new(endless))))).await.unwrap();
        assert!(text.contains("ask again"), "{text:?}");
    }

    #[test]
    fn what_can_be_done_follows_from_what_is_asked() {
        let ask = |request: &Request<Bytes>| {
            let (parts, body) = request.clone().into_parts();
            meanwhile(&parts, &body)
        };
        assert_eq!(ask(&fetch(&[])), Meanwhile::Begin);
        assert_eq!(ask(&fetch(&["deepen 1"])), Meanwhile::WaitOn);
        let refs = |version: &str| {
            let request = Request::get("/a/info/refs?service=git-upload-pack").header("git-protocol", version);
            request.body(Bytes::new()).unwrap()
        };
        assert_eq!(ask(&refs("version=2")), Meanwhile::Part { on: true });
        assert_eq!(ask(&refs("version=1")), Meanwhile::Wait);
        let mut old = fetch(&[]);
        old.headers_mut().clear();
        assert_eq!(ask(&old), Meanwhile::Wait);
    }
}
