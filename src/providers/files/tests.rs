//! The files provider on real directories and a small HTTP server: fetching, serving, copying, and what must not leak.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::TryStreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{cache::MANIFEST, *};
use crate::{
    key::{Key, NodeName},
    provider::{Body, BoxError, PeerFetch, Provider, ServeError, UpdateContext, UpdateError, body, empty, full},
    providers::{
        AllowList,
        testing::{Peers, alone, eventually, key, with_peers},
    },
};

struct Lab(TempDir);

impl Lab {
    /// A directory with `up/a.txt`, `up/set/x/one.html` and `up/set/x/two`.
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        lab.write("a.txt", "hello");
        lab.write("set/x/one.html", "1");
        lab.write("set/x/deep/two", "22");
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path("up").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn open(&self, name: &str, key_depth: Option<usize>) -> Arc<Files> {
        self.open_source(self.path("up").to_str().unwrap(), name, key_depth)
    }

    fn open_source(&self, source: &str, name: &str, key_depth: Option<usize>) -> Arc<Files> {
        Arc::new(Files::open(FilesConfig { key_depth, ..FilesConfig::new(source, self.path(name)) }).unwrap())
    }

    fn contents(&self, files: &Files, name: &str) -> usize {
        fs::read_dir(files.cache.shelf.slot(&key(name)).join("contents")).unwrap().count()
    }
}

