//! What clients get while a repository or a file is still being fetched, for longer than a request waits.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::harness::{Answer, Checkout, Cloning, Cluster, DEADLINE, QUICK, Upstream, eventually, get, git, send};

const REPO: &str = "some/repo";
const PATH: &str = "/some/repo";
/// Where a client of an old protocol begins.
const REFS: &str = "/some/repo/info/refs?service=git-upload-pack";
const WAITING: &str = "remote: Waiting for the mirror to be made";
/// What an origin lets through that is slow.
const SOME: usize = 100_000;

/// An origin that sends a part of a repository and no more for now, and nodes that wait a second.
async fn slow() -> (Upstream, Cluster) {
    let upstream = Upstream::start().await;
    upstream.create(REPO, &[("README", b"one"), ("data", &noise(1 << 20))]).await;
    upstream.commit(REPO, &[("README", b"hello")]).await;
    upstream.let_through(SOME);
    let config = QUICK.replace("\"25s\"", "\"1s\"");
    let cluster = Cluster::start(3, &config, &["--git", &upstream.git_template()]).await;
    (upstream, cluster)
}

/// Bytes that do not get smaller.
fn noise(length: u64) -> Vec<u8> {
    let mut state = 1_u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}

/// Waits until a request that waits has been told to come back, on each node: all that came before it wait for longer.
async fn until_patience_has_passed(cluster: &Cluster) {
    for answer in join_all(cluster.nodes.iter().map(|node| get(node.http, REFS))).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text());
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
    }
}

async fn until_all_wait(clones: &[Cloning]) {
    for clone in clones {
        eventually("a clone tells its user that it waits", || async { clone.words().contains(WAITING) }).await;
    }
}

#[tokio::test]
async fn a_clone_of_a_repository_that_takes_long_to_fetch_ends_well_on_every_node_and_says_how_far_it_is() {
    let (upstream, cluster) = slow().await;
    let kinds: [&[&str]; 3] = [&[], &["--mirror"], &["--filter=blob:none"]];
    let clones: Vec<_> = cluster
        .nodes
        .iter()
        .flat_map(|node| kinds.iter().map(|options| Cloning::start(node.http, PATH, &[], options)))
        .collect();
    until_all_wait(&clones).await;
    until_patience_has_passed(&cluster).await;
    let measured = |clone: &Cloning| clone.words().contains("KiB received");
    eventually("all say how much is here", || async { clones.iter().all(measured) }).await;
    assert!(cluster.nodes[0].ready_holders(REPO).await.is_empty());
    upstream.let_through(usize::MAX);
    let head = upstream.head(REPO).await;
    for (number, clone) in join_all(clones.into_iter().map(Cloning::end)).await.into_iter().enumerate() {
        let clone = clone.unwrap();
        assert_eq!(clone.git(&["rev-parse", "HEAD"]).await.unwrap(), head);
        assert_eq!(clone.git(&["symbolic-ref", "HEAD"]).await.unwrap(), "refs/heads/main");
        if number % 3 != 1 {
            assert_eq!(clone.read("README"), "hello");
        }
    }
    assert_eq!(upstream.packs(REPO), 1);
}

#[tokio::test]
async fn what_is_there_is_said_before_the_repository_is_and_found_in_it_though_it_came_later() {
    let (upstream, cluster) = slow().await;
    let url = format!("http://127.0.0.1:{}{PATH}", cluster.nodes[0].http);
    let first = git(cluster.folder(), ["ls-remote", "--symref", &url]).await.unwrap();
    let head = upstream.head(REPO).await;
    assert_eq!(first, format!("ref: refs/heads/main\tHEAD\n{head}\tHEAD\n{head}\trefs/heads/main"));
    assert_eq!(upstream.packs(REPO), 1);
    upstream.let_through(usize::MAX);
    cluster.until_held(REPO, 2).await;
    cluster.nodes[0].ask(&["forget", REPO]).await.unwrap();

    // The fetch has begun, and then there is something new before anybody asks.
    upstream.let_through(SOME);
    let early = Cloning::start(cluster.nodes[1].http, PATH, &["-c", "protocol.version=0"], &[]);
    eventually("it is being fetched", || async { upstream.packs(REPO) == 2 }).await;
    upstream.commit(REPO, &[("README", b"new")]).await;
    let late = Cloning::start(cluster.nodes[2].http, PATH, &[], &[]);
    until_all_wait(std::slice::from_ref(&late)).await;
    upstream.let_through(usize::MAX);
    assert_eq!(late.end().await.unwrap().read("README"), "new");
    drop(early);
}

