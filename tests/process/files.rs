//! Whole and partial files, conditions, types, and paths that are not there.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Empty;
use serde_json::{Value, json};

use super::harness::{Answer, Cluster, QUICK, Upstream, eventually, get, send};

async fn ask(port: u16, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    send(port, request.body(Empty::new()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_file_is_had_whole_in_part_and_on_condition_through_a_node_that_does_not_hold_it() {
    let upstream = Upstream::start().await;
    let content: Bytes = (0..=255_u8).cycle().take(1 << 20).collect();
    upstream.put_file("data/blob.bin", content.clone(), "application/x-special");
    let cluster = Cluster::start(3, QUICK, &["--files", &upstream.files_url()]).await;
    let first = get(cluster.nodes[0].http, "/data/blob.bin").await.unwrap();
    assert_eq!((first.status, &first.body), (StatusCode::OK, &content), "{}", first.status);
    let holders = cluster.until_held("data/blob.bin", 2).await;
    let port = cluster.other_than(&holders).http;

    let whole = ask(port, "GET", "/data/blob.bin", &[]).await;
    assert_eq!((whole.status, &whole.body), (StatusCode::OK, &content));
    assert_eq!(whole.header("content-type"), "application/x-special");
    assert!(holders.contains(&whole.header("x-datad-node").to_owned()));
    assert!(whole.header("cache-status").contains("hit"), "{:?}", whole.headers);

    let head = ask(port, "HEAD", "/data/blob.bin", &[]).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-length"), content.len().to_string());
    assert_eq!(head.header("accept-ranges"), "bytes");

    for (range, expected) in
        [("bytes=10-19", 10..20), ("bytes=1048570-", 1_048_570..1 << 20), ("bytes=-6", 1_048_570..1 << 20)]
    {
        let part = ask(port, "GET", "/data/blob.bin", &[("range", range)]).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(part.body, content.slice(expected.clone()), "{range}");
        let said = format!("bytes {}-{}/{}", expected.start, expected.end - 1, content.len());
        assert_eq!(part.header("content-range"), said);
    }
    let beyond = ask(port, "GET", "/data/blob.bin", &[("range", "bytes=2000000-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);

    let etag = whole.header("etag");
    let same = ask(port, "GET", "/data/blob.bin", &[("if-none-match", etag)]).await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let changed = ask(port, "GET", "/data/blob.bin", &[("if-none-match", "\"other\"")]).await;
    assert_eq!(changed.status, StatusCode::OK);
    let stale = ask(port, "GET", "/data/blob.bin", &[("range", "bytes=0-9"), ("if-range", "\"other\"")]).await;
    assert_eq!((stale.status, &stale.body), (StatusCode::OK, &content), "a part of something else is of no use");
    assert_eq!(upstream.reads("data/blob.bin"), 1);
}

#[tokio::test]
async fn files_asked_for_the_moment_a_node_has_joined_are_fetched_once_each() {
    let upstream = Upstream::start().await;
    upstream.set_delay(Duration::from_millis(300));
    let mut cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url()]).await;
    let joins = cluster.node("n3");
    cluster.nodes.push(joins);
    for round in 0..3 {
        let keys: Vec<String> = (0..16).map(|number| format!("{round}/file{number}")).collect();
        for key in &keys {
            upstream.put_file(key, key.clone(), "text/plain");
        }
        cluster.by_name_mut("n3").restart().await;
        // The others do not all know yet that it serves: they differ about who is to fetch what.
        let requests = keys.iter().flat_map(|key| cluster.nodes.iter().map(move |node| (key, node.http)));
        let answers = join_all(requests.map(|(key, port)| async move { (key, get(port, &format!("/{key}")).await) }));
        for (key, answer) in answers.await {
            assert_eq!(answer.unwrap().text(), *key);
        }
        let twice: Vec<_> = keys.iter().filter(|key| upstream.reads(key) != 1).collect();
        assert!(twice.is_empty(), "{twice:?} of {}", keys.len());
        assert_eq!(cluster.by_name_mut("n3").sigterm().await.code(), Some(0));
        cluster.until_members_are(2).await;
    }
}

#[tokio::test]
async fn a_path_that_is_not_there_inside_a_held_key_is_404_and_moves_nothing() {
    let source = tempfile::tempdir().unwrap();
    let site = source.path().join("site");
    std::fs::create_dir_all(site.join("deep")).unwrap();
    for (name, text) in [("index.html", "<p>hello"), ("style.css", "p {}"), ("deep/data.json", "{}")] {
        std::fs::write(site.join(name), text).unwrap();
    }
    let cluster = Cluster::start(3, QUICK, &["--files", source.path().to_str().unwrap(), "--key-depth", "1"]).await;
    assert_eq!(get(cluster.nodes[0].http, "/site/index.html").await.unwrap().text(), "<p>hello");
    let holders = cluster.until_held("site", 2).await;
    let located = cluster.nodes[0].locate("site").await;
    for node in &cluster.nodes {
        for (path, content_type) in [
            ("/site/index.html", "text/html"),
            ("/site/style.css", "text/css"),
            ("/site/deep/data.json", "application/json"),
        ] {
            let answer = get(node.http, path).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert!(answer.header("content-type").starts_with(content_type), "{path}: {:?}", answer.headers);
        }
        for path in ["/site/nothing", "/site/deep", "/site/deep/nothing.json"] {
            for _ in 0..5 {
                let answer = get(node.http, path).await.unwrap();
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path} at {}", node.name);
            }
        }
    }
    for node in &cluster.nodes {
        assert_eq!(node.locate("site").await, located, "as {} sees it", node.name);
        assert_eq!(node.ready_holders("site").await, holders);
    }
    assert_eq!(get(cluster.nodes[0].http, "/nowhere/x").await.unwrap().status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_update_that_is_waited_for_says_which_holder_could_not_follow_and_fails() {
    let upstream = Upstream::start().await;
    upstream.put_file("f", "old", "text/plain");
    let cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url()]).await;
    get(cluster.nodes[0].http, "/f").await.unwrap();
    cluster.until_held("f", 2).await;
    let owners = cluster.nodes[0].locate("f").await["owners"].clone();
    let (first, second) = (owners[0].as_str().unwrap(), owners[1].as_str().unwrap());
    let updated = cluster.by_name(first).ask(&["update", "f", "--wait", "--json"]).await.unwrap();
    let updated: Value = serde_json::from_str(&updated).unwrap();
    let replica = |name: &str, error: Value| json!({ "node": name, "error": error });
    assert_eq!(updated["replicas"], json!([replica(first, Value::Null), replica(second, Value::Null)]));

    // Where it would put new data together there is something else.
    let scratch = cluster.by_name(second).data.join("files/tmp");
    std::fs::remove_dir_all(&scratch).unwrap();
    std::fs::write(&scratch, "").unwrap();
    upstream.put_file("f", "newer", "text/plain");
    let error = cluster.by_name(second).ask(&["update", "f", "--wait"]).await.unwrap_err();
    assert!(error.contains("1 of 2 replicas could not be updated"), "{error}");
    let authorization = cluster.nodes[0].authorization();
    let answer =
        ask(cluster.nodes[0].http, "POST", "/-/update/f?wait=true", &[("authorization", &authorization)]).await;
    let said: Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!((answer.status, &said["replicas"][0]), (StatusCode::OK, &replica(first, Value::Null)));
    assert_eq!(said["replicas"][1]["node"], second);
    assert!(said["replicas"][1]["error"].as_str().unwrap().contains("directory"), "{said}");
    assert_eq!(get(cluster.by_name(first).http, "/f").await.unwrap().text(), "newer");
}

#[tokio::test]
async fn who_asks_explicitly_asks_the_origin_whatever_is_remembered_of_it() {
    let upstream = Upstream::start().await;
    let cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url()]).await;
    for node in &cluster.nodes {
        assert_eq!(get(node.http, "/late").await.unwrap().status, StatusCode::NOT_FOUND);
    }
    upstream.put_file("late", "there", "text/plain");
    for node in &cluster.nodes {
        assert_eq!(get(node.http, "/late").await.unwrap().status, StatusCode::NOT_FOUND, "it is remembered");
    }
    // Not the leader, or it; in turn.
    for (number, node) in cluster.nodes.iter().enumerate() {
        let key = format!("late{number}");
        assert_eq!(get(node.http, &format!("/{key}")).await.unwrap().status, StatusCode::NOT_FOUND);
        upstream.put_file(&key, "there", "text/plain");
        let authorization = node.authorization();
        let path = format!("/-/update/{key}?wait=true");
        let answer = ask(node.http, "POST", &path, &[("authorization", &authorization)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(get(node.http, &format!("/{key}")).await.unwrap().text(), "there");
    }
}

#[tokio::test]
async fn an_origin_that_asks_for_patience_is_left_alone_and_the_client_is_told_how_long() {
    let upstream = Upstream::start().await;
    upstream.ask_for_patience("/files/busy", 403, 30);
    upstream.ask_for_patience("/git/org/busy.git/info/refs", 429, 40);
    let cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url()]).await;
    for node in &cluster.nodes {
        let answer = get(node.http, "/busy").await.unwrap();
        let said = (answer.status.as_u16(), answer.header("retry-after"));
        assert_eq!(said, (503, "30"), "{}", answer.text());
        assert!(answer.problem()["detail"].as_str().unwrap().contains("403"), "{}", answer.text());
    }
    assert_eq!(upstream.requests(), 1);

    let cluster = Cluster::start(1, QUICK, &["--git", &upstream.git_template()]).await;
    let answer = get(cluster.nodes[0].http, "/org/busy/info/refs?service=git-upload-pack").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "40"), "{}", answer.text());
}

