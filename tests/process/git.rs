//! Clones and fetches of every kind through any node, and upstreams that are slow, down, or do not know.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{Empty, Full};
use ring::hmac;
use serde_json::{Value, json};

use super::harness::{Checkout, Cluster, QUICK, Upstream, eventually, get, git, send};

const REPO: &str = "some/repo";
/// Where a git client begins.
const REFS: &str = "/some/repo/info/refs?service=git-upload-pack";

async fn cluster(upstream: &Upstream, config: &str) -> Cluster {
    Cluster::start(3, config, &["--git", &upstream.git_template()]).await
}

#[tokio::test]
async fn a_cold_repository_cloned_everywhere_at_once_is_fetched_once_for_the_whole_cluster() {
    let upstream = Upstream::start().await;
    upstream.create(REPO, &[("README", b"hello"), ("data", &[7; 100_000])]).await;
    upstream.set_delay(Duration::from_millis(100));
    let cluster = cluster(&upstream, QUICK).await;
    let clones = (0..24).map(|number| {
        let port = cluster.nodes[number % 3].http;
        // Users write it with and without the suffix.
        Checkout::clone(port, if number % 2 == 0 { "/some/repo" } else { "/some/repo.git" }, &[])
    });
    let head = upstream.head(REPO).await;
    for clone in join_all(clones).await {
        let clone = clone.unwrap();
        assert_eq!(clone.read("README"), "hello");
        assert_eq!(clone.git(&["rev-parse", "HEAD"]).await.unwrap(), head);
    }
    assert_eq!(upstream.packs(REPO), 1);

    cluster.until_held(REPO, 2).await;
    assert_eq!(upstream.packs(REPO), 1, "the second replica comes from the first");
    assert!(upstream.advertised(REPO) <= 2, "for the fetch, and for clients that would have waited for it");
}

#[tokio::test]
async fn shallow_and_partial_clones_and_later_fetches_work_through_a_node_that_holds_nothing() {
    let upstream = Upstream::start().await;
    upstream.create(REPO, &[("file", b"one")]).await;
    upstream.commit(REPO, &[("file", b"two"), ("other", b"unchanged")]).await;
    let cluster = cluster(&upstream, QUICK).await;
    Checkout::clone(cluster.nodes[0].http, "/some/repo", &[]).await.unwrap();
    let holders = cluster.until_held(REPO, 2).await;
    let outsider = cluster.other_than(&holders);

    let shallow = Checkout::clone(outsider.http, "/some/repo", &["--depth=1"]).await.unwrap();
    assert_eq!(shallow.git(&["rev-list", "--count", "HEAD"]).await.unwrap(), "1");
    assert_eq!(shallow.read("file"), "two");
    shallow.git(&["fetch", "--quiet", "--unshallow"]).await.unwrap();
    assert_eq!(shallow.git(&["rev-list", "--count", "HEAD"]).await.unwrap(), "2");

    let partial = Checkout::clone(outsider.http, "/some/repo", &["--filter=blob:none", "--no-checkout"]).await.unwrap();
    let missing = partial.git(&["rev-list", "--objects", "--all", "--missing=print"]).await.unwrap();
    assert_eq!(missing.lines().filter(|line| line.starts_with('?')).count(), 3, "three blobs are left out: {missing}");
    partial.git(&["checkout", "--quiet", "main"]).await.unwrap();
    assert_eq!(partial.read("file"), "two", "they are had when they are wanted");

    let whole = Checkout::clone(outsider.http, "/some/repo", &[]).await.unwrap();
    upstream.commit(REPO, &[("file", b"three")]).await;
    outsider.ask(&["update", REPO, "--wait"]).await.unwrap();
    // Once the update is said to be done, every replica has it.
    for node in &cluster.nodes {
        let url = format!("http://127.0.0.1:{}/some/repo", node.http);
        let advertised = git(&whole.path, ["ls-remote", &url, "HEAD"]).await.unwrap();
        assert!(advertised.starts_with(&upstream.head(REPO).await), "{}", node.name);
    }
    whole.git(&["pull", "--quiet", "--ff-only"]).await.unwrap();
    assert_eq!(whole.read("file"), "three");
    assert_eq!(upstream.packs(REPO), 2, "the clone and the update");
    assert_eq!(cluster.until_held(REPO, 2).await, holders);
}

