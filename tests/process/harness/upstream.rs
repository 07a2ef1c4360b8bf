//! An origin: bare repositories over smart HTTP (by `git http-backend`) below `/git/`, and files below `/files/`. It
//! counts what it is asked, and can be slow or gone.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    process::Command,
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

use super::git;

/// Size of the pieces that packs and files are sent in.
const PIECE_BYTES: usize = 16 << 10;

const MODIFIED: &str = "Sun, 01 Nov 2026 00:00:00 GMT";

/// The origin; it is gone once this is dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    dir: tempfile::TempDir,
    _accepting: AbortOnDropHandle<()>,
}

struct State {
    repositories: PathBuf,
    asked: Mutex<Asked>,
    /// How much is sent of each pack and file, in bytes; `None`: they break off.
    flow: watch::Sender<Option<usize>>,
}

type Sent = Response<UnsyncBoxBody<Bytes, io::Error>>;

#[derive(Default)]
struct Asked {
    delay: Duration,
    down: bool,
    /// What requests have to carry as `Authorization`.
    authorization: Option<String>,
    /// Requests that carried anything of the kind.
    authorized: usize,
    files: BTreeMap<String, (Bytes, &'static str)>,
    /// By path: where it is now.
    moved: BTreeMap<String, String>,
    /// By path: the status it is refused with, and after how many seconds to ask again.
    busy: BTreeMap<String, (u16, u32)>,
    /// Requests of any kind.
    requests: usize,
    /// By repository: how often a conversation began, and how often a pack was asked for.
    advertised: BTreeMap<String, usize>,
    packs: BTreeMap<String, usize>,
    /// By file: how often its content was asked for.
    reads: BTreeMap<String, usize>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repositories = dir.path().join("repositories");
        std::fs::create_dir(&repositories).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state =
            Arc::new(State { repositories, asked: Mutex::default(), flow: watch::Sender::new(Some(usize::MAX)) });
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, state.clone())));
        Self { address, state, dir, _accepting: accepting }
    }

    /// What a node is told with `--git`.
    pub(crate) fn git_template(&self) -> String {
        format!("http://{}/git/{{key}}.git", self.address)
    }

    /// What a node is told with `--files`.
    pub(crate) fn files_url(&self) -> String {
        format!("http://{}/files", self.address)
    }

    /// Makes a repository of one commit, with these files.
    pub(crate) async fn create(&self, key: &str, files: &[(&str, &[u8])]) {
        let (bare, work) = (self.bare(key), self.work(key));
        std::fs::create_dir_all(&bare).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        git(&bare, ["init", "--quiet", "--bare", "--initial-branch=main"]).await.unwrap();
        // What the tests put in is random: time spent on making it smaller is lost.
        for setting in ["core.bigFileThreshold=1m", "pack.compression=0", "pack.window=0"] {
            let (name, value) = setting.split_once('=').unwrap();
            git(&bare, ["config", name, value]).await.unwrap();
        }
        git(&work, ["init", "--quiet", "--initial-branch=main"]).await.unwrap();
        git(&work, ["config", "core.compression", "0"]).await.unwrap();
        self.commit(key, files).await;
    }

    /// Makes a repository without a commit, whose branch is to be called `trunk`.
    pub(crate) async fn create_empty(&self, key: &str) {
        std::fs::create_dir_all(self.bare(key)).unwrap();
        git(&self.bare(key), ["init", "--quiet", "--bare", "--initial-branch=trunk"]).await.unwrap();
    }

    /// Adds a commit with these files to a repository.
    pub(crate) async fn commit(&self, key: &str, files: &[(&str, &[u8])]) {
        let work = self.work(key);
        for (name, content) in files {
            std::fs::write(work.join(name), content).unwrap();
        }
        git(&work, ["add", "."]).await.unwrap();
        git(&work, ["commit", "--quiet", "--message=more"]).await.unwrap();
        git(&work, ["push", "--quiet", self.bare(key).to_str().unwrap(), "main"]).await.unwrap();
    }

    pub(crate) async fn head(&self, key: &str) -> String {
        git(&self.bare(key), ["rev-parse", "main"]).await.unwrap()
    }

    pub(crate) fn put_file(&self, path: &str, content: impl Into<Bytes>, content_type: &'static str) {
        self.asked().files.insert(path.to_owned(), (content.into(), content_type));
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        self.asked().delay = delay;
    }

    /// Lets so many bytes of each pack and file through, until it is told otherwise.
    pub(crate) fn let_through(&self, bytes: usize) {
        self.state.flow.send_replace(Some(bytes));
    }

    /// Breaks off the packs and files that are being sent.
    pub(crate) fn break_off(&self) {
        self.state.flow.send_replace(None);
    }

    /// While down, connections are closed as soon as they are made.
    pub(crate) fn set_down(&self, down: bool) {
        self.asked().down = down;
    }

    /// Answers only requests that carry this as `Authorization`.
    pub(crate) fn set_authorization(&self, value: &str) {
        self.asked().authorization = Some(value.to_owned());
    }

    /// Redirects requests for `path` to `location`.
    pub(crate) fn redirect(&self, path: &str, location: &str) {
        self.asked().moved.insert(path.to_owned(), location.to_owned());
    }

    /// Refuses requests for `path` with this status, and says to come back after so many seconds.
    pub(crate) fn ask_for_patience(&self, path: &str, status: u16, seconds: u32) {
        self.asked().busy.insert(path.to_owned(), (status, seconds));
    }

    /// Its URL, without a path.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that carried an `Authorization`, whatever it was.
    pub(crate) fn authorized(&self) -> usize {
        self.asked().authorized
    }

    /// How often a whole repository, or what is new in it, was asked for.
    pub(crate) fn packs(&self, key: &str) -> usize {
        self.asked().packs.get(key).copied().unwrap_or(0)
    }

    /// How often a conversation about a repository began, whether or not there is such a repository.
    pub(crate) fn advertised(&self, key: &str) -> usize {
        self.asked().advertised.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn reads(&self, path: &str) -> usize {
        self.asked().reads.get(path).copied().unwrap_or(0)
    }

    pub(crate) fn requests(&self) -> usize {
        self.asked().requests
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.state.asked.lock().unwrap()
    }

    fn bare(&self, key: &str) -> PathBuf {
        self.state.repositories.join(format!("{key}.git"))
    }

    fn work(&self, key: &str) -> PathBuf {
        self.dir.path().join("work").join(key)
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Dropped with this task, and the connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, state.clone()));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    if state.asked.lock().unwrap().down {
        return;
    }
    let service = service_fn(|request| answer(state.clone(), request));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Sent> {
    let is_paced = request.method() == Method::POST || request.uri().path().starts_with("/files/");
    let flow = state.flow.subscribe();
    let answered = answer_at_once(state, request).await?;
    Ok(answered.map(|body| {
        if is_paced { paced(body, flow).boxed_unsync() } else { body.map_err(|never| match never {}).boxed_unsync() }
    }))
}