#[tokio::test]
async fn what_a_full_queue_has_no_place_for_is_put_off_and_not_failed() {
    let upstream = Upstream::start().await;
    upstream.set_delay(Duration::from_millis(300));
    let config = format!("{QUICK}updaters = 1\nupdate_queue = 1\n");
    let cluster = Cluster::start_with(1, &config, &["--files", &upstream.files_url()], |_| {}).await;
    let paths: Vec<String> = (0..8).map(|number| format!("file{number}")).collect();
    for path in &paths {
        upstream.put_file(path, "content", "text/plain");
    }
    let port = cluster.nodes[0].http;
    let answers = join_all(paths.iter().map(|path| async move { get(port, &format!("/{path}")).await.unwrap() })).await;
    let (taken, put_off): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == StatusCode::OK);
    assert!(!taken.is_empty() && !put_off.is_empty(), "{} are taken", taken.len());
    for answer in put_off {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
        assert_eq!(answer.header("retry-after"), "1");
    }
}

#[tokio::test]
async fn a_pin_that_cannot_be_kept_is_refused_or_named_with_its_reason() {
    let upstream = Upstream::start().await;
    let cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url(), "--allow", "data/*"]).await;
    let node = &cluster.nodes[0];
    let refused = node.ask(&["pin", "other/a"]).await.unwrap_err();
    assert!(refused.contains("other/a") && refused.contains("allowed patterns"), "{refused}");
    let refused = cluster.nodes[0].ask(&["pin", "other/*"]).await.unwrap_err();
    assert!(refused.contains("other/*") && refused.contains("allowed patterns"), "{refused}");
    for pattern in ["*a/b", "dat?/c*"] {
        cluster.nodes[0].ask(&["pin", pattern]).await.unwrap();
        cluster.nodes[0].ask(&["unpin", pattern]).await.unwrap();
    }
    assert!(!node.ask(&["pins"]).await.unwrap().contains("other/a"));

    node.ask(&["pin", "data/typo"]).await.unwrap();
    let reason = "the origin has no such key";
    for node in &cluster.nodes {
        eventually(&format!("{} names the key and why it is missing", node.name), || async {
            let listed = node.ask(&["keys", "--under-replicated", "--json"]).await.unwrap();
            let listed: Value = serde_json::from_str(&listed).unwrap();
            listed[0]["key"] == "data/typo" && listed[0]["reason"].as_str().is_some_and(|said| said.contains(reason))
        })
        .await;
        let explained = node.ask(&["locate", "data/typo", "--explain"]).await.unwrap();
        assert!(explained.contains(reason), "{explained}");
        let shown = node.ask(&["status"]).await.unwrap();
        assert!(shown.contains("lacks replicas") && shown.contains("data/typo: 0 of 2"), "{shown}");
        assert!(node.ask(&["keys", "--under-replicated", "elsewhere/", "--json"]).await.unwrap().trim() == "[]");
    }
    upstream.put_file("data/typo", "there after all", "text/plain");
    node.ask(&["update", "data/typo", "--wait"]).await.unwrap();
    cluster.until_held("data/typo", 2).await;
    eventually("nothing is missing any more", || async {
        node.ask(&["keys", "--under-replicated", "--json"]).await.unwrap().trim() == "[]"
    })
    .await;
}

