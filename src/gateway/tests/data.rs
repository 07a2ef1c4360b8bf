//! Requests for data, and what a person gets who opens a node in a browser.

use super::*;

#[tokio::test]
async fn the_first_request_fetches_and_the_second_finds_it() {
    let front = front().await;
    let first = front.get("/a/b?c=d").await;
    assert_eq!((first.status(), &first.headers()["x-datad-node"]), (StatusCode::OK, &"n1".parse().unwrap()));
    assert_eq!(first.headers()["cache-status"], "datad-gossip; fwd=miss; stored");
    let second = front.get("/a/b?c=d").await;
    assert_eq!(second.headers()["cache-status"], "datad-gossip; hit");
    assert_eq!(second.headers()["etag"], "\"1\"");
    assert!(!second.headers().contains_key("x-hop"));
    assert!(text(&second).starts_with("GET /a/b?c=d "), "{}", text(&second));
    front.stop().await;
}

#[tokio::test]
async fn the_provider_sees_methods_bodies_and_fields_but_not_those_of_the_hop() {
    let front = front().await;
    let request = Request::builder().method(Method::PUT).uri("/x").header("x-datad-node", "evil");
    let request = request.header("connection", "x-mine").header("x-mine", "1").header("x-yours", "1");
    let answered = front.ask(request.body(Full::from("payload")).unwrap()).await;
    let said = text(&answered);
    assert!(said.starts_with("PUT /x ") && said.ends_with(" payload") && said.contains("x-yours"), "{said}");
    assert!(!said.contains("x-mine") && !said.contains("x-datad") && !said.contains("\"connection\""), "{said}");
    let head = front.ask(Request::head("/x").body(Full::default()).unwrap()).await;
    assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
    front.stop().await;
}

#[tokio::test]
async fn a_browser_gets_a_page_or_is_led_to_where_it_meant_to_go() {
    let front = front().await;
    for (from, to) in [("/", "/-/"), ("/-", "/-/"), ("/docs/", "/docs"), ("/-/status/", "/-/status")] {
        let response = front.get(from).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["location"]),
            (307, &to.parse().unwrap()),
            "{from}"
        );
    }
    let page = front.get("/-/").await;
    assert_eq!(
        (page.status(), &page.headers()["content-type"]),
        (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap())
    );
    let text = String::from_utf8(page.into_body().to_vec()).unwrap();
    let links: Vec<&str> = text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(links.contains(&"/-/status") && text.contains("<h1>n1</h1>"), "{text}");
    for link in links {
        assert_eq!(front.get(link).await.status(), StatusCode::OK, "{link}");
    }
    assert_eq!(front.get("//evil.example/").await.status(), StatusCode::BAD_REQUEST);
    assert!(front.echo.held.lock().unwrap().is_empty(), "nothing of this is fetched");
    front.stop().await;
}

#[tokio::test]
async fn what_goes_wrong_is_told_as_a_problem() {
    let front = front().await;
    let cases = [
        ("/no/such", 404, "not-found"),
        ("/no/right", 403, "forbidden"),
        ("/no/luck", 502, "no-answer"),
        ("/no/end", 504, "still-fetching"),
        ("/a/../b", 400, "no-key"),
        ("/%2d/status", 400, "no-key"),
        ("/a//b", 400, "no-key"),
        ("/-/nothing", 404, "unknown-operation"),
        ("/-/events", 404, "unknown-operation"),
    ];
    for (path, status, kind) in cases {
        let answered = front.get(path).await;
        assert_eq!(answered.status(), status, "{path}");
        assert_eq!(answered.headers()[header::CONTENT_TYPE], "application/problem+json", "{path}");
        let document = json_of(&answered);
        assert_eq!(document["type"], format!("urn:datad-gossip:problem:{kind}"), "{path}");
        assert_eq!(document["status"], status, "{path}");
        assert_eq!(answered.headers().contains_key(header::RETRY_AFTER), status >= 500, "{path}");
    }
    let document = json_of(&front.get("/no/luck").await);
    assert_eq!(document["attempts"][0]["node"], "n1");
    assert!(document["attempts"][0]["error"].as_str().unwrap().contains("the origin is down"), "{document}");
    front.stop().await;
}
