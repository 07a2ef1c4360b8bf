//! The git provider against real git: upstreams on disk and over HTTP, clients, peers, and what must not happen.

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

#[tokio::test]
async fn a_cold_repository_is_mirrored_whole_and_found_after_a_restart() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    assert!(!provider.has(&key("org/repo")).await.unwrap());
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    assert_eq!(fs::read_to_string(slot.join("HEAD")).unwrap().trim(), "ref: refs/heads/trunk");
    assert!(!fs::read_to_string(slot.join("config")).unwrap().contains("url"));
    drop(provider);
    let provider = lab.provider("a");
    assert!(provider.has(&key("org/repo")).await.unwrap());
    assert_eq!(provider.keys().try_collect::<Vec<_>>().await.unwrap(), [key("org/repo")]);
    provider.remove(&key("org/repo")).await.unwrap();
    provider.remove(&key("org/repo")).await.unwrap();
    assert!(!provider.has(&key("org/repo")).await.unwrap());
    assert_eq!((provider.keys().count().await, lab.leftovers("a")), (0, 0));
}

#[tokio::test]
async fn clients_clone_shallow_partial_and_whole() {
    let lab = Lab::new().await;
    lab.commit("two").await;
    lab.push("trunk").await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let front = Front::new(Arc::clone(&provider)).await;
    let head = lab.head(&lab.path("up/org/repo")).await;
    for (name, url, option) in [
        ("whole", front.url("org/repo"), "--quiet"),
        ("shallow", front.url("org/repo.git"), "--depth=1"),
        ("partial", front.url("org/repo"), "--filter=blob:none"),
        ("old", front.url("org/repo"), "-cprotocol.version=0"),
    ] {
        let url = url.as_str();
        lab.git(&["clone", "-q", option, url, name]).await;
        assert_eq!(lab.head(&lab.path(name).join(".git")).await, head);
        assert_eq!(fs::read_to_string(lab.path(name).join("file")).unwrap(), "two");
    }
    assert_eq!(lab.git(&["-C", "shallow", "rev-list", "--count", "HEAD"]).await, "1");
    assert_eq!(lab.git(&["-C", "partial", "show", "HEAD~:file"]).await, "one");
    let (pushed, output) = lab.run(&["-C", "whole", "push", "-q", "origin", "HEAD:refs/heads/new"]).await;
    assert!(!pushed && output.contains("403"), "{output}");
}