async fn ask(
    files: &Files,
    name: &str,
    method: Method,
    headers: &[(&str, &str)],
) -> Result<(Response<()>, String), ServeError> {
    let mut request = Request::builder().method(method).uri(format!("/{name}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let key = files.key_of(&format!("/{name}")).unwrap();
    let (parts, body) = files.serve(&key, request.body(empty()).unwrap()).await?.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Ok((Response::from_parts(parts, ()), String::from_utf8(bytes.to_vec()).unwrap()))
}

async fn get(files: &Files, name: &str) -> (u16, String) {
    let (response, text) = ask(files, name, Method::GET, &[]).await.unwrap();
    (response.status().as_u16(), text)
}

#[tokio::test]
async fn a_file_is_fetched_served_and_still_there_after_a_restart() {
    let lab = Lab::new();
    let files = lab.open("data", None);
    assert!(matches!(ask(&files, "a.txt", Method::GET, &[]).await, Err(ServeError::NotHeld)));
    for expected in [true, false] {
        let context = alone();
        files.update(&key("a.txt"), context.clone()).await.unwrap();
        assert_eq!(context.changed(), Some(expected));
    }
    let described = files.describe(&key("a.txt")).await.unwrap();
    assert!(described.bytes == Some(5) && described.version.is_some() && described.updated_ms.is_some());
    drop(files);
    fs::remove_file(lab.path("up/a.txt")).unwrap();
    let files = lab.open("data", None);
    assert_eq!(files.describe(&key("a.txt")).await.unwrap(), described);
    assert!(files.describe(&key("b.txt")).await.is_err());
    assert!(files.has(&key("a.txt")).await.unwrap());
    let (response, text) = ask(&files, "a.txt", Method::GET, &[]).await.unwrap();
    assert_eq!((response.status(), text.as_str()), (StatusCode::OK, "hello"));
    let headers = response.headers();
    assert_eq!(
        (&headers["content-type"], &headers["content-length"]),
        (&"text/plain".parse().unwrap(), &"5".parse().unwrap())
    );
    assert!(headers.contains_key("last-modified") && headers["accept-ranges"] == "bytes");
    let etag = headers["etag"].to_str().unwrap();
    let (unchanged, _) = ask(&files, "a.txt", Method::GET, &[("if-none-match", etag)]).await.unwrap();
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(files.keys().try_collect::<Vec<_>>().await.unwrap(), [key("a.txt")]);
    files.remove(&key("a.txt")).await.unwrap();
    assert!(matches!(ask(&files, "a.txt", Method::GET, &[]).await, Err(ServeError::NotHeld)));
}

#[tokio::test]
async fn ranges_head_and_other_methods_are_answered_as_http_says() {
    let lab = Lab::new();
    let files = lab.open("data", None);
    files.update(&key("a.txt"), alone()).await.unwrap();
    let (part, text) = ask(&files, "a.txt", Method::GET, &[("range", "bytes=1-3")]).await.unwrap();
    assert_eq!((part.status().as_u16(), text.as_str()), (206, "ell"));
    assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 1-3/5");
    assert_eq!(part.headers()[header::CONTENT_LENGTH], "3");
    let (none, _) = ask(&files, "a.txt", Method::GET, &[("range", "bytes=9-")]).await.unwrap();
    assert_eq!((none.status().as_u16(), &none.headers()[header::CONTENT_RANGE]), (416, &"bytes */5".parse().unwrap()));
    let (head, text) = ask(&files, "a.txt", Method::HEAD, &[]).await.unwrap();
    assert_eq!((&head.headers()[header::CONTENT_LENGTH], text.as_str()), (&"5".parse().unwrap(), ""));
    let (put, _) = ask(&files, "a.txt", Method::PUT, &[]).await.unwrap();
    assert_eq!((put.status().as_u16(), &put.headers()[header::ALLOW]), (405, &"GET, HEAD".parse().unwrap()));
}

#[tokio::test]
async fn a_prefix_holds_all_objects_below_it() {
    let lab = Lab::new();
    let files = lab.open("data", Some(2));
    assert_eq!(files.key_of("/set/x/deep/two").unwrap(), key("set/x"));
    files.update(&key("set/x"), alone()).await.unwrap();
    assert_eq!(get(&files, "set/x/one.html").await, (200, "1".to_owned()));
    assert_eq!(get(&files, "set/x/deep/two").await, (200, "22".to_owned()));
    assert_eq!(get(&files, "set/x/three").await.0, 404);
    assert_eq!(get(&files, "set/x").await.0, 404);
    files.update(&key("a.txt"), alone()).await.unwrap();
    assert_eq!(get(&files, "a.txt").await, (200, "hello".to_owned()));
    lab.write("set/y", "a file where others have directories");
    files.update(&key("set/y"), alone()).await.unwrap();
    assert_eq!(get(&files, "set/y").await.0, 200);
    let below = files.update(&key("set/x/deep"), alone()).await;
    assert!(matches!(below, Err(UpdateError::Forbidden(_))));
}

#[tokio::test]
async fn an_update_follows_the_source_and_keeps_no_old_contents() {
    let lab = Lab::new();
    let files = lab.open("data", Some(2));
    files.update(&key("set/x"), alone()).await.unwrap();
    let manifest = files.cache.shelf.slot(&key("set/x")).join(MANIFEST);
    let written = fs::metadata(&manifest).unwrap().modified().unwrap();
    files.update(&key("set/x"), alone()).await.unwrap();
    assert_eq!(fs::metadata(&manifest).unwrap().modified().unwrap(), written, "nothing changed, nothing is written");
    fs::remove_file(lab.path("up/set/x/one.html")).unwrap();
    lab.write("set/x/deep/two", "other");
    files.update(&key("set/x"), alone()).await.unwrap();
    assert_eq!(get(&files, "set/x/one.html").await.0, 404);
    assert_eq!(get(&files, "set/x/deep/two").await, (200, "other".to_owned()));
    assert_eq!(lab.contents(&files, "set/x"), 1);
    fs::remove_dir_all(lab.path("up/set")).unwrap();
    assert!(matches!(files.update(&key("set/x"), alone()).await, Err(UpdateError::NotFound)));
    assert_eq!(get(&files, "set/x/deep/two").await.0, 200);
}

#[tokio::test]
async fn directories_and_empty_prefixes_and_odd_names_are_not_found() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("up/empty/dir")).unwrap();
    let whole = lab.open("data", None);
    for name in ["set", "set/x", "none", "a.txt/below", &"n".repeat(300)] {
        let outcome = whole.update(&key(name), alone()).await;
        assert!(matches!(outcome, Err(UpdateError::NotFound)), "{name}: {outcome:?}");
    }
    let deep = lab.open("deep", Some(1));
    for name in ["empty", "none"] {
        assert!(matches!(deep.update(&key(name), alone()).await, Err(UpdateError::NotFound)), "{name}");
    }
}

#[tokio::test]
async fn a_key_and_a_key_below_it_are_both_held() {
    let lab = Lab::new();
    let files = lab.open("data", None);
    files.update(&key("a.txt"), alone()).await.unwrap();
    fs::remove_file(lab.path("up/a.txt")).unwrap();
    lab.write("a.txt/b", "below");
    files.update(&key("a.txt/b"), alone()).await.unwrap();
    assert_eq!(get(&files, "a.txt").await.1, "hello");
    assert_eq!(get(&files, "a.txt/b").await.1, "below");
}