#[tokio::test]
async fn shallow_clones_wait_as_long_and_clients_of_old_protocols_are_told_to_come_back() {
    let (upstream, cluster) = slow().await;
    let shallow = Cloning::start(cluster.nodes[0].http, PATH, &[], &["--depth=1"]);
    let quiet = Cloning::start(cluster.nodes[1].http, PATH, &[], &["--quiet"]);
    let old = Cloning::start(cluster.nodes[2].http, PATH, &["-c", "protocol.version=0"], &[]);
    let complaint = old.end().await.err().expect("it is not here yet");
    assert!(complaint.contains("504"), "{complaint}");
    let lets_through = async {
        until_patience_has_passed(&cluster).await;
        for clone in [&shallow, &quiet] {
            assert!(!clone.words().contains("fatal"), "{}", clone.words());
        }
        upstream.let_through(usize::MAX);
    };
    // Who waits for an update says so, and is patient, too.
    let (updated, ()) = tokio::join!(cluster.nodes[0].ask(&["update", REPO, "--wait"]), lets_through);
    updated.unwrap();
    let shallow = shallow.end().await.unwrap();
    assert_eq!(shallow.git(&["rev-list", "--count", "HEAD"]).await.unwrap(), "1");
    assert_eq!(quiet.end().await.unwrap().read("README"), "hello");
    assert_eq!(upstream.packs(REPO), 1);
}

#[tokio::test]
async fn a_clone_whose_origin_breaks_off_fails_with_the_reason_and_one_that_goes_away_takes_nothing_along() {
    let (upstream, cluster) = slow().await;
    let clones: Vec<_> = cluster.nodes.iter().map(|node| Cloning::start(node.http, PATH, &[], &[])).collect();
    until_all_wait(&clones).await;
    until_patience_has_passed(&cluster).await;
    upstream.break_off();
    for clone in join_all(clones.into_iter().map(Cloning::end)).await {
        let complaint = clone.err().expect("there is nothing to clone");
        assert!(complaint.contains("remote: no node could answer for some/repo"), "{complaint}");
    }

    upstream.let_through(SOME);
    eventually("it is fetched again", || async {
        let clone = Cloning::start(cluster.nodes[0].http, PATH, &[], &[]);
        until_all_wait(std::slice::from_ref(&clone)).await;
        true
    })
    .await;
    let stays = Cloning::start(cluster.nodes[1].http, PATH, &[], &[]);
    until_all_wait(std::slice::from_ref(&stays)).await;
    upstream.let_through(usize::MAX);
    assert_eq!(stays.end().await.unwrap().read("README"), "hello");
}

#[tokio::test]
async fn a_slow_repository_without_a_commit_is_cloned_with_the_name_of_its_branch() {
    let upstream = Upstream::start().await;
    upstream.create_empty("some/empty").await;
    // Longer than what is fetched at once.
    upstream.set_delay(Duration::from_millis(800));
    let cluster = Cluster::start(2, QUICK, &["--git", &upstream.git_template()]).await;
    let clones = cluster.nodes.iter().map(|node| Checkout::clone(node.http, "/some/empty", &[]));
    for clone in join_all(clones).await {
        let head = clone.unwrap().git(&["symbolic-ref", "HEAD"]).await.unwrap();
        assert_eq!(head, "refs/heads/trunk");
    }
}

#[tokio::test]
async fn a_repository_that_is_not_there_or_not_allowed_is_refused_at_once_also_while_another_is_slow() {
    let upstream = Upstream::start().await;
    upstream.let_through(SOME);
    let cluster = Cluster::start(2, QUICK, &["--git", &upstream.git_template(), "--allow", "some/*"]).await;
    let missing = Checkout::clone(cluster.nodes[0].http, "/some/none", &[]).await.err().unwrap();
    assert!(missing.contains("not found"), "{missing}");
    let forbidden = Checkout::clone(cluster.nodes[1].http, "/other/none", &[]).await.err().unwrap();
    assert!(forbidden.contains("403"), "{forbidden}");
}

/// A GET of a file, of a part of it or on a condition.
async fn ask(port: u16, path: &str, fields: &[(&str, &str)]) -> Result<Answer, String> {
    let request = fields.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    send(port, request.body(Empty::new()).unwrap()).await
}