#[tokio::test]
async fn clients_that_hold_all_turns_keep_no_node_from_copying_and_are_told_of_by_the_next() {
    let lab = Lab::new().await;
    let mut config = GitConfig::new(lab.template(), lab.path("a"));
    config.serving_max = 2;
    let provider = Arc::new(Git::open(config).unwrap());
    let key = key("org/repo");
    provider.update(&key, alone()).await.unwrap();
    let head = || request(Method::GET, "/org/repo/info/refs?service=git-upload-pack");
    // A response that is not read to its end holds its turn.
    let held = provider.serve(&key, head()).await.unwrap();
    assert_eq!(provider.export(&key, head()).await.unwrap().status(), StatusCode::OK);
    assert!(matches!(provider.serve(&key, head()).await, Err(ServeError::Overloaded { .. })));
    drop(held);
    assert_eq!(provider.serve(&key, head()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn long_requests_come_compressed_or_in_chunks() {
    let lab = Lab::new().await;
    // Each of these branches is one line in the request of a clone, which makes more than git's smallest buffer.
    let branch = |number| format!("commit refs/heads/b{number}\ncommitter n <e@x> {number} +0000\ndata 0\n\n");
    fs::write(lab.path("import"), (1..=1500).map(branch).collect::<String>()).unwrap();
    let input = fs::File::open(lab.path("import")).unwrap();
    let mut command = tokio::process::Command::new("git");
    command.args(["fast-import", "--quiet"]).current_dir(lab.path("up/org/repo")).stdin(input);
    assert!(command.status().await.unwrap().success());
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let front = Front::new(provider).await;
    lab.git(&["clone", "-q", "--mirror", &front.url("org/repo"), "gzip"]).await;
    let came = |name| front.headers.lock().unwrap().contains(name);
    assert!(came("content-encoding") && !came("transfer-encoding"));
    lab.git(&["clone", "-q", "-chttp.postBuffer=65536", "--mirror", &front.url("org/repo"), "chunked"]).await;
    assert!(came("transfer-encoding"));
    for name in ["gzip", "chunked"] {
        let refs = lab.git(&["--git-dir", name, "for-each-ref", "--format=x"]).await;
        assert_eq!(refs.lines().count(), 1501);
    }
}

/// So many branches that a clone, which names the commit of each in 50 bytes, asks for more than 10 MiB.
const MANY: usize = 215_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_of_very_many_references_is_copied_to_another_node() {
    let lab = Lab::new().await;
    lab.git(&["init", "-q", "--bare", "-b", "b1", "up/many"]).await;
    let commit =
        |number| format!("commit refs/heads/all\nmark :{number}\ncommitter n <e@x> {number} +0000\ndata 0\n\n");
    fs::write(lab.path("import"), (1..=MANY).map(commit).collect::<String>()).unwrap();
    let mut command = tokio::process::Command::new("git");
    command.args(["fast-import", "--quiet", "--export-marks=marks"]).current_dir(lab.path("up/many"));
    assert!(command.stdin(fs::File::open(lab.path("import")).unwrap()).status().await.unwrap().success());
    let marks = fs::read_to_string(lab.path("up/many/marks")).unwrap();
    let branch = |line: &str| line[1..].split_once(' ').map(|(mark, id)| format!("{id} refs/heads/b{mark}\n"));
    let mut packed: Vec<String> = marks.lines().filter_map(branch).collect();
    packed.sort_by(|one, other| one[41..].trim_end().cmp(other[41..].trim_end()));
    let packed = format!("# pack-refs with: peeled fully-peeled sorted \n{}", packed.concat());
    fs::write(lab.path("up/many/packed-refs"), packed).unwrap();

    let holder = lab.provider("holder");
    holder.update(&key("many"), alone()).await.unwrap();
    let peers = Peers::new([("n1", Arc::clone(&holder) as Arc<dyn Provider>)]);
    let copy = lab.provider("copy");
    copy.update(&key("many"), with_peers(&["n1"], &peers)).await.unwrap();
    assert!(lab.same_references(&copy, "many").await);
}

#[tokio::test]
async fn many_new_references_of_a_refresh_are_kept_in_one_file() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let head = lab.head(&lab.path("up/org/repo")).await;
    let creates = (0..300).map(|number| format!("create refs/heads/n{number} {head}\n")).collect::<String>();
    fs::write(lab.path("creates"), creates).unwrap();
    let mut command = tokio::process::Command::new("git");
    command.args(["update-ref", "--stdin"]).current_dir(lab.path("up/org/repo"));
    assert!(command.stdin(fs::File::open(lab.path("creates")).unwrap()).status().await.unwrap().success());
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    assert!(fs::read_to_string(slot.join("packed-refs")).unwrap().contains("refs/heads/n299"));
    assert_eq!(fs::read_dir(slot.join("refs/heads")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_update_brings_what_is_new_and_drops_what_is_gone() {
    let lab = Lab::new().await;
    lab.push("trunk:refs/heads/topic").await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    lab.commit("two").await;
    lab.push("trunk:refs/heads/main").await;
    // A branch that becomes a directory of branches cannot change in one transaction.
    lab.push(":refs/heads/topic").await;
    lab.push("trunk:refs/heads/topic/sub").await;
    lab.git(&["-C", "up/org/repo", "symbolic-ref", "HEAD", "refs/heads/main"]).await;
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    assert_eq!(fs::read_to_string(slot.join("HEAD")).unwrap().trim(), "ref: refs/heads/main");
}

#[tokio::test]
async fn odd_heads_of_an_upstream_are_mirrored_once() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    let changed = async || {
        let context = alone();
        provider.update(&key("org/repo"), context.clone()).await.unwrap();
        context.changed().unwrap()
    };
    assert!(changed().await);
    lab.git(&["-C", "up/org/repo", "symbolic-ref", "refs/heads/alias", "refs/heads/trunk"]).await;
    assert!(changed().await, "there is a reference more");
    assert!(!changed().await, "a symbolic reference is as good as what it comes to");
    let tree = lab.git(&["-C", "up/org/repo", "rev-parse", "HEAD^{tree}"]).await;
    let lone = lab.git(&["-C", "up/org/repo", "commit-tree", "-m", "lone", &tree]).await;
    lab.git(&["-C", "up/org/repo", "update-ref", "--no-deref", "HEAD", &lone]).await;
    assert!(changed().await, "HEAD is elsewhere");
    assert!(!changed().await, "a commit that only HEAD leads to is mirrored too");
    lab.provider("b").update(&key("org/repo"), alone()).await.unwrap();
    let fresh = lab.provider("c");
    fresh.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&fresh, "org/repo").await);
    lab.git(&["-C", "up/org/repo", "symbolic-ref", "HEAD", "refs/heads/alias"]).await;
    assert!(changed().await && !changed().await);
}

/// Changes the only commit of the upstream, and mirrors that; the commit before is the result.
async fn force_push(lab: &Lab, provider: &Git, text: &str) -> String {
    let old = lab.head(&lab.path("up/org/repo")).await;
    fs::write(lab.path("work/file"), text).unwrap();
    lab.git(&["-C", "work", "commit", "-q", "-a", "--amend", "-m", text]).await;
    lab.push("+trunk").await;
    provider.update(&key("org/repo"), alone()).await.unwrap();
    old
}

/// Makes what the mirror remembers look as if that had been so long ago.
fn age(slot: &Path, by: Duration) {
    for file in walk(slot) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "datad-dropped" || file.parent().unwrap().ends_with("objects/pack") {
            let file = fs::File::open(&file).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - by).unwrap();
        }
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn what_is_unreachable_goes_two_weeks_after_it_was_found_and_not_by_the_age_of_its_pack() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    let repo = key("org/repo");
    provider.update(&repo, alone()).await.unwrap();
    let slot = provider.mirrors.shelf.slot(&repo);
    let path = slot.to_str().unwrap();
    let has = async |id: &str| lab.run(&["--git-dir", path, "cat-file", "-e", id]).await.0;
    // A pack of years ago.
    age(&slot, DAY * 1000);
    let old = force_push(&lab, &provider, "two").await;
    assert!(slot.join("datad-dropped").exists());
    age(&slot, DAY * 2);
    provider.update(&repo, alone()).await.unwrap();
    assert!(has(&old).await && !slot.join("datad-dropped").exists(), "it is found");
    assert!(walk(&slot).iter().any(|file| file.extension().is_some_and(|end| end == "mtimes")));
    provider.update(&repo, alone()).await.unwrap();
    assert!(has(&old).await, "it is there for two weeks more");
    let newer = force_push(&lab, &provider, "three").await;
    age(&slot, DAY * 2);
    provider.update(&repo, alone()).await.unwrap();
    assert!(has(&old).await && has(&newer).await);
    assert!(lab.same_references(&provider, "org/repo").await && lab.head(&slot).await != newer);
    assert!(lab.same_references(&provider, "org/repo").await);
}

#[tokio::test]
async fn what_is_unreachable_goes_when_nobody_reads_the_mirror() {
    let lab = Lab::new().await;
    let mut config = GitConfig::new(lab.template(), lab.path("a"));
    config.unreachable_kept = Duration::ZERO;
    let provider = Arc::new(Git::open(config).unwrap());
    let repo = key("org/repo");
    provider.update(&repo, alone()).await.unwrap();
    let slot = provider.mirrors.shelf.slot(&repo);
    let path = slot.to_str().unwrap();
    let has = async |id: &str| lab.run(&["--git-dir", path, "cat-file", "-e", id]).await.0;
    // A response that is not read to its end is one that is being read.
    let asked = request(Method::GET, "/org/repo/info/refs?service=git-upload-pack");
    let reading = provider.serve(&repo, asked).await.unwrap();
    let old = force_push(&lab, &provider, "two").await;
    assert!(has(&old).await, "somebody may be in the middle of it");
    drop(reading);
    tokio::time::sleep(Duration::from_secs(1)).await;
    provider.update(&repo, alone()).await.unwrap();
    assert!(!has(&old).await, "nothing leads to it");
    assert!(lab.same_references(&provider, "org/repo").await);
    let front = Front::new(Arc::clone(&provider)).await;
    lab.git(&["clone", "-q", &front.url("org/repo"), "clone"]).await;
    assert_eq!(fs::read_to_string(lab.path("clone/file")).unwrap(), "two");
}

#[tokio::test]
async fn many_updates_do_not_pile_up_packs() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    let pack = fs::read_dir(slot.join("objects/pack"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "pack"));
    let pack = pack.expect("a clone leaves a pack");
    for number in 0..30 {
        for end in ["pack", "idx"] {
            let copy = slot.join(format!("objects/pack/pack-{number:040}.{end}"));
            fs::copy(pack.with_extension(end), copy).unwrap();
        }
    }
    lab.commit("two").await;
    lab.push("trunk").await;
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let packs = fs::read_dir(slot.join("objects/pack")).unwrap();
    assert!(packs.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "pack")).count() < 24);
}

