//! Git repositories: mirrored by the system's git, served to any git client over smart HTTP.
//!
//! A key is the path of a repository without `.git`. A template such as `https://{key}.git` says where keys come from;
//! one that starts with `{key}` takes the host from the key. Concerns and where they live:
//!
//! | file | concern |
//! | --- | --- |
//! | `path` | from a request path to a key, and what the request wants (pure) |
//! | `template` | from a key to a URL that the key cannot bend (pure) |
//! | `upstream` | where an upstream may be, what it is shown, and where it has moved |
//! | `mirror` | cloning and fetching |
//! | `prune` | letting go of what became unreachable |
//! | `outcome` | what git meant when it failed (pure) |
//! | `watch`, `limits` | whether it gets on, and what it may take |
//! | `process` | running git, with a scrubbed environment, killed with all its children |
//! | `backend`, `cgi` | serving through `git http-backend` |
//! | `early`, `making` | what clients get while a mirror is being made |
//! | `packets`, `references` | what git's protocol says of both (pure) |
//! | `bridge` | fetching from another node |
//!
//! Served are clones and fetches, shallow and partial ones too. Pushes, the dumb protocol and Git LFS are refused, before
//! anything is fetched.

mod backend;
mod bridge;
mod cgi;
mod describing;
mod early;
mod limits;
mod making;
mod mirror;
mod outcome;
mod packets;
mod path;
mod process;
mod prune;
mod references;
mod template;
#[cfg(test)]
mod tests;
mod turns;
mod upstream;
mod watch;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Method, Request, Response, StatusCode, header};
use tokio::sync::OnceCell;

pub use self::limits::limit_supervisor;
use url::Url;

use self::{
    backend::Backend, bridge::Bridge, describing::Describing, making::Making, mirror::Mirrors, path::Wish,
    process::Program, prune::Readers, template::Template, upstream::Errand,
};
use super::{
    AllowList, OriginCredentials,
    shelf::{KEY_FILE, Shelf},
    there_is,
};
use crate::{
    key::{Key, KeyError, NodeName},
    provider::{
        Awaited, Body, Capacity, Description, Meanwhile, Provider, ProviderError, ServeError, UpdateContext,
        UpdateError, full,
    },
};

/// The part of what is served at a time that is kept for other nodes.
const EXPORT_SHARE: usize = 4;

/// What a [`Git`] provider is set up with. Start from [`GitConfig::new`] and change what has to differ.
#[derive(Clone)]
pub struct GitConfig {
    /// Where a key is fetched from: an `http`, `https` or `file` URL that contains `{key}` once, either as its host and
    /// path (`https://{key}.git`) or in its path (`https://github.com/{key}.git`). A user and password in it are sent
    /// to that host only, and kept out of arguments and files.
    pub template: String,
    /// What is shown to upstreams whose user and password do not stand in the template. None by default.
    pub credentials: OriginCredentials,
    /// Where mirrors are kept. Made if needed; one process at a time may use it.
    pub data: PathBuf,
    /// Which keys may be fetched. All by default. With a template that starts with `{key}`, anyone who can reach the
    /// node chooses the host, so restrict it wherever clients are not trusted; patterns may write the host in any case.
    pub allow: AllowList,
    /// Whether hosts that a key names may be this machine or in private networks. Not by default: services there trust
    /// all who reach them. A host in the template may be anywhere. Needs git 2.37 to hold against names that resolve
    /// to something else from one moment to the next.
    pub private_origins: bool,
    /// The git program. `git` by default, looked up in `PATH`; 2.31 or later.
    pub program: PathBuf,
    /// The program `datad-gossip`, called as `PROGRAM child LIFELINE -- git ...`: it ends git, and all that git has
    /// started, when this process is gone. `None`, the default: git is started directly, and survives a process that is
    /// killed for as long as it has something to do, also in mirrors that are swept at the next start.
    pub supervisor: Option<PathBuf>,
    /// How many requests are served at a time, at least 2; further ones wait a while. A quarter of these is for other nodes that
    /// copy a mirror. 64 by default: each is a git process that may use a core and, for large repositories, some hundred
    /// megabytes.
    pub serving_max: usize,
    /// How long objects are kept after no reference leads to them any more, as force pushes leave them; whole seconds. Two weeks
    /// by default. It begins when a refresh looks for them, about a fourteenth of this time after they became unreachable.
    pub unreachable_kept: Duration,
    /// How long a transfer may stand still before it is given up; whole seconds. 5 minutes by default: a large upstream
    /// thinks for a while before it sends anything.
    pub stall: Duration,
}

