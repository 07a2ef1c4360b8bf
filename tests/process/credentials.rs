//! The password of an origin opens it, and is seen nowhere else: in no answer, log, metric or process list.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::harness::{Cluster, QUICK, Serve, Upstream, eventually, get};

/// As it is given, and as it is sent: `canary-user:canary-3f9c`.
const PASSWORD: &str = "canary-3f9c";
const SENT: &str = "Y2FuYXJ5LXVzZXI6Y2FuYXJ5LTNmOWM=";

/// Ways to tell a node the password.
#[derive(Debug, Clone, Copy)]
enum Way {
    File,
    Netrc,
    Variable,
    Url,
    Helper,
}

/// Looks at the arguments of all processes until it is dropped.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<String>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn start() -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
        let (stopped, found) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    found.lock().unwrap().insert(String::from_utf8_lossy(&line).replace('\0', " "));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    /// All that was seen.
    fn end(mut self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.into_iter().collect::<Vec<_>>().join("\n")
    }
}

fn assert_unseen(what: &str, text: &str) {
    for secret in [PASSWORD, SENT] {
        let around = text.find(secret).map(|at| text[..at].chars().rev().take(200).collect::<Vec<_>>());
        let around = around.map(|before| before.into_iter().rev().collect::<String>());
        assert_eq!(around, None, "{what} shows the password after this");
    }
}

fn tell(node: &mut Serve, way: Way, folder: &std::path::Path, option: &str, url: &str) {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let line = format!("127.0.0.1 canary-user {PASSWORD}");
    match way {
        Way::File => node.with("--origin-credentials", &write("credentials", line)),
        Way::Netrc => {
            let text = format!("machine 127.0.0.1\n  login canary-user\n  password {PASSWORD}\n");
            node.with("--origin-credentials", &write("netrc", text));
        }
        Way::Variable => node.with_variable("DATAD_ORIGIN_CREDENTIALS", &line),
        Way::Helper => {
            let script = format!("#!/bin/sh\necho username=canary-user\necho password={PASSWORD}\n");
            let script = write("script", script);
            fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
            node.with("--origin-credentials", &write("helper", format!("127.0.0.1 helper {script}")));
        }
        Way::Url => {
            let url = url.replace("http://", &format!("http://canary-user:{PASSWORD}@"));
            node.with_variable(&format!("DATAD_{option}"), &url);
        }
    }
    if !matches!(way, Way::Url) {
        node.with(&format!("--{}", option.to_lowercase()), url);
    }
    // Everything that any library would say.
    node.with_variable("DATAD_LOG", "trace,tokio=info");
}

async fn keeps_the_password_to_itself(way: Way, option: &str, path: &str) {
    let upstream = Upstream::start().await;
    upstream.create("org/repo", &[("file", b"content")]).await;
    upstream.put_file("file", "content", "text/plain");
    upstream.set_authorization(&format!("Basic {SENT}"));
    upstream.set_delay(Duration::from_millis(100));
    let url = if option == "GIT" { upstream.git_template() } else { upstream.files_url() };
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch::start();
    let cluster = Cluster::start_with(2, QUICK, &[], |node| tell(node, way, folder.path(), option, &url)).await;
    let answer = get(cluster.nodes[0].http, path).await.unwrap();
    assert_eq!(answer.status, 200, "{way:?} {option}: {}", answer.text());
    let key = if option == "GIT" { "org/repo" } else { "file" };
    cluster.until_held(key, 2).await;
    assert!(upstream.authorized() > 0);

    upstream.set_down(true);
    let mut said = Vec::new();
    for node in &cluster.nodes {
        let other = if option == "GIT" { "/org/other/info/refs?service=git-upload-pack" } else { "/other" };
        let failed = get(node.http, other).await.unwrap();
        assert_eq!(failed.status, 502, "{}", failed.text());
        said.push(failed.text());
        let failed = node.ask(&["update", key, "--wait"]).await;
        said.push(format!("{failed:?}"));
        for path in ["/-/status", "/-/members", "/-/keys", "/-/pins", "/-/metrics"] {
            said.push(get(node.http, path).await.unwrap().text());
        }
        let failing = key.replace("repo", "other").replace("file", "other");
        for key in [key, &failing] {
            said.push(node.ask(&["locate", key, "--explain", "--json"]).await.unwrap());
        }
    }
    let seen = watch.end();
    assert!(seen.contains("datad-gossip") && (option != "GIT" || seen.contains("git remote-http")), "{seen}");
    assert_unseen("the process list", &seen);
    assert_unseen("an answer", &said.join("\n"));
    for node in &cluster.nodes {
        eventually("the failure is logged", async || node.log().contains("other")).await;
        assert_unseen(&format!("the log of {}", node.name), &node.log());
    }
}

#[tokio::test]
async fn the_password_of_a_git_origin_is_seen_by_that_origin_only() {
    for way in [Way::File, Way::Variable, Way::Helper, Way::Url] {
        keeps_the_password_to_itself(way, "GIT", "/org/repo/info/refs?service=git-upload-pack").await;
    }
}

#[tokio::test]
async fn the_password_of_a_file_origin_is_seen_by_that_origin_only() {
    for way in [Way::File, Way::Netrc, Way::Variable, Way::Url] {
        keeps_the_password_to_itself(way, "FILES", "/file").await;
    }
}