#[tokio::test]
async fn the_head_of_a_cold_file_is_had_without_the_file_and_is_what_is_said_of_it_afterwards() {
    let upstream = Upstream::start().await;
    upstream.put_file("large", vec![7; 1 << 20], "application/x-special");
    let cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url()]).await;
    let port = cluster.nodes[0].http;
    let before = ask(port, "HEAD", "/large", &[]).await;
    assert_eq!((before.status, upstream.reads("large")), (StatusCode::OK, 0));
    let same = ask(port, "HEAD", "/large", &[("if-none-match", before.header("etag"))]).await;
    assert_eq!((same.status, upstream.reads("large")), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(ask(port, "HEAD", "/none", &[]).await.status, StatusCode::NOT_FOUND);
    get(port, "/large").await.unwrap();
    let after = ask(port, "HEAD", "/large", &[]).await;
    for name in ["content-length", "content-type", "etag", "last-modified", "accept-ranges"] {
        assert!(!before.header(name).is_empty(), "{name}");
        assert_eq!(before.header(name), after.header(name), "{name}");
    }
    assert_eq!(upstream.reads("large"), 1);
}

#[tokio::test]
async fn what_the_origin_denies_or_refuses_is_not_asked_for_again_by_each_request() {
    let upstream = Upstream::start().await;
    upstream.put_file("secret", "content", "text/plain");
    let cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url()]).await;
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.http).collect();
    for (path, status) in [("/none", StatusCode::NOT_FOUND), ("/secret", StatusCode::FORBIDDEN)] {
        if path == "/secret" {
            upstream.set_authorization("Basic eDp4");
        }
        for port in &ports {
            assert_eq!(ask(*port, "HEAD", path, &[]).await.status, status, "{path}");
        }
        let asked = upstream.requests();
        for port in ports.iter().cycle().take(6) {
            for method in ["GET", "HEAD"] {
                assert_eq!(ask(*port, method, path, &[]).await.status, status, "{method} {path}");
            }
        }
        assert_eq!(upstream.requests(), asked, "{path}");
    }
}

#[tokio::test]
async fn a_request_that_changes_nothing_here_makes_no_node_fetch_the_file() {
    let upstream = Upstream::start().await;
    upstream.put_file("data/file", "content", "text/plain");
    let cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url()]).await;
    for method in ["POST", "PUT", "DELETE"] {
        let refused = ask(cluster.nodes[0].http, method, "/data/file", &[]).await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(refused.header("allow"), "GET, HEAD");
    }
    assert_eq!(upstream.requests(), 0);
    assert_eq!(get(cluster.nodes[1].http, "/data/file").await.unwrap().text(), "content");
}
