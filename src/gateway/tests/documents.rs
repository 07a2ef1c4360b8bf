//! The documents under `/-/`.

use super::*;

#[tokio::test]
async fn the_documents_say_what_the_node_knows() {
    let front = front().await;
    assert_eq!(front.get("/-/readyz").await.status(), StatusCode::OK);
    for path in ["/a", "/b/1", "/b/2", "/b/3"] {
        assert_eq!(front.get(path).await.status(), StatusCode::OK);
    }
    let status = json_of(&front.get("/-/status").await);
    assert_eq!((&status["node"], &status["members"], &status["keys"]), (&json!("n1"), &json!(1), &json!(4)));
    for field in ["under_replicated", "fetching", "converged"] {
        assert!(!status[field].is_null(), "{field}");
    }
    let members = json_of(&front.get("/-/members").await);
    assert_eq!(members[0]["name"], "n1");
    assert_eq!((&members[0]["state"], &members[0]["keys"]), (&json!("serving"), &json!(4)));
    assert_eq!(members[0]["accepting"], true);
    let located = json_of(&front.get("/-/locate/b%2f1").await);
    assert_eq!(
        located,
        json!({ "key": "b/1", "owners": ["n1"], "holders": [{ "node": "n1", "state": "ready" }], "pinned": false })
    );
    let explained = json_of(&front.get("/-/locate/b%2f1?explain=true").await);
    assert_eq!((&explained["key"], &explained["places"][0]["owner"]), (&json!("b/1"), &json!(true)));
    assert_eq!(explained["nodes"][0]["intention"], json!({ "action": "nothing", "waits_for": null }));
    assert_eq!(front.get("/-/locate/b%2f1?explain=maybe").await.status(), StatusCode::BAD_REQUEST);
    let planned = json_of(&front.get("/-/plan?with=n2=100").await);
    assert_eq!((&planned["keys"], &planned["nodes"][1]["node"]), (&json!(4), &json!("n2")));
    for wrong in ["/-/plan?without=nobody", "/-/plan?with=n2", "/-/plan?with=n2=x", "/-/plan?who=n2"] {
        assert_eq!(front.get(wrong).await.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(front.get("/-/locate/b//1").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(front.post("/-/status").await.status(), StatusCode::METHOD_NOT_ALLOWED);
    front.stop().await;
}

#[tokio::test]
async fn a_hundred_explanations_have_few_descriptions_made_at_once_and_the_node_still_says_how_it_is() {
    let front = front().await;
    front.get("/a").await;
    front.echo.mute.send_replace(true);
    let asks = futures::future::join_all((0..100).map(|_| front.get("/-/locate/a?explain=true")));
    let others = async {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while front.echo.describing.load(Ordering::SeqCst) < DESCRIBING_MAX {
            assert!(tokio::time::Instant::now() < deadline, "no more than one is made at once");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Answered while none of the hundred is: nothing lets them go on before this.
        for path in ["/-/healthz", "/-/readyz", "/-/status", "/-/locate/a", "/a"] {
            assert_eq!(front.get(path).await.status(), StatusCode::OK, "{path}");
        }
        front.echo.mute.send_replace(false);
    };
    let (answers, ()) = tokio::join!(asks, others);
    let count = |wanted| answers.iter().filter(|answer| answer.status() == wanted).count();
    let (explained, turned_away) = (count(StatusCode::OK), count(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(explained + turned_away, 100);
    assert!(explained >= DESCRIBING_MAX, "{explained} were explained");
    for answer in answers.iter().filter(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE) {
        assert!(answer.headers().contains_key(header::RETRY_AFTER));
        assert!(json_of(answer)["detail"].as_str().unwrap().contains("explanations"), "{:?}", answer.body());
    }
    assert_eq!(front.echo.describing_most.load(Ordering::SeqCst), DESCRIBING_MAX);
    front.stop().await;
}

#[tokio::test]
async fn what_an_operation_is_asked_has_bounds_that_are_said() {
    let front = front().await;
    let names = |count: usize, weight: u32| -> String {
        let names: Vec<String> = (0..count).map(|number| format!("m{number}={weight}")).collect();
        names.join(",")
    };
    let with = |with: String| format!("/-/plan?with={with}");
    let long = format!("/-/keys?prefix={}", "x".repeat(9_000));
    for (path, complaint) in [
        (with(names(4_000, 1_000)), "8192"),
        (with(names(65, 1)), "64 names"),
        (with(names(21, 1_000)), "20000"),
        (with("m=1001".to_owned()), "0 to 1000"),
        (long, "8192"),
    ] {
        let answer = front.get(&path).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{complaint}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert!(json_of(&answer)["detail"].as_str().unwrap().contains(complaint), "{:?}", answer.body());
    }
    assert_eq!(front.get(&with(names(64, 100))).await.status(), StatusCode::OK, "as much as is allowed");

    let request = Request::put("/-/pins/a").header("authorization", format!("Bearer {TOKEN}"));
    let answer = front.ask(request.body(Full::new(Bytes::from(vec![0; 100_000]))).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(json_of(&front.get("/-/pins").await).as_array().unwrap().is_empty(), "nothing was pinned");
    front.stop().await;
}

#[tokio::test]
async fn keys_come_in_pages_that_name_the_next() {
    let front = front().await;
    for path in ["/a", "/b/1", "/b/2", "/b/3"] {
        front.get(path).await;
    }
    let first = front.get("/-/keys?prefix=b/&limit=2").await;
    assert_eq!(json_of(&first), json!(["b/1", "b/2"]));
    let link = first.headers()[header::LINK].to_str().unwrap();
    let next = link.strip_prefix('<').unwrap().split('>').next().unwrap();
    let second = front.get(next).await;
    assert_eq!((json_of(&second), second.headers().get(header::LINK)), (json!(["b/3"]), None));
    assert_eq!(json_of(&front.get("/-/keys").await), json!(["a", "b/1", "b/2", "b/3"]));
    for bad in ["limit=0", "limit=x", "after=..", "unknown=1"] {
        assert_eq!(front.get(&format!("/-/keys?{bad}")).await.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    front.stop().await;
}

#[tokio::test]
async fn a_joining_node_is_alive_but_not_ready_and_requests_wait_for_it() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let front = joining_front(vec![nobody.local_addr().unwrap().to_string()], |gateway| gateway).await;
    assert_eq!(front.get("/-/healthz").await.status(), StatusCode::OK);
    let readiness = front.get("/-/readyz").await;
    assert_eq!(readiness.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(&readiness).contains("joining"), "{}", text(&readiness));
    assert_eq!(front.get("/a").await.status(), StatusCode::OK, "it serves alone after a while");
    let readiness = front.get("/-/readyz").await;
    assert_eq!(readiness.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(&readiness).contains("an answer of a seed"), "{}", text(&readiness));
    front.stop().await;
}

#[tokio::test]
async fn metrics_are_text_that_prometheus_reads() {
    let front = front().await;
    front.get("/a").await;
    front.get("/no/such").await;
    let answered = front.get("/-/metrics").await;
    let said = text(&answered);
    for line in [
        "datad_http_requests_total{kind=\"data\",status=\"2xx\"} 1",
        "datad_http_requests_total{kind=\"data\",status=\"4xx\"} 1",
        "datad_http_response_seconds_count{kind=\"data\"} 2",
        "datad_keys 1",
        "datad_members{state=\"serving\"} 1",
        "datad_members{state=\"dead\"} 0",
        "datad_members{state=\"leaving\"} 0",
        "datad_seeds{state=\"silent\"} 0",
        "datad_clocks_apart 0",
        "datad_observers 0",
        "datad_peer_connections 0",
        "# EOF",
    ] {
        assert!(said.lines().any(|found| found == line), "{line} is not in:\n{said}");
    }
    front.stop().await;
}