#[tokio::test]
async fn a_repository_over_http_is_asked_for_once() {
    let lab = Lab::new().await;
    let upstream = lab.provider("upstream");
    upstream.update(&key("org/repo"), alone()).await.unwrap();
    let front = Front::new(upstream).await;
    let provider = lab.provider_of("a", &format!("http://user:secret@{}/{{key}}.git", front.address));
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert_eq!(front.advertised.load(Ordering::Relaxed), 1);
    assert!(lab.same_references(&provider, "org/repo").await);
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert_eq!(front.advertised.load(Ordering::Relaxed), 2);
    let outcome = provider.update(&key("org/none"), alone()).await;
    assert!(matches!(outcome, Err(UpdateError::NotFound)), "{outcome:?}");
    assert!(!provider.has(&key("org/none")).await.unwrap());
}

#[tokio::test]
async fn an_empty_repository_is_a_repository() {
    let lab = Lab::new().await;
    lab.git(&["init", "-q", "--bare", "-b", "odd", "up/empty"]).await;
    let provider = lab.provider("a");
    for expected in [true, false] {
        let context = alone();
        provider.update(&key("empty"), context.clone()).await.unwrap();
        assert_eq!(context.changed(), Some(expected));
    }
    let front = Front::new(Arc::clone(&provider)).await;
    lab.git(&["clone", "-q", &front.url("empty"), "clone"]).await;
    assert_eq!(lab.git(&["-C", "clone", "symbolic-ref", "HEAD"]).await, "refs/heads/odd");
}