#[tokio::test]
async fn nothing_outside_the_source_and_nothing_of_our_own_is_served() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("secret")).unwrap();
    fs::write(lab.path("secret/key"), "secret").unwrap();
    symlink(lab.path("secret"), lab.path("up/out")).unwrap();
    symlink(lab.path("secret/key"), lab.path("up/set/x/link")).unwrap();
    symlink("a.txt", lab.path("up/inside")).unwrap();
    let files = lab.open("up/.own", None);
    files.update(&key("inside"), alone()).await.unwrap();
    let own = fs::read_dir(lab.path("up/.own")).unwrap().count();
    assert!(own > 0);
    let slot = files.cache.shelf.slot(&key("inside")).join(MANIFEST);
    let own = slot.strip_prefix(lab.path("up").canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned();
    for name in ["out/key", "set/x/link", own.as_str()] {
        let outcome = files.update(&key(name), alone()).await;
        assert!(matches!(outcome, Err(UpdateError::NotFound)), "{name}: {outcome:?}");
    }
    let deep = lab.open("deep", Some(1));
    deep.update(&key("set"), alone()).await.unwrap();
    assert_eq!(get(&deep, "set/x/link").await.0, 404);
    assert!(matches!(deep.update(&key("out"), alone()).await, Err(UpdateError::NotFound)));
    assert!(Files::open(FilesConfig::new(lab.path("up/.own").to_str().unwrap(), lab.path("up/.own"))).is_err());
}

/// A peer that spoils the contents it is asked for.
struct Liar(Arc<Files>);

#[async_trait]
impl PeerFetch for Liar {
    async fn fetch(&self, peer: &NodeName, key: &Key, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let spoils = peer.as_str() == "liar" && request.uri().path().starts_with("/contents/");
        let response = self.0.export(key, request).await?;
        Ok(if spoils { response.map(|_| full("jello")) } else { response })
    }
}

#[tokio::test]
async fn peers_are_copied_from_and_what_they_say_is_verified() {
    let lab = Lab::new();
    let holder = lab.open("holder", None);
    holder.update(&key("a.txt"), alone()).await.unwrap();
    let copy = lab.open("copy", None);
    fs::remove_file(lab.path("up/a.txt")).unwrap();
    let name = |text| NodeName::new(text).unwrap();
    let fetch: Arc<dyn PeerFetch> = Arc::new(Liar(Arc::clone(&holder)));
    let context = |peers| UpdateContext::new(crate::provider::UpdateReason::Repair, peers, Arc::clone(&fetch));
    let outcome = copy.update(&key("a.txt"), context(vec![name("liar")])).await;
    assert!(matches!(outcome, Err(UpdateError::Unavailable(_))), "{outcome:?}");
    assert!(!copy.has(&key("a.txt")).await.unwrap());
    copy.update(&key("a.txt"), context(vec![name("liar"), name("honest")])).await.unwrap();
    let (here, text) = ask(&copy, "a.txt", Method::GET, &[]).await.unwrap();
    let (there, _) = ask(&holder, "a.txt", Method::GET, &[]).await.unwrap();
    assert_eq!(text, "hello");
    for name in ["etag", "last-modified", "content-type"] {
        assert_eq!(here.headers()[name], there.headers()[name]);
    }
    let nobody = Peers::new([]);
    assert!(matches!(copy.update(&key("b"), with_peers(&["x"], &nobody)).await, Err(UpdateError::Unavailable(_))));
    eventually("no draft is left", || fs::read_dir(lab.path("copy/tmp")).unwrap().count() == 0).await;
}

#[tokio::test]
async fn a_content_that_was_lost_is_noticed_and_fetched_again() {
    let lab = Lab::new();
    let files = lab.open("data", None);
    files.update(&key("a.txt"), alone()).await.unwrap();
    let contents = files.cache.shelf.slot(&key("a.txt")).join("contents");
    fs::remove_dir_all(&contents).unwrap();
    assert!(matches!(ask(&files, "a.txt", Method::GET, &[]).await, Err(ServeError::Failed(_))));
    files.update(&key("a.txt"), alone()).await.unwrap();
    assert_eq!(get(&files, "a.txt").await.1, "hello");
    fs::write(files.cache.shelf.slot(&key("a.txt")).join(MANIFEST), "{").unwrap();
    files.update(&key("a.txt"), alone()).await.unwrap();
    assert_eq!(get(&files, "a.txt").await.1, "hello");
}

/// A web server over a directory that notes what it is asked, and answers 503 to `/down`.
async fn web(root: &Path) -> (String, Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (log, gets, root) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)), root.to_owned());
    let (asked, counted) = (Arc::clone(&log), Arc::clone(&gets));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (log, gets, root) = (Arc::clone(&asked), Arc::clone(&counted), root.clone());
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                log.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
                gets.fetch_add(usize::from(request.method() == Method::GET), Ordering::Relaxed);
                let response = page(&root, request.uri().path(), request.method() == Method::HEAD);
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (origin, log, gets)
}