#[tokio::test]
async fn a_repository_that_the_upstream_does_not_have_is_404_for_all_and_remembered() {
    let upstream = Upstream::start().await;
    let cluster = cluster(&upstream, QUICK).await;
    let attempts = (0..12).map(|number| Checkout::clone(cluster.nodes[number % 3].http, "/no/such", &[]));
    for attempt in join_all(attempts).await {
        let complaint = attempt.err().expect("there is no such repository");
        assert!(complaint.contains("not found"), "{complaint}");
    }
    let asked = upstream.advertised("no/such");
    assert!((1..=4).contains(&asked), "asked {asked} times");
    for node in &cluster.nodes {
        let answer = get(node.http, "/no/such/info/refs?service=git-upload-pack").await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.problem()["status"], 404);
        assert_eq!(answer.problem()["key"], "no/such");
    }
    assert_eq!(upstream.advertised("no/such"), asked, "remembered");
    assert!(cluster.nodes[0].ready_holders("no/such").await.is_empty());
}

#[tokio::test]
async fn an_upstream_that_is_down_is_502_with_the_reason_until_it_is_back() {
    let upstream = Upstream::start().await;
    upstream.create(REPO, &[("file", b"one")]).await;
    let cluster = cluster(&upstream, QUICK).await;
    upstream.set_down(true);
    for node in &cluster.nodes {
        let answer = get(node.http, REFS).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{}", answer.text());
        let problem = answer.problem();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("unable to access") || detail.contains("Empty reply"), "{problem}");
        assert!(!answer.header("retry-after").is_empty());
    }
    upstream.set_down(false);
    eventually("it can be cloned again", || async {
        Checkout::clone(cluster.nodes[1].http, "/some/repo", &[]).await.is_ok()
    })
    .await;
    assert_eq!(upstream.packs(REPO), 1);
}

#[tokio::test]
async fn a_fetch_that_outlasts_the_request_is_504_and_goes_on_to_its_end() {
    let upstream = Upstream::start().await;
    upstream.create(REPO, &[("file", b"one")]).await;
    let cluster = cluster(&upstream, &QUICK.replace("\"25s\"", "\"1s\"")).await;
    upstream.set_delay(Duration::from_secs(2));
    for answer in join_all(cluster.nodes.iter().map(|node| get(node.http, REFS))).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text());
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
        assert_eq!(answer.problem()["key"], REPO);
    }
    // Nobody asks again: it arrives all the same.
    let holders = cluster.until_held(REPO, 2).await;
    let clone = Checkout::clone(cluster.other_than(&holders).http, "/some/repo", &[]).await.unwrap();
    assert_eq!(clone.read("file"), "one");
    assert_eq!(upstream.packs(REPO), 1);
}