#[tokio::test]
async fn a_peer_is_copied_from_and_a_broken_one_passed_over() {
    let lab = Lab::new().await;
    let holder = lab.provider("holder");
    holder.update(&key("org/repo"), alone()).await.unwrap();
    let empty = lab.provider("empty");
    let peers = Peers::new([("n1", empty as Arc<dyn Provider>), ("n2", Arc::clone(&holder) as Arc<dyn Provider>)]);
    let provider = lab.provider_of("a", "http://127.0.0.1:1/{key}.git");
    provider.update(&key("org/repo"), with_peers(&["gone", "n1", "n2"], &peers)).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    let described = async |provider: &Git| provider.describe(&key("org/repo")).await.unwrap();
    let before = described(&holder).await;
    assert!(before.bytes.unwrap() > 0 && before.updated_ms.is_some());
    assert_eq!(described(&provider).await.version, before.version, "the same data");
    lab.commit("two").await;
    lab.push("trunk").await;
    holder.update(&key("org/repo"), alone()).await.unwrap();
    let after = described(&holder).await;
    assert!(after.version != before.version && after.updated_ms >= before.updated_ms);
    assert!(holder.describe(&key("org/none")).await.is_err());
    for expected in [true, false] {
        let context = with_peers(&["n2"], &peers);
        provider.update(&key("org/repo"), context.clone()).await.unwrap();
        assert_eq!(context.changed(), Some(expected));
    }
    assert!(lab.same_references(&provider, "org/repo").await);
    let outcome = provider.update(&key("org/none"), with_peers(&["n1", "n2"], &peers)).await;
    assert!(matches!(outcome, Err(UpdateError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn what_is_missing_is_not_found_and_what_is_down_is_unavailable() {
    let lab = Lab::new().await;
    let outcome = lab.provider("a").update(&key("no/such"), alone()).await;
    assert!(matches!(outcome, Err(UpdateError::NotFound)), "{outcome:?}");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let provider = lab.provider_of("b", &format!("http://{closed}/{{key}}.git"));
    let outcome = provider.update(&key("org/repo"), alone()).await;
    assert!(matches!(outcome, Err(UpdateError::Unavailable(_))), "{outcome:?}");
    assert_eq!(provider.keys().count().await, 0);
    eventually("nothing is left", || lab.leftovers("a") + lab.leftovers("b") == 0).await;
}

#[tokio::test]
async fn keys_that_may_not_be_fetched_are_forbidden_before_git_runs() {
    let lab = Lab::new().await;
    let template = format!("file://{}/{{key}}", lab.path("up").display());
    let mut config = GitConfig::new(template, lab.path("a"));
    config.allow = AllowList::new(["org/*"]);
    let provider = Git::open(config).unwrap();
    for name in ["other/repo", "a b", "x.git/y", "$(id)", "org/a;b"] {
        let outcome = provider.update(&key(name), alone()).await;
        assert!(matches!(outcome, Err(UpdateError::Forbidden(_))), "{name}: {outcome:?}");
    }
    provider.update(&key("org/repo"), alone()).await.unwrap();
}

#[tokio::test]
async fn a_spoilt_mirror_is_made_anew_and_locks_of_a_killed_git_do_not_matter() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    provider.update(&key("org/repo"), alone()).await.unwrap();
    let slot = provider.mirrors.shelf.slot(&key("org/repo"));
    fs::write(slot.join("packed-refs.lock"), "").unwrap();
    fs::write(slot.join("refs/heads/trunk.lock"), "").unwrap();
    lab.commit("two").await;
    lab.push("trunk").await;
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
    fs::remove_dir_all(slot.join("objects")).unwrap();
    let asked = provider.serve(&key("org/repo"), request(Method::GET, "/info/refs?service=git-upload-pack")).await;
    assert!(matches!(asked, Err(ServeError::Failed(_))));
    provider.update(&key("org/repo"), alone()).await.unwrap();
    assert!(lab.same_references(&provider, "org/repo").await);
}

#[tokio::test]
async fn a_dropped_update_leaves_nothing_and_kills_what_it_started() {
    let lab = Lab::new().await;
    // An upstream that accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = lab.provider_of("a", &format!("http://{}/{{key}}.git", silent.local_addr().unwrap()));
    let updated = key("org/repo");
    let mut update = Box::pin(provider.update(&updated, alone()));
    let connection = tokio::select! {
        outcome = &mut update => panic!("{outcome:?}"),
        connection = silent.accept() => connection.unwrap().0,
    };
    let marker = lab.path("a").display().to_string();
    let running = children_of(&marker);
    assert!(!running.is_empty());
    drop(update);
    let alive = |id: &i32| test_kill_process(Pid::from_raw(*id).unwrap()).is_ok() && is_running(*id);
    eventually("all processes are gone", || !running.iter().any(alive)).await;
    eventually("nothing is left", || lab.leftovers("a") == 0).await;
    assert!(!provider.has(&updated).await.unwrap());
    drop(connection);
}

/// The processes whose environment mentions `marker`.
fn children_of(marker: &str) -> Vec<i32> {
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let mentions = |id: &i32| {
        fs::read(format!("/proc/{id}/environ")).is_ok_and(|text| String::from_utf8_lossy(&text).contains(marker))
    };
    ids.filter(mentions).collect()
}

/// Whether a process is more than a zombie.
fn is_running(id: i32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Answers every request with a list of references that has no end.
async fn endless_references(listener: TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let packet = |line: &str| format!("{:04x}{line}", line.len() + 4);
    let id = "0123456789012345678901234567890123456789";
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.read(&mut [0; 4096]).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-advertisement\r\n\r\n";
        let service = packet("# service=git-upload-pack\n");
        let first = packet(&format!("{id} HEAD\0multi_ack\n"));
        let mut sent = stream.write_all(format!("{head}{service}0000{first}").as_bytes()).await;
        let mut number = 0;
        while sent.is_ok() {
            let references = (number..number + 5_000).map(|number| packet(&format!("{id} refs/heads/{number:0200}\n")));
            sent = stream.write_all(references.collect::<String>().as_bytes()).await;
            number += 5_000;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_references_without_an_end_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let template = format!("http://{}/{{key}}", listener.local_addr().unwrap());
    let _server = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(endless_references(listener)));
    let lab = Lab::new().await;
    let provider = lab.provider_of("data", &template);
    let ended = tokio::time::timeout(Duration::from_secs(50), provider.update(&key("org/repo"), alone())).await;
    let error = ended.expect("it is given up").unwrap_err();
    assert!(matches!(&error, UpdateError::Unavailable(why) if why.contains("no end")), "{error:?}");
    let marker = lab.path("data").display().to_string();
    let runs = || children_of(&marker).into_iter().any(is_running);
    eventually("nothing is left", || lab.leftovers("data") == 0 && !runs()).await;
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_turn() {
    let lab = Lab::new().await;
    let template = format!("file://{}/{{key}}", lab.path("up").display());
    let mut config = GitConfig::new(template, lab.path("a"));
    config.serving_max = 1;
    let provider = Git::open(config).unwrap();
    provider.update(&key("org/repo"), alone()).await.unwrap();
    for _ in 0..3 {
        let asked = request(Method::GET, "/org/repo/info/refs?service=git-upload-pack");
        let response = provider.serve(&key("org/repo"), asked).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-git-upload-pack-advertisement");
    }
    let repo = key("org/none");
    assert!(matches!(provider.serve(&repo, request(Method::GET, "/x")).await, Err(ServeError::NotHeld)));
}

#[tokio::test]
async fn only_fetches_are_repeated_elsewhere() {
    let lab = Lab::new().await;
    let provider = lab.provider("a");
    let idempotent = |method, uri| provider.is_idempotent(&request(method, uri).into_parts().0);
    assert!(idempotent(Method::GET, "/a/info/refs"));
    assert!(idempotent(Method::POST, "/a/git-upload-pack"));
    assert!(!idempotent(Method::POST, "/a/git-receive-pack"));
}

#[tokio::test]
async fn whether_the_origin_has_a_repository_is_seen_without_fetching_it() {
    let lab = Lab::new().await;
    let git = lab.provider("a");
    let there = |name: &'static str| {
        let git = git.clone();
        async move { git.is_at_origin(&key(name)).await }
    };
    assert!(matches!(there("org/repo").await, Ok(Some(true))));
    assert!(matches!(there("org/other").await, Ok(Some(false))));
    lab.git(&["init", "-q", "--bare", "up/org/empty"]).await;
    assert!(matches!(there("org/empty").await, Ok(Some(false))), "there is nothing to fetch again");
    assert_eq!(git.keys().count().await, 0);
    let (address, unreachable) = (free_address().await, "org/repo");
    let git = lab.provider_of("b", &format!("http://{address}/{{key}}"));
    assert!(matches!(git.is_at_origin(&key(unreachable)).await, Err(UpdateError::Unavailable(_))));
}

/// An address of this machine at which nothing listens.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
