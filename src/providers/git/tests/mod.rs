//! The git provider against real git: origins on disk and over HTTP, clients, peers, and what must
//! not happen.

mod mirroring;
mod peers;
mod pruning;
mod serving;
mod trouble;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::{
    provider::{Body, Provider, ServeError, UpdateError, body, empty, full},
    providers::{
        AllowList,
        testing::{Peers, alone, eventually, key, with_peers},
    },
};

/// Directories, an upstream `up/org/repo` in them, and the providers made of them.
struct Lab {
    dir: TempDir,
}

impl Lab {
    async fn new() -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        lab.git(&["init", "-q", "-b", "trunk", "work"]).await;
        lab.commit("one").await;
        lab.git(&["clone", "-q", "--bare", "work", "up/org/repo"]).await;
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn run(&self, args: &[&str]) -> (bool, String) {
        let output = tokio::process::Command::new("git")
            .args(["-c", "user.name=n", "-c", "user.email=e@x"])
            .args(args)
            .current_dir(self.dir.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env_remove("http_proxy")
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned())
    }

    async fn git(&self, args: &[&str]) -> String {
        let (success, output) = self.run(args).await;
        assert!(success, "git {args:?}: {output}");
        output
    }

    async fn commit(&self, text: &str) {
        fs::write(self.path("work/file"), text).unwrap();
        self.git(&["-C", "work", "add", "file"]).await;
        self.git(&["-C", "work", "commit", "-q", "-m", text]).await;
    }

    async fn push(&self, refspec: &str) {
        self.git(&["-C", "work", "push", "-q", "../up/org/repo", refspec]).await;
    }

    /// A provider `name` of what lies in `up`.
    fn provider(&self, name: &str) -> Arc<Git> {
        self.provider_of(name, &self.template())
    }

    fn template(&self) -> String {
        format!("file://{}/{{key}}", self.path("up").display())
    }

    fn provider_of(&self, name: &str, template: &str) -> Arc<Git> {
        Arc::new(Git::open(GitConfig::new(template, self.path(name))).unwrap())
    }

    fn leftovers(&self, name: &str) -> usize {
        ["tmp", "trash"].iter().map(|dir| fs::read_dir(self.path(name).join(dir)).unwrap().count()).sum()
    }

    async fn head(&self, repository: &Path) -> String {
        self.git(&["--git-dir", repository.to_str().unwrap(), "rev-parse", "HEAD"]).await
    }

    async fn same_references(&self, provider: &Git, name: &str) -> bool {
        let slot = provider.mirrors.shelf.slot(&key(name));
        let upstream = self.path("up").join(name);
        self.git(&["ls-remote", slot.to_str().unwrap()]).await
            == self.git(&["ls-remote", upstream.to_str().unwrap()]).await
    }
}

/// Serves a provider over HTTP, and counts advertisements.
struct Front {
    address: SocketAddr,
    advertised: Arc<AtomicUsize>,
    /// The names of all headers that came.
    headers: Arc<Mutex<BTreeSet<String>>>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Front {
    async fn new(provider: Arc<Git>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let advertised = Arc::new(AtomicUsize::new(0));
        let headers = Arc::new(Mutex::new(BTreeSet::new()));
        let (count, names) = (Arc::clone(&advertised), Arc::clone(&headers));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (provider, count, names) = (Arc::clone(&provider), Arc::clone(&count), Arc::clone(&names));
                let service = service_fn(move |request: Request<Incoming>| {
                    count.fetch_add(usize::from(request.uri().path().ends_with("/info/refs")), Ordering::Relaxed);
                    names.lock().unwrap().extend(request.headers().keys().map(ToString::to_string));
                    answer(Arc::clone(&provider), request.map(body))
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, advertised, headers, _task: tokio_util::task::AbortOnDropHandle::new(task) }
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }
}

async fn answer(provider: Arc<Git>, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    let text = |status, text: String| Response::builder().status(status).body(full(text)).unwrap();
    let Ok(key) = provider.key_of(request.uri().path()) else { return Ok(text(400, String::new())) };
    Ok(provider.serve(&key, request).await.unwrap_or_else(|error| match error {
        ServeError::NotHeld => text(404, String::new()),
        ServeError::Failed(reason) => text(500, reason.to_string()),
        ServeError::Overloaded { reason, .. } => text(503, reason),
    }))
}

fn request(method: Method, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(empty()).unwrap()
}
