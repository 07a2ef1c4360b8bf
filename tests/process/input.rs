//! Requests that nobody honest makes: refused with a reason, before anything is asked or written.

use super::harness::{Cluster, QUICK, Upstream, raw};

/// What a request is answered with, as far as the request line goes.
const REFUSED: &[(&str, &str)] = &[
    ("up", "/../x"),
    ("up, inside", "/a/../../etc/passwd"),
    ("up, escaped", "/%2e%2e/x"),
    ("up, half escaped", "/a/.%2e/%2E./etc/passwd"),
    ("up, escaped slash", "/a%2f..%2f..%2fx"),
    ("up, escaped twice", "/%252e%252e/x"),
    ("here", "/./x"),
    ("nul", "/a%00b"),
    ("backslash", "/a%5cb"),
    ("newline", "/a%0d%0aHost:%20evil.example"),
    ("control character", "/a%1bb"),
    ("no UTF-8", "/a%ff%feb"),
    ("broken escape", "/a%zz"),
    ("an option", "/-x"),
    ("an option, further in", "/a/--upload-pack=id"),
    ("empty component", "/a//b"),
    ("another host", "//evil.example/x"),
    ("another scheme", "/ext::sh%20-c%20id"),
    ("a command", "/a;id"),
    ("a substitution", "/$(id)"),
    ("a query, escaped", "/a%3fb"),
    ("a fragment, escaped", "/a%23b"),
    ("inside a repository", "/a.git/config"),
];

#[tokio::test]
async fn what_cannot_be_a_repository_is_refused_before_anything_is_asked_or_written() {
    let upstream = Upstream::start().await;
    let cluster = Cluster::start(2, QUICK, &["--git", &upstream.git_template()]).await;
    let kept: Vec<_> = cluster.nodes.iter().map(|node| node.kept()).collect();
    let mut wrong = Vec::new();
    for tail in ["", "/info/refs?service=git-upload-pack"] {
        let long = format!("/{}", "k".repeat(10_000));
        for (what, target) in REFUSED.iter().chain(&[("a very long key", long.as_str())]) {
            let (status, body) = raw(cluster.nodes[0].http, "GET", &format!("{target}{tail}")).await;
            let problem: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            let reason = problem["detail"].as_str().unwrap_or_default();
            if status != 400 || reason.is_empty() {
                wrong.push(format!("{what}: {target:.40}{tail}: {status} {body}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(upstream.requests(), 0, "nothing was asked");
    for (node, kept) in cluster.nodes.iter().zip(kept) {
        assert_eq!(node.kept(), kept, "nothing was written");
        assert_eq!(node.status().await.unwrap()["keys"], 0);
    }
}

#[tokio::test]
async fn pushing_and_the_dumb_protocol_are_refused_and_leave_the_upstream_alone() {
    let upstream = Upstream::start().await;
    upstream.create("some/repo", &[("file", b"one")]).await;
    let cluster = Cluster::start(2, QUICK, &["--git", &upstream.git_template()]).await;
    let port = cluster.nodes[0].http;
    assert_eq!(raw(port, "GET", "/some/repo/info/refs?service=git-upload-pack").await.0, 200);
    cluster.until_held("some/repo", 2).await;
    let asked = upstream.requests();
    for (method, target, status) in [
        ("GET", "/some/repo/info/refs?service=git-receive-pack", 403),
        ("POST", "/some/repo/git-receive-pack", 403),
        ("GET", "/some/repo/HEAD", 403),
        ("GET", "/some/repo/info/refs", 403),
        ("GET", "/some/repo/info/refs?service=git-upload-pack%00", 403),
        ("DELETE", "/some/repo", 404),
    ] {
        let (found, body) = raw(port, method, target).await;
        assert_eq!(found, status, "{method} {target}: {body}");
    }
    assert_eq!(upstream.requests(), asked);
    assert_eq!(cluster.nodes[0].ready_holders("some/repo").await.len(), 2, "and nobody lost the key over it");
}

#[tokio::test]
async fn a_file_outside_the_source_is_not_to_be_had_however_its_path_is_written() {
    let outer = tempfile::tempdir().unwrap();
    let source = outer.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("public"), "public").unwrap();
    std::fs::write(outer.path().join("secret"), "a secret").unwrap();
    std::os::unix::fs::symlink(outer.path().join("secret"), source.join("link")).unwrap();
    let cluster = Cluster::start(2, QUICK, &["--files", source.to_str().unwrap()]).await;
    let port = cluster.nodes[0].http;
    assert_eq!(raw(port, "GET", "/public").await.0, 200);
    for target in
        ["/../secret", "/%2e%2e/secret", "/public/../../secret", "/..%2fsecret", "/link", "/.%00./secret", "//secret"]
    {
        let (status, body) = raw(port, "GET", target).await;
        assert!(matches!(status, 400 | 404), "{target}: {status}");
        assert!(!body.contains("a secret"), "{target}");
    }
    // Nor anything that a node keeps for itself.
    let folder = cluster.folder().to_path_buf();
    assert!(folder.join("cluster.key").exists());
    assert_eq!(raw(port, "GET", folder.join("cluster.key").to_str().unwrap()).await.0, 404);
}