/// The same body, which goes on as far as it is let through.
fn paced(
    body: Full<Bytes>,
    flow: watch::Receiver<Option<usize>>,
) -> impl http_body::Body<Data = Bytes, Error = io::Error> {
    StreamBody::new(stream::try_unfold(
        (body, Bytes::new(), 0, flow),
        |(mut body, mut left, sent, mut flow)| async move {
            if let Some(Ok(frame)) = body.frame().await {
                left = frame.into_data().unwrap_or_default();
            }
            if left.is_empty() {
                return Ok(None);
            }
            let through = flow.wait_for(|through| through.is_none_or(|through| through > sent)).await;
            let Some(through) = *through.map_err(io::Error::other)? else { return Err(io::Error::other("broken off")) };
            let piece = left.split_to(left.len().min(PIECE_BYTES).min(through - sent));
            let sent = sent + piece.len();
            Ok(Some((Frame::data(piece), (body, left, sent, flow))))
        },
    ))
}

async fn answer_at_once(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let delay = {
        let mut asked = state.asked.lock().unwrap();
        asked.requests += 1;
        if asked.down {
            return Err(io::Error::other("down"));
        }
        asked.delay
    };
    tokio::time::sleep(delay).await;
    if let Some(refused) = refuse(&state, request.headers()) {
        return Ok(refused);
    }
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    if let Some(location) = state.asked.lock().unwrap().moved.get(&path) {
        let moved = Response::builder().status(StatusCode::FOUND).header(header::LOCATION, location);
        return Ok(moved.body(Full::default()).unwrap());
    }
    if let Some((status, seconds)) = state.asked.lock().unwrap().busy.get(&path).copied() {
        let busy = Response::builder().status(status).header(header::RETRY_AFTER, seconds);
        return Ok(busy.body(Full::default()).unwrap());
    }
    if let Some(path) = path.strip_prefix("/git/") {
        return repository(&state, path, request).await;
    }
    match path.strip_prefix("/files/") {
        Some(path) => Ok(file(&state, path, request.method())),
        None => Ok(plain(StatusCode::NOT_FOUND)),
    }
}