impl GitConfig {
    /// The defaults, for this template and data directory.
    pub fn new(template: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            template: template.into(),
            credentials: OriginCredentials::default(),
            data: data.into(),
            allow: AllowList::everything(),
            private_origins: false,
            program: "git".into(),
            supervisor: None,
            serving_max: 64,
            unreachable_kept: Duration::from_secs(14 * 24 * 60 * 60),
            stall: Duration::from_secs(300),
        }
    }
}

impl fmt::Debug for GitConfig {
    /// Leaves out the template, which may carry a password, and says only the hosts that there are credentials for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitConfig")
            .field("credentials", &self.credentials)
            .field("data", &self.data)
            .field("allow", &self.allow)
            .field("private_origins", &self.private_origins)
            .field("program", &self.program)
            .field("supervisor", &self.supervisor)
            .field("serving_max", &self.serving_max)
            .field("unreachable_kept", &self.unreachable_kept)
            .field("stall", &self.stall)
            .finish_non_exhaustive()
    }
}

/// Why a [`Git`] provider cannot be set up. Nothing but the data directory was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// The template breaks a rule; write another one.
    #[error("the git template cannot be used: {0}")]
    Template(String),
    /// The data directory cannot be used.
    #[error("the data directory {path}: {error}")]
    Data {
        /// Which one.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// git lacks a part without which repositories cannot be served or fetched. Install it.
    #[error(
        "git has no {part} in {folder}: install the package `git` (Debian, Ubuntu), `git-core` (Fedora, RHEL) or `git-daemon` \
         (Alpine), which has it"
    )]
    Incomplete {
        /// The program that is missing.
        part: &'static str,
        /// Where git looks for its parts.
        folder: PathBuf,
    },
    /// The git program cannot be run.
    #[error("{program} cannot be run: {error}")]
    Program {
        /// Which one.
        program: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

/// A provider of git repositories; see the module.
pub struct Git {
    template: Template,
    credentials: OriginCredentials,
    private_origins: bool,
    allow: AllowList,
    mirrors: Mirrors,
    backend: Backend,
    exports: Backend,
    describing: Describing,
    /// Repositories of nothing, by the format of their objects' names.
    blanks: [OnceCell<PathBuf>; 2],
}

impl Git {
    /// Checks the configuration, opens the data directory and sweeps out what a crash left in it. Blocks for as long as
    /// that takes.
    ///
    /// # Errors
    /// See [`GitError`].
    pub fn open(config: GitConfig) -> Result<Self, GitError> {
        let template = Template::parse(&config.template)?.with_private(config.private_origins);
        check_program(&config.program, template.is_http())?;
        let at = |error| GitError::Data { path: config.data.clone(), error };
        let shelf = Arc::new(Shelf::open(&config.data).map_err(at)?);
        let program = Program::new(config.program, config.supervisor, shelf.root(), config.stall).map_err(at)?;
        let copies_max = config.serving_max.div_ceil(EXPORT_SHARE);
        let readers = Readers::default();
        let serving_max = config.serving_max.saturating_sub(copies_max);
        let backend = Backend::new(program.clone(), serving_max, readers.clone());
        let exports = Backend::new(program.clone(), copies_max, readers.clone());
        let unreachable_kept = config.unreachable_kept;
        let allow = if template.host_in_key() { config.allow.with_hosts() } else { config.allow };
        let credentials = config.credentials;
        let (private_origins, mirrors) =
            (config.private_origins, Mirrors { program, shelf, readers, unreachable_kept, making: Making::default() });
        let (describing, blanks) = Default::default();
        Ok(Self { template, credentials, private_origins, allow, mirrors, backend, exports, describing, blanks })
    }

    async fn answer(&self, backend: &Backend, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        let slot = self.mirrors.shelf.slot(key);
        if !self.mirrors.shelf.holds(key, KEY_FILE).await? {
            return Err(ServeError::NotHeld);
        }
        match path::wish(request.method(), request.uri().path(), request.uri().query()) {
            Wish::Advertisement => backend.exchange(&slot, "/info/refs", request).await,
            Wish::UploadPack => backend.exchange(&slot, "/git-upload-pack", request).await,
            Wish::LargeFiles => Ok(no_large_files()),
            Wish::Refused(status, text) => Ok(refusal(status, text)),
        }
    }

    async fn copy(&self, key: &Key, context: &UpdateContext) -> Result<bool, UpdateError> {
        let mut reasons = Vec::new();
        for peer in context.peers() {
            match self.copy_from(peer, key, context).await {
                Ok(changed) => return Ok(changed),
                // No other peer has more room for us.
                Err(UpdateError::NoRoom(reason)) => return Err(UpdateError::NoRoom(reason)),
                Err(error) => reasons.push(format!("{peer}: {error}")),
            }
        }
        Err(UpdateError::Unavailable(format!("no peer could be copied from: {}", reasons.join("; "))))
    }

    async fn copy_from(&self, peer: &NodeName, key: &Key, context: &UpdateContext) -> Result<bool, UpdateError> {
        let bridge = Bridge::open(context, peer, key).await?;
        let remote = bridge.remote()?;
        tokio::select! {
            outcome = self.mirrors.bring(key, &remote, context) => outcome,
            never = bridge.run() => match never {},
        }
    }
}

/// Whether there is a git, with the parts that distributions put into packages of their own.
fn check_program(program: &Path, speaks_http: bool) -> Result<(), GitError> {
    let failed = |error| GitError::Program { program: program.to_owned(), error };
    let output = std::process::Command::new(program).arg("--exec-path").output().map_err(failed)?;
    if !output.status.success() {
        return Err(failed(io::Error::other(format!("it ended with {}", output.status))));
    }
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let parts = [("git-http-backend", true), ("git-remote-https", speaks_http)];
    match parts.into_iter().find(|(part, needed)| *needed && !folder.join(part).exists()) {
        Some((part, _)) => Err(GitError::Incomplete { part, folder }),
        None => Ok(()),
    }
}

#[async_trait]
impl Provider for Git {
    fn key_of(&self, path: &str) -> Result<Key, KeyError> {
        path::key_of(path, &self.template)
    }

    /// The one that the template makes of a URL; else, unless keys name their hosts, that of the path.
    fn key_of_repository(&self, urls: &[&str], path: Option<&str>) -> Option<Key> {
        let named = |name: &str| self.key_of(&format!("/{name}")).ok();
        let by_url = urls.iter().find_map(|url| named(&self.template.name_in(&Url::parse(url).ok()?)?));
        by_url.or_else(|| path.filter(|_| !self.template.host_in_key()).and_then(named))
    }

    /// Keys that begin with a host are others than those that do not. Where either are fetched from may differ from node to
    /// node, as while it is changed.
    fn kind(&self) -> Option<String> {
        Some(if self.template.host_in_key() { "git by host" } else { "git" }.to_owned())
    }

    fn may_fetch(&self, key: &Key) -> Result<(), String> {
        let allowed = self.allow.check(key).map_err(|error| error.to_string());
        let is_one = path::check(key).and_then(|()| self.template.remote(key).map(drop));
        allowed.and(is_one.map_err(|error| error.to_string()))
    }

    fn may_fetch_some(&self, pattern: &Key) -> Result<(), String> {
        self.allow.check_pattern(pattern)
    }

    /// All but fetching by smart HTTP, so that neither a crawler nor a push makes a mirror.
    fn refuse(&self, _key: &Key, request: &http::request::Parts) -> Option<Response<Body>> {
        match path::wish(&request.method, request.uri.path(), request.uri.query()) {
            Wish::Advertisement | Wish::UploadPack => None,
            Wish::LargeFiles => Some(no_large_files()),
            Wish::Refused(status, text) => Some(refusal(status, text)),
        }
    }

    /// The host: of the key if that begins with one, else of the template.
    fn origin_of(&self, key: &Key) -> String {
        let host = key.components().next().filter(|_| self.template.host_in_key());
        host.unwrap_or_default().to_owned()
    }

    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        Ok(self.mirrors.shelf.holds(key, KEY_FILE).await?)
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        self.mirrors.shelf.keys(KEY_FILE)
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        let forbidden = |error: KeyError| UpdateError::Forbidden(error.to_string());
        path::check(key).map_err(forbidden)?;
        let remote = self.template.remote(key).map_err(forbidden)?;
        self.allow.check(key)?;
        let changed = match context.peers() {
            [] => self.fetch(key, remote, &context).await?,
            _ => self.copy(key, &context).await?,
        };
        self.mirrors.shelf.touch(key).await;
        context.report_changed(changed);
        Ok(())
    }

    /// If it has a HEAD, which a repository without commits has not.
    async fn is_at_origin(&self, key: &Key) -> Result<Option<bool>, UpdateError> {
        let forbidden = |error: KeyError| UpdateError::Forbidden(error.to_string());
        path::check(key).map_err(forbidden)?;
        let remote = self.template.remote(key).map_err(forbidden)?;
        self.allow.check(key)?;
        let head = self.reach(key, remote, Errand::Look).await;
        there_is(head.and_then(|is_there| if is_there { Ok(()) } else { Err(UpdateError::NotFound) }))
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        Ok(self.mirrors.shelf.remove(key).await?)
    }

    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.answer(&self.backend, key, request).await
    }

    fn meanwhile(&self, _key: &Key, request: &http::request::Parts, body: &[u8]) -> Meanwhile {
        early::meanwhile(request, body)
    }

    async fn serve_part(&self, key: &Key, request: Request<Bytes>) -> Result<Option<Response<Body>>, ServeError> {
        self.answer_early(key, request).await
    }

    fn begin(&self, _key: &Key, request: &Request<Bytes>, awaited: Awaited) -> Result<Response<Body>, Awaited> {
        early::begin(request, awaited)
    }

    /// With turns of its own: clients do not keep other nodes from copying a mirror, nor the other way round.
    async fn export(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.answer(&self.exports, key, request).await
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        Ok(Some(self.mirrors.shelf.capacity().await?))
    }

    /// The version is what a client would be told: where the references point.
    async fn describe(&self, key: &Key) -> Result<Description, ProviderError> {
        // Looked up first: what is touched while it is described is described anew.
        let updated_ms = self.mirrors.shelf.touched_ms(key).await;
        let describe = async {
            Ok(Description {
                version: Some(self.mirrors.version(key).await.map_err(ProviderError::new)?),
                bytes: Some(self.mirrors.shelf.bytes(key).await?),
                updated_ms,
            })
        };
        self.describing.of(key, updated_ms, describe).await
    }

    /// Fetching only reads, also where it is a POST.
    fn is_idempotent(&self, request: &http::request::Parts) -> bool {
        request.method.is_idempotent()
            || (request.method == Method::POST && request.uri.path().ends_with("/git-upload-pack"))
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, header::HeaderValue::from_static("POST"));
    }
    response
}

/// What a client of Git LFS shows to its user: an error in the form of its API.
fn no_large_files() -> Response<Body> {
    let text = r#"{"message":"Git LFS is not served by this mirror: set lfs.url to the LFS server of the origin"}"#;
    let mut response = refusal(StatusCode::NOT_IMPLEMENTED, text);
    let json = header::HeaderValue::from_static("application/vnd.git-lfs+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
