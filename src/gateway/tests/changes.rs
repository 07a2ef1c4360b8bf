//! Changes under `/-/`, and who may make them.

use super::*;

#[tokio::test]
async fn an_update_can_be_waited_for_or_not() {
    let front = front().await;
    let waited = front.post("/-/update/a/b?wait=true").await;
    assert_eq!(waited.status(), StatusCode::OK);
    assert_eq!(json_of(&waited), json!({ "key": "a/b", "replicas": [{ "node": "n1", "error": null }] }));
    let started = front.post("/-/update/c").await;
    assert_eq!(started.status(), StatusCode::ACCEPTED);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while json_of(&front.get("/-/keys").await) != json!(["a/b", "c"]) {
        assert!(tokio::time::Instant::now() < deadline, "the update was not done");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(front.post("/-/update/no/such?wait=true").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(front.get("/-/update/a").await.status(), StatusCode::METHOD_NOT_ALLOWED);
    front.stop().await;
}

#[tokio::test]
async fn many_hooks_for_a_key_are_one_update_that_runs_and_one_to_follow() {
    let front = front().await;
    let begun = async |count: usize| {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while front.echo.begun.load(Ordering::SeqCst) < count {
            assert!(tokio::time::Instant::now() < deadline, "update {count} did not begin");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    front.echo.allowed.send_replace(1);
    assert_eq!(front.post("/-/update/gated?wait=true").await.status(), StatusCode::OK);
    for _ in 0..20 {
        assert_eq!(front.post("/-/update/gated").await.status(), StatusCode::ACCEPTED);
    }
    begun(2).await;
    assert_eq!(front.post("/-/update/gated").await.status(), StatusCode::ACCEPTED, "after that one has looked");
    front.echo.allowed.send_replace(2);
    begun(3).await;
    front.echo.allowed.send_replace(4);
    assert_eq!(front.post("/-/update/gated?wait=true").await.status(), StatusCode::OK);
    assert_eq!(front.echo.begun.load(Ordering::SeqCst), 4, "this one asked after the others");
    front.stop().await;
}

#[tokio::test]
async fn pins_are_set_listed_and_taken_back() {
    let front = front().await;
    let change = async |method: Method, path: &str| front.change(method, path).await;
    let recorded = change(Method::PUT, "/-/pins/a/b?replicas=3").await;
    assert_eq!(recorded.status(), StatusCode::OK);
    assert_eq!(json_of(&recorded), json!({ "key": "a/b", "confirmed": ["n1"], "lacking": [] }));
    assert_eq!(change(Method::PUT, "/-/pins/org/%2A").await.status(), StatusCode::OK);
    let both = json!([{ "key": "a/b", "replicas": 3 }, { "key": "org/*", "replicas": 2 }]);
    assert_eq!(json_of(&front.get("/-/pins").await), both);
    assert_eq!(json_of(&front.get("/-/locate/org/x").await)["pinned"], true);
    assert_eq!(change(Method::DELETE, "/-/pins/org/%2A").await.status(), StatusCode::OK);
    assert_eq!(change(Method::DELETE, "/-/keys/a/b").await.status(), StatusCode::OK);
    assert_eq!(json_of(&front.get("/-/pins").await), json!([]), "what is forgotten is not pinned");
    for (method, path, status) in [
        (Method::PUT, "/-/pins/a?replicas=9", 400),
        (Method::PUT, "/-/pins/a?replicas=x", 400),
        (Method::PUT, "/-/pins/a//b", 400),
        (Method::DELETE, "/-/keys/org/%2A", 400),
        (Method::GET, "/-/pins/a", 405),
        (Method::GET, "/-/keys/a", 405),
    ] {
        assert_eq!(change(method, path).await.status(), status, "{path}");
    }
    front.stop().await;
}

#[tokio::test]
async fn changes_need_the_admin_token_also_from_this_machine() {
    let front = front().await;
    for (method, path) in [
        (Method::POST, "/-/update/a"),
        (Method::PUT, "/-/pins/a"),
        (Method::DELETE, "/-/pins/a"),
        (Method::DELETE, "/-/keys/a"),
        (Method::POST, "/-/members/n1/drain"),
        (Method::DELETE, "/-/members/n1"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Full::default()).unwrap();
        let refused = front.ask(request).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(refused.headers()["www-authenticate"], "Bearer, Basic realm=\"datad-gossip\"", "{path}");
    }
    let basic = Request::post("/-/update/a?wait=true").header("authorization", "Basic eDpzZWNyZXQ=");
    assert_eq!(front.ask(basic.body(Full::default()).unwrap()).await.status(), StatusCode::OK);
    assert_eq!(front.get("/-/status").await.status(), StatusCode::OK);
    front.stop().await;
}

#[tokio::test]
async fn a_gateway_without_a_token_takes_changes_over_its_unix_socket_only() {
    let folder = tempfile::tempdir().unwrap();
    let (node, echo) = node(Vec::new()).await;
    node.serving().await.unwrap();
    let gateway = Gateway::builder(node.client()).build();
    let (listener, path) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), folder.path().join("admin.sock"));
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move { drop(stopped.wait_for(|stop| *stop).await) };
    let socket = tokio::net::UnixListener::bind(&path).unwrap();
    let serving = [
        tokio::spawn(gateway.clone().serve(listener, until(stopped.clone()))),
        tokio::spawn(gateway.serve_unix(socket, until(stopped))),
    ];
    let pin = || Request::put("/-/pins/a").header("host", "anything").body(Full::<Bytes>::default()).unwrap();
    let refused =
        exchange(TcpStream::connect(address).await.unwrap(), Request::put("/-/pins/a").body(Full::default()).unwrap())
            .await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(text(&refused).contains("Unix socket"), "{}", text(&refused));
    let accepted = exchange(tokio::net::UnixStream::connect(&path).await.unwrap(), pin()).await;
    assert_eq!(accepted.status(), StatusCode::OK, "{}", text(&accepted));
    stop.send_replace(true);
    for serving in serving {
        tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    }
    node.shutdown().await;
    drop(echo);
}

#[tokio::test]
async fn a_name_that_was_made_to_lead_here_gets_nothing() {
    let front = front_with(|gateway| gateway.host_name("Node.Example")).await;
    for (host, expected) in [("evil.example", 421), ("node.example", 200), ("localhost:1", 200), ("127.0.0.1", 200)] {
        for (method, path) in [(Method::GET, "/a"), (Method::GET, "/-/status"), (Method::PUT, "/-/pins/a")] {
            let request = Request::builder().method(&method).uri(path).header("host", host);
            let request = request.header("authorization", format!("Bearer {TOKEN}"));
            let answered = front.ask(request.body(Full::default()).unwrap()).await;
            assert_eq!(answered.status(), expected, "{method} {path} at {host}: {}", text(&answered));
            if expected == 421 {
                assert_eq!(json_of(&answered)["type"], "urn:datad-gossip:problem:wrong-host");
                assert!(text(&answered).contains("--host-name"), "{}", text(&answered));
            }
        }
    }
    front.stop().await;
}