fn refuse(state: &State, fields: &http::HeaderMap) -> Option<Response<Full<Bytes>>> {
    let mut asked = state.asked.lock().unwrap();
    let shown = fields.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
    asked.authorized += usize::from(shown.is_some());
    let wanted = asked.authorization.as_deref()?;
    if shown == Some(wanted) {
        return None;
    }
    let mut response = plain(StatusCode::UNAUTHORIZED);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"upstream\""));
    Some(response)
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn file(state: &State, path: &str, method: &Method) -> Response<Full<Bytes>> {
    let mut asked = state.asked.lock().unwrap();
    if *method == Method::GET {
        *asked.reads.entry(path.to_owned()).or_default() += 1;
    }
    let Some((content, content_type)) = asked.files.get(path).cloned() else { return plain(StatusCode::NOT_FOUND) };
    let response = Response::builder()
        .header(header::CONTENT_TYPE, content_type)
        .header(header::LAST_MODIFIED, MODIFIED)
        .header(header::ETAG, format!("\"{}\"", content.len()))
        .header(header::CONTENT_LENGTH, content.len());
    // hyper sends no body in answer to a HEAD.
    response.body(Full::new(content)).unwrap()
}

async fn repository(state: &State, path: &str, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let key = path.split_once(".git/").map_or(path, |(key, _)| key).to_owned();
    {
        let mut asked = state.asked.lock().unwrap();
        if path.ends_with("/info/refs") {
            *asked.advertised.entry(key).or_default() += 1;
        } else if path.ends_with("/git-upload-pack") && !contains(&body, b"command=ls-refs") {
            *asked.packs.entry(key).or_default() += 1;
        }
    }
    backend(&state.repositories, path, &parts, &body).await
}

async fn backend(
    root: &Path,
    path: &str,
    head: &http::request::Parts,
    body: &[u8],
) -> io::Result<Response<Full<Bytes>>> {
    let value = |name: HeaderName| head.headers.get(name).map_or("", |value| value.to_str().unwrap_or(""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", root)
        .env("PATH_INFO", format!("/{path}"))
        .env("REQUEST_METHOD", head.method.as_str())
        .env("QUERY_STRING", head.uri.query().unwrap_or(""))
        .env("CONTENT_TYPE", value(header::CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", value(header::CONTENT_ENCODING))
        .env("GIT_PROTOCOL", value(HeaderName::from_static("git-protocol")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().expect("piped");
    // Questions fit into the pipe.
    let _ = stdin.write_all(body).await;
    drop(stdin);
    let output = child.wait_with_output().await?;
    response_of(Bytes::from(output.stdout))
}

/// A CGI program's output as a response.
fn response_of(output: Bytes) -> io::Result<Response<Full<Bytes>>> {
    let mut slots = [httparse::EMPTY_HEADER; 32];
    let parsed = httparse::parse_headers(&output, &mut slots).map_err(io::Error::other)?;
    let httparse::Status::Complete((length, lines)) = parsed else { return Err(io::Error::other("no head")) };
    let mut response = Response::new(Full::new(output.slice(length..)));
    for line in lines {
        if line.name.eq_ignore_ascii_case("status") {
            *response.status_mut() = StatusCode::from_bytes(&line.value[..3]).map_err(io::Error::other)?;
        } else {
            let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(io::Error::other)?;
            response.headers_mut().insert(name, HeaderValue::from_bytes(line.value).map_err(io::Error::other)?);
        }
    }
    Ok(response)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