fn page(root: &Path, path: &str, head: bool) -> Response<Body> {
    let answer = |status: u16| Response::builder().status(status);
    let decoded = percent_encoding::percent_decode_str(&path[1..]).decode_utf8().unwrap();
    let file = root.join(&*decoded);
    if path == "/down" {
        return answer(503).body(empty()).unwrap();
    }
    if file.is_dir() && !path.ends_with('/') {
        return answer(301).header("location", format!("{path}/")).body(empty()).unwrap();
    }
    if file.is_dir() {
        return answer(200).header("content-length", 4).body(full("list")).unwrap();
    }
    match fs::read(file) {
        Ok(bytes) => {
            let found = answer(200).header("etag", format!("\"{}\"", hex::encode(&bytes)));
            let found = found.header("content-type", "text/x-odd").header("content-length", bytes.len());
            found.body(if head { empty() } else { body(http_body_util::Full::from(bytes)) }).unwrap()
        }
        Err(_) => answer(404).body(empty()).unwrap(),
    }
}

#[tokio::test]
async fn a_web_server_is_asked_once_and_only_again_when_something_changed() {
    let lab = Lab::new();
    lab.write("base/with space/ü#%", "odd");
    let (origin, log, gets) = web(&lab.path("up")).await;
    let files = lab.open_source(&format!("{origin}/base"), "data", None);
    files.update(&key("with space/ü#%"), alone()).await.unwrap();
    assert_eq!(*log.lock().unwrap(), ["GET /base/with%20space/%C3%BC%23%25"]);
    files.update(&key("with space/ü#%"), alone()).await.unwrap();
    assert_eq!(gets.load(Ordering::Relaxed), 1);
    lab.write("base/with space/ü#%", "changed");
    files.update(&key("with space/ü#%"), alone()).await.unwrap();
    let (response, text) = ask(&files, "with%20space/%C3%BC%23%25", Method::GET, &[]).await.unwrap();
    assert_eq!((text.as_str(), &response.headers()["content-type"]), ("changed", &"text/x-odd".parse().unwrap()));
}

#[tokio::test]
async fn web_servers_have_no_directories_and_may_be_down() {
    let lab = Lab::new();
    let (origin, ..) = web(&lab.path("up")).await;
    let files = lab.open_source(&origin, "data", None);
    for name in ["set", "none"] {
        let outcome = files.update(&key(name), alone()).await;
        assert!(matches!(outcome, Err(UpdateError::NotFound)), "{name}: {outcome:?}");
    }
    let outcome = files.update(&key("down"), alone()).await;
    assert!(matches!(outcome, Err(UpdateError::Unavailable(_))), "{outcome:?}");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outcome = lab.open_source(&format!("http://{closed}/"), "other", None).update(&key("a"), alone()).await;
    assert!(matches!(outcome, Err(UpdateError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn an_update_that_is_dropped_or_forbidden_leaves_nothing() {
    let lab = Lab::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files = lab.open_source(&format!("http://{}", silent.local_addr().unwrap()), "data", None);
    let name = key("a");
    let mut update = Box::pin(files.update(&name, alone()));
    tokio::select! {
        outcome = &mut update => panic!("{outcome:?}"),
        connection = silent.accept() => drop(connection.unwrap().1),
    }
    drop(update);
    eventually("no draft is left", || fs::read_dir(lab.path("data/tmp")).unwrap().count() == 0).await;
    assert!(!files.has(&name).await.unwrap());
    let config = FilesConfig::new(lab.path("up").to_str().unwrap(), lab.path("allowed"));
    let files = Files::open(FilesConfig { allow: AllowList::new(["set/*"]), ..config }).unwrap();
    assert!(matches!(files.update(&key("a.txt"), alone()).await, Err(UpdateError::Forbidden(_))));
}

#[tokio::test]
async fn whether_the_source_has_a_key_is_seen_without_fetching_it() {
    let lab = Lab::new();
    let (objects, sets) = (lab.open("a", None), lab.open("b", Some(2)));
    for (files, name, there) in [
        (&objects, "a.txt", true),
        (&objects, "b.txt", false),
        (&objects, "set", false),
        (&sets, "set/x", true),
        (&sets, "set/y", false),
        (&sets, "a.txt", true),
    ] {
        assert!(matches!(files.is_at_origin(&key(name)).await, Ok(Some(said)) if said == there), "{name}");
        assert!(!files.has(&key(name)).await.unwrap(), "{name}");
    }
}