/// A GET of a file, and what has come of its answer when that has begun.
async fn begin(port: u16, path: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while answer.len() < 10_000 {
        let read = tokio::time::timeout(DEADLINE, stream.read_buf(&mut answer)).await.expect("it begins in time");
        assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    let head = String::from_utf8_lossy(&answer[..1_000]).to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 2097152\r\n"), "{head}");
    (stream, answer)
}

#[tokio::test]
async fn a_part_of_a_file_is_had_from_every_node_as_soon_as_it_is_there() {
    let upstream = Upstream::start().await;
    let content: Bytes = noise(4 << 20).into();
    upstream.put_file("large", content.clone(), "application/x-special");
    upstream.let_through(1 << 20);
    let cluster = Cluster::start(3, QUICK, &["--files", &upstream.files_url()]).await;
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.http).collect();
    let first = ports.iter().map(|port| ask(*port, "/large", &[("range", "bytes=0-0")]));
    for part in join_all(first).await {
        let part = part.unwrap();
        assert_eq!((part.status, &part.body), (StatusCode::PARTIAL_CONTENT, &content.slice(..1)));
        assert_eq!(part.header("content-range"), "bytes 0-0/4194304");
        assert_eq!((part.header("etag"), part.header("content-type")), ("\"4194304\"", "application/x-special"));
        assert!(part.header("cache-status").contains("miss"), "{:?}", part.headers);
    }
    for node in &cluster.nodes {
        assert!(node.ready_holders("large").await.is_empty(), "the origin has not sent it all");
    }

    let tagged = [("range", "bytes=1000-1009"), ("if-range", "\"4194304\"")];
    for port in &ports {
        let part = ask(*port, "/large", &tagged).await.unwrap();
        assert_eq!((part.status, &part.body), (StatusCode::PARTIAL_CONTENT, &content.slice(1000..1010)));
    }
    // The end, more than there is, another version, several parts, and all of it.
    let later = ports.iter().flat_map(|port| {
        [
            (&[("range", "bytes=-10")][..], StatusCode::PARTIAL_CONTENT, (4 << 20) - 10..4 << 20),
            (&[("range", "bytes=10-2097161")], StatusCode::PARTIAL_CONTENT, 10..(2 << 20) + 10),
            (&[("range", "bytes=0-0"), ("if-range", "\"other\"")], StatusCode::OK, 0..4 << 20),
            (&[("range", "bytes=0-0,2-3")], StatusCode::OK, 0..4 << 20),
            (&[], StatusCode::OK, 0..4 << 20),
        ]
        .map(|(fields, status, range)| {
            let content = content.slice(range);
            let port = *port;
            tokio::spawn(async move { (ask(port, "/large", fields).await, status, content) })
        })
    });
    let later: Vec<_> = later.collect();
    let part = ask(ports[0], "/large", &[("range", "bytes=1048000-1048575")]).await.unwrap();
    assert_eq!((part.status, &part.body), (StatusCode::PARTIAL_CONTENT, &content.slice(1_048_000..1 << 20)));
    assert!(later.iter().all(|asked| !asked.is_finished()), "the origin has not sent what they want");
    upstream.let_through(usize::MAX);
    for asked in join_all(later).await {
        let (answer, status, content) = asked.unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{:?}", answer.headers);
        assert!(answer.body == content, "{} bytes of {}", answer.body.len(), content.len());
    }
    assert_eq!(upstream.reads("large"), 1);
}

#[tokio::test]
async fn a_part_that_never_comes_is_the_failure_of_its_fetch() {
    let upstream = Upstream::start().await;
    upstream.put_file("large", noise(2 << 20), "text/plain");
    upstream.let_through(SOME);
    let cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url()]).await;
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.http).collect();
    let begun = ports.iter().map(|port| ask(*port, "/large", &[("range", "bytes=0-0")]));
    assert!(join_all(begun).await.into_iter().all(|part| part.unwrap().status == StatusCode::PARTIAL_CONTENT));
    let far = ports.iter().map(|port| {
        let port = *port;
        tokio::spawn(async move { ask(port, "/large", &[("range", "bytes=1000000-1000000")]).await })
    });
    let far: Vec<_> = far.collect();
    let whole = join_all(ports.iter().map(|port| begin(*port, "/large"))).await;
    upstream.break_off();
    for (mut stream, mut answer) in whole {
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it ends in time");
        assert!(answer.len() < 2 << 20, "{read:?}: {} bytes are no success", answer.len());
    }
    for part in join_all(far).await {
        let part = part.unwrap().unwrap();
        assert_eq!(part.status, StatusCode::BAD_GATEWAY, "{}", part.text());
        assert_eq!(part.problem()["key"], "large");
    }
}