#[tokio::test]
async fn a_push_that_a_forge_tells_of_over_one_url_updates_the_repository_that_it_names() {
    let upstream = Upstream::start().await;
    upstream.create(REPO, &[("file", b"0")]).await;
    let cluster = Cluster::start_with(1, QUICK, &["--git", &upstream.git_template()], |node| {
        let secret = node.data.with_extension("hooks");
        std::fs::write(&secret, "hush").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        node.with("--webhook-secret-file", secret.to_str().unwrap());
    })
    .await;
    let port = cluster.nodes[0].http;
    let tell = |fields: Vec<(&'static str, String)>, payload: Value| async move {
        let body = payload.to_string();
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"hush"), body.as_bytes());
        let mut request = Request::post("/-/webhook").header("content-type", "application/json");
        for (name, value) in fields {
            request = request.header(name, value.replace("SIGNATURE", &hex::encode(signature)));
        }
        send(port, request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    };
    let by_url =
        json!({ "repository": { "clone_url": format!("{}/git/{REPO}.git", upstream.url()), "full_name": "x/y" } });
    let by_path =
        json!({ "project": { "git_http_url": "https://forge.example/some/repo.git", "path_with_namespace": REPO } });
    let github = || vec![("x-github-event", "push".to_owned()), ("x-hub-signature-256", "sha256=SIGNATURE".to_owned())];
    let gitlab = |token: &str| vec![("x-gitlab-event", "Push Hook".to_owned()), ("x-gitlab-token", token.to_owned())];

    let answer = tell(github(), by_url.clone()).await;
    assert_eq!((answer.status.as_u16(), upstream.packs(REPO)), (200, 0), "{}", answer.text());
    assert!(answer.text().contains("no node holds it"), "{}", answer.text());
    Checkout::clone(port, "/some/repo", &[]).await.unwrap();
    let gitea = vec![("x-gitea-event", "push".to_owned()), ("x-gitea-signature", "SIGNATURE".to_owned())];
    for (number, (fields, payload)) in
        [(github(), by_url.clone()), (gitea, by_url.clone()), (gitlab("hush"), by_path)].into_iter().enumerate()
    {
        let content = (number + 1).to_string();
        upstream.commit(REPO, &[("file", content.as_bytes())]).await;
        let answer = tell(fields, payload).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
        eventually("what was pushed is served", || async {
            Checkout::clone(port, "/some/repo", &[]).await.unwrap().read("file") == content
        })
        .await;
    }
    for refused in [gitlab("guess"), vec![("x-hub-signature-256", "sha256=00".to_owned())], vec![]] {
        assert_eq!(tell(refused, by_url.clone()).await.status, StatusCode::UNAUTHORIZED);
    }
    let mut ping = github();
    ping[0].1 = "ping".to_owned();
    assert_eq!(tell(ping, by_url).await.status, StatusCode::OK);
    assert_eq!(tell(github(), json!({ "zen": "nothing" })).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn operations_take_a_repository_as_users_write_it() {
    let upstream = Upstream::start().await;
    upstream.create(REPO, &[("file", b"one")]).await;
    let cluster = cluster(&upstream, QUICK).await;
    let node = &cluster.nodes[0];
    let change = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).header("authorization", node.authorization());
        let answer = send(node.http, request.body(Empty::new()).unwrap()).await.unwrap();
        (answer.status.as_u16(), serde_json::from_slice::<Value>(&answer.body).unwrap())
    };
    let (status, updated) = change("POST", "/-/update/some/repo.git?wait=true").await;
    assert_eq!((status, &updated["key"]), (200, &REPO.into()), "{updated}");
    cluster.until_held(REPO, 2).await;
    let located = get(node.http, "/-/locate/some/repo.git?explain=true").await.unwrap();
    let located: Value = serde_json::from_slice(&located.body).unwrap();
    assert_eq!(located["key"], REPO);
    let said = node.ask(&["locate", "/some/repo.git/", "--json"]).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["key"], REPO);

    let (status, pinned) = change("PUT", "/-/pins/some/repo.git?replicas=3").await;
    assert_eq!((status, &pinned["key"]), (200, &REPO.into()), "{pinned}");
    node.ask(&["pin", "some/*"]).await.unwrap();
    assert_eq!(node.ask(&["pins", "--json"]).await.unwrap().matches("\"key\"").count(), 2);
    node.ask(&["unpin", "some/*"]).await.unwrap();
    node.ask(&["unpin", "some/repo.git"]).await.unwrap();
    assert_eq!(node.ask(&["pins", "--json"]).await.unwrap().trim(), "[]");

    let (status, forgotten) = change("DELETE", "/-/keys/some/repo.git").await;
    assert_eq!((status, &forgotten["key"]), (200, &REPO.into()), "{forgotten}");
    cluster.until_held(REPO, 0).await;
    for (method, path) in [("POST", "/-/update/some/$(id)"), ("DELETE", "/-/keys/some/*"), ("PUT", "/-/pins/a;b")] {
        assert_eq!(change(method, path).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn what_is_refused_anyway_makes_no_node_fetch_a_repository() {
    let upstream = Upstream::start().await;
    upstream.create(REPO, &[("file", b"one")]).await;
    let cluster = cluster(&upstream, QUICK).await;
    let lfs = "/some/repo.git/info/lfs";
    let refused = |port: u16| async move {
        for (method, path, status) in [
            ("GET", REFS.split_once('?').unwrap().0.to_owned(), 403),
            ("GET", "/some/repo".into(), 404),
            ("GET", "/some/repo/tree/main".into(), 404),
            ("GET", "/some/repo/HEAD".into(), 403),
            ("GET", "/some/repo.git/objects/info/packs".into(), 403),
            ("GET", "/some/repo/info/refs?service=git-receive-pack".into(), 403),
            ("POST", "/some/repo/git-receive-pack".into(), 403),
            ("POST", "/some/repo/git-upload-archive".into(), 403),
            ("GET", "/some/repo/git-upload-pack".into(), 405),
            ("PUT", "/some/repo".into(), 404),
            ("POST", format!("{lfs}/objects/batch"), 501),
            ("POST", format!("{lfs}/locks/verify"), 501),
            ("GET", format!("{lfs}/locks"), 501),
        ] {
            let request = Request::builder().method(method).uri(&path).body(Empty::new()).unwrap();
            let answer = send(port, request).await.unwrap();
            assert_eq!(answer.status.as_u16(), status, "{method} {path}");
            if status == 501 {
                assert_eq!(answer.header("content-type"), "application/vnd.git-lfs+json");
                let said: Value = serde_json::from_slice(&answer.body).unwrap();
                assert!(said["message"].as_str().unwrap().contains("LFS"), "{said}");
            }
        }
    };
    for node in &cluster.nodes {
        refused(node.http).await;
        assert_eq!(node.ask(&["keys", "--json"]).await.unwrap().trim(), "[]");
    }
    let work = Checkout::clone(cluster.nodes[0].http, "/some/repo", &[]).await.unwrap();
    let url = format!("http://127.0.0.1:{}/other/repo", cluster.nodes[0].http);
    let pushed = work.git(&["push", "--quiet", &url, "main"]).await.unwrap_err();
    assert!(pushed.contains("403"), "{pushed}");
    assert_eq!(upstream.advertised("other/repo"), 0);
    assert_eq!(upstream.packs(REPO), 1, "for the clone");
    refused(cluster.nodes[0].http).await;
}

#[tokio::test]
async fn a_repository_is_found_however_forges_and_users_write_its_path() {
    const AZURE: &str = "our/My Project (new)/_git/repo";
    let upstream = Upstream::start().await;
    upstream.create(AZURE, &[("file", b"one")]).await;
    let template = upstream.git_template();
    let provider = ["--git", &template, "--allow", "our/*"];
    let cluster = Cluster::start(3, QUICK, &provider).await;
    let azure = "/our/My%20Project%20(new)/_git/repo";
    for (node, path) in cluster.nodes.iter().zip([azure.to_owned(), format!("{azure}/"), format!("{azure}.git//")]) {
        assert_eq!(Checkout::clone(node.http, &path, &[]).await.unwrap().read("file"), "one", "{path}");
        let refs = format!("{path}/info/refs?service=git-upload-pack");
        assert_eq!(get(node.http, &refs).await.unwrap().status, StatusCode::OK, "{refs}");
    }
    let holders = cluster.until_held("our/My%20Project%20(new)/_git/repo", 2).await;
    assert_eq!(upstream.packs(AZURE), 1, "the second replica comes from the first: {holders:?}");
    assert_eq!(cluster.nodes[0].ask(&["keys"]).await.unwrap().trim(), AZURE);
    cluster.nodes[0].ask(&["forget", AZURE]).await.unwrap();

    let answer = get(cluster.nodes[1].http, "/Our/x/info/refs?service=git-upload-pack").await.unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
    let problem = answer.problem();
    assert!(problem["detail"].as_str().unwrap().contains("capital and small letters"), "{problem}");
}

#[tokio::test]
async fn git_says_in_its_own_words_that_something_exists_nowhere() {
    let upstream = Upstream::start().await;
    upstream.create(REPO, &[("file", b"one")]).await;
    let cluster = cluster(&upstream, QUICK).await;
    let work = Checkout::clone(cluster.nodes[0].http, "/some/repo", &[]).await.unwrap();
    cluster.until_held(REPO, 2).await;
    let nowhere = "0123456789012345678901234567890123456789";
    for node in &cluster.nodes {
        let url = format!("http://127.0.0.1:{}/some/repo", node.http);
        for protocol in ["protocol.version=2", "protocol.version=0"] {
            let refused = work.git(&["-c", protocol, "fetch", "--quiet", &url, nowhere]).await.unwrap_err();
            assert!(refused.contains("not our ref"), "{} {protocol}: {refused}", node.name);
        }
        work.git(&["fetch", "--quiet", &url, &upstream.head(REPO).await]).await.unwrap();
    }
    assert_eq!(cluster.until_held(REPO, 2).await.len(), 2, "no holder gave the repository up");
    assert_eq!(upstream.packs(REPO), 1, "and none fetched it again");
}

#[tokio::test]
async fn a_git_without_its_server_is_an_error_at_the_start_that_names_the_package() {
    let upstream = Upstream::start().await;
    let cluster = Cluster::start(0, QUICK, &["--git", &upstream.git_template()]).await;
    let parts = git(cluster.folder(), ["--exec-path"]).await.unwrap();
    let less = cluster.folder().join("exec-path");
    std::fs::create_dir(&less).unwrap();
    for part in
        std::fs::read_dir(parts).unwrap().map(Result::unwrap).filter(|part| part.file_name() != "git-http-backend")
    {
        std::os::unix::fs::symlink(part.path(), less.join(part.file_name())).unwrap();
    }
    let mut node = cluster.node("n1");
    node.with_variable("GIT_EXEC_PATH", less.to_str().unwrap());
    node.start();
    assert_eq!(node.until_exit().await.code(), Some(1));
    assert!(node.log().contains("git-http-backend") && node.log().contains("install the package"), "{}", node.log());
}
