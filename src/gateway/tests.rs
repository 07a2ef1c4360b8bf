//! The real server on a real socket, before a real node.

#![allow(clippy::disallowed_methods, reason = "tests run on the real machine")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Channel, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{Gateway, GatewayBuilder};
use crate::{
    ClusterKey, Credentials, Node,
    config::{NodeConfig, Profile},
    key::{Key, NodeName},
    provider::{self, Body, Description, Provider, ProviderError, ServeError, UpdateContext, UpdateError, full},
    runtime::admission::DESCRIBING_MAX,
};

const PATIENCE: Duration = Duration::from_secs(40);
const TOKEN: &str = "secret";

/// Answers with what it was asked; fetches whatever does not begin with `no`.
#[derive(Default)]
struct Echo {
    held: Mutex<BTreeSet<Key>>,
    /// Updates of the key `gated` that began, and how many of them may end.
    begun: AtomicUsize,
    allowed: watch::Sender<usize>,
    /// Whether descriptions are held back, how many are being made, and the most that were at once.
    mute: watch::Sender<bool>,
    describing: AtomicUsize,
    describing_most: AtomicUsize,
}

#[async_trait]
impl Provider for Echo {
    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        Ok(self.held.lock().unwrap().contains(key))
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        let keys: Vec<_> = self.held.lock().unwrap().iter().cloned().map(Ok).collect();
        stream::iter(keys).boxed()
    }

    async fn update(&self, key: &Key, _: UpdateContext) -> Result<(), UpdateError> {
        match key.as_str() {
            "no/such" => Err(UpdateError::NotFound),
            "no/right" => Err(UpdateError::Forbidden("not on the list".into())),
            "no/luck" => Err(UpdateError::Unavailable("the origin is down".into())),
            "no/end" => std::future::pending().await,
            text => {
                if text == "gated" {
                    let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
                    let _ = self.allowed.subscribe().wait_for(|allowed| *allowed >= number).await;
                }
                self.held.lock().unwrap().insert(key.clone());
                Ok(())
            }
        }
    }

    async fn describe(&self, _: &Key) -> Result<Description, ProviderError> {
        let now = self.describing.fetch_add(1, Ordering::SeqCst) + 1;
        self.describing_most.fetch_max(now, Ordering::SeqCst);
        let _ = self.mute.subscribe().wait_for(|mute| !mute).await;
        self.describing.fetch_sub(1, Ordering::SeqCst);
        Ok(Description::default())
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        self.held.lock().unwrap().remove(key);
        Ok(())
    }

    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        if key.as_str() == "endless" {
            let (mut sender, body) = Channel::<Bytes, provider::BoxError>::new(1);
            tokio::spawn(async move { while sender.send_data(Bytes::from_static(&[0; 1024])).await.is_ok() {} });
            return Ok(Response::new(provider::body(body)));
        }
        if key.as_str() == "silent" {
            let never = futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
            return Ok(Response::new(provider::body(http_body_util::StreamBody::new(never))));
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|error| ServeError::Failed(error.0))?.to_bytes();
        let names: Vec<&str> = parts.headers.keys().map(http::HeaderName::as_str).collect();
        let said = format!("{} {} {names:?} {}", parts.method, parts.uri, String::from_utf8_lossy(&body));
        let response = Response::builder().header("connection", "x-hop").header("x-hop", "1").header("etag", "\"1\"");
        Ok(response.body(full(said)).unwrap())
    }
}

struct Front {
    node: Node,
    echo: Arc<Echo>,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

async fn front() -> Front {
    front_with(|gateway| gateway).await
}

async fn front_with(set: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Front {
    let front = joining_front(Vec::new(), set).await;
    front.node.serving().await.unwrap();
    front
}

/// A front door that is open already while its node joins.
async fn joining_front(seeds: Vec<String>, set: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Front {
    let (node, echo) = node(seeds).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let gateway = set(Gateway::builder(node.client()).admin_token(TOKEN));
    let serving = tokio::spawn(gateway.serve(listener, async move {
        let _ = stopped.await;
    }));
    Front { node, echo, address, stop, serving }
}

async fn node(seeds: Vec<String>) -> (Node, Arc<Echo>) {
    let config = NodeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        profile: Profile::local(),
        request_patience: Duration::from_secs(2),
        seeds,
        ..NodeConfig::default()
    };
    let echo = Arc::new(Echo::default());
    let builder = Node::builder(NodeName::new("n1").unwrap()).config(config).provider(echo.clone());
    (builder.credentials(Credentials::ClusterKey(ClusterKey::generate())).launch().await.unwrap(), echo)
}

/// Sends `request` on a connection of its own, and reads the whole answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Response<Bytes> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let answered = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    let (parts, body) = answered.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Response::from_parts(parts, body)
}

impl Front {
    async fn ask(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        exchange(TcpStream::connect(self.address).await.unwrap(), request).await
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        self.ask(Request::get(path).body(Full::default()).unwrap()).await
    }

    /// A request of the operator, who has the token.
    async fn change(&self, method: Method, path: &str) -> Response<Bytes> {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"));
        self.ask(request.body(Full::default()).unwrap()).await
    }

    async fn post(&self, path: &str) -> Response<Bytes> {
        self.change(Method::POST, path).await
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap().unwrap();
        self.node.shutdown().await;
    }

    /// Sends `head` as it is, and returns all that comes back until the server closes.
    async fn raw(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// The front door of a node beside the node `holder`, which holds `key`; neither leaves the test.
async fn front_beside_a_holder(key: &str) -> (Front, Node) {
    let secret = ClusterKey::generate();
    let config = |seeds| NodeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        profile: Profile::local(),
        replicas: 1,
        // A busy machine needs several seconds for hundreds of requests at once.
        request_patience: Duration::from_secs(20),
        seeds,
        ..NodeConfig::default()
    };
    let builder = Node::builder(NodeName::new("holder").unwrap()).credentials(Credentials::ClusterKey(secret.clone()));
    let holder = builder.config(config(Vec::new())).provider(Arc::new(Echo::default())).start().await.unwrap();
    holder.client().update(&Key::new(key).unwrap()).await.unwrap();
    let builder = Node::builder(NodeName::new("n1").unwrap()).credentials(Credentials::ClusterKey(secret));
    let mut light = config(vec![holder.address().to_string()]);
    // It owns nothing, so that nothing is copied to it.
    light.weight = 0;
    let echo = Arc::new(Echo::default());
    let node = builder.config(light).provider(echo.clone()).start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let gateway = Gateway::builder(node.client());
    let serving = tokio::spawn(gateway.serve(listener, async move {
        let _ = stopped.await;
    }));
    (Front { node, echo, address, stop, serving }, holder)
}

/// Bodies of every framing that break off, are malformed, or stop at every byte: each request ends, and the node goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_body_breaks_at_any_byte_ends_and_hurts_no_other() {
    let (front, holder) = front_beside_a_holder("held").await;
    let fields = "POST /held HTTP/1.1\r\nhost: localhost\r\n";
    let chunked = format!("{fields}transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\n\r\n");
    let sized = format!("{fields}content-length: 9\r\n\r\n012345678");
    let long = format!("{fields}content-length: 400000\r\n\r\n{}", "x".repeat(300_000));
    let mut broken: Vec<Vec<u8>> = Vec::new();
    for whole in [&chunked, &sized] {
        let head = whole.find("\r\n\r\n").unwrap() + 4;
        for at in head..whole.len() {
            broken.push(whole.as_bytes()[..at].to_vec());
            let mut damaged = whole.clone().into_bytes();
            damaged[at] = b'Z';
            broken.push(damaged);
        }
    }
    broken.push(format!("{fields}transfer-encoding: chunked\r\n\r\nZZ\r\n").into_bytes());
    broken.push(long.into_bytes());
    let all = futures::future::join_all(broken.iter().map(|bytes| async {
        let mut stream = TcpStream::connect(front.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        // No more is coming: what is missing will never be there.
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Whatever is answered, if anything is: it ends.
        let _ = stream.read_to_end(&mut answer).await;
    }));
    tokio::time::timeout(PATIENCE, all).await.expect("each request ends");
    let answered = front.get("/-/healthz").await;
    assert_eq!(answered.status(), StatusCode::OK);
    assert_eq!(front.get("/held").await.status(), StatusCode::OK);
    let located = front.node.client().locate(&Key::new("held").unwrap());
    assert!(
        located.holders.iter().all(|holding| holding.state == crate::HoldingState::Ready),
        "a client's trouble is not the holder's: {located:?}"
    );
    front.stop().await;
    holder.shutdown().await;
}

/// An HTTP/2 connection whose streams may take in so many bytes before they ask for more.
async fn h2(address: std::net::SocketAddr, window: u32) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn get_at(address: std::net::SocketAddr, path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://{address}{path}")).body(Full::default()).unwrap()
}

#[tokio::test]
async fn clients_that_take_nothing_in_are_given_up_and_leave_room_to_others_meanwhile() {
    let front = front_with(|gateway| gateway.requests_max(16).client_patience(Duration::from_secs(2))).await;
    front.get("/x").await;
    let mut greedy = h2(front.address, 0).await;
    let mut held = Vec::new();
    for number in 0..16 {
        let response = greedy.send_request(get_at(front.address, "/endless")).await.unwrap();
        let expected = if number < 12 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        assert_eq!(response.status(), expected, "{number}: a quarter is left to others");
        held.push(response);
    }
    assert_eq!(front.get("/-/readyz").await.status(), StatusCode::OK);
    // All of its responses have stalled, so the whole connection ends, and its places are free again.
    let ended = async {
        for response in held.drain(..12) {
            assert!(response.into_body().collect().await.is_err());
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("what stalls ends");
    let again = async {
        while front.get("/endless-not").await.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("the places are free again");
    front.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_connection() {
    let front = front_with(|gateway| gateway.client_patience(Duration::from_secs(1))).await;
    front.get("/x").await;
    let mut stream = TcpStream::connect(front.address).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let in_flight = async |count: u32| {
        let metrics = front.get("/-/metrics").await;
        text(&metrics).contains(&format!("datad_http_in_flight{{kind=\"data\"}} {count}\n"))
    };
    let begun_and_ended = async {
        for count in [1, 0] {
            while !in_flight(count).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        // What the kernel holds is still there, and then the end.
        let mut sent = Vec::new();
        let _ = stream.read_to_end(&mut sent).await;
    };
    tokio::time::timeout(3 * PATIENCE, begun_and_ended).await.expect("it ends, though its answer never would");
    front.stop().await;
}

/// More unread answers between two nodes than their connection has room for: calls between them get through all the same.
#[tokio::test]
async fn stalled_readers_of_data_do_not_stop_calls_between_nodes() {
    let (front, holder) = front_beside_a_holder("silent").await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = h2(front.address, 1 << 20).await;
        for _ in 0..250 {
            waiting.push(client.send_request(get_at(front.address, "/silent")));
        }
    }
    let answers = tokio::time::timeout(PATIENCE, futures::future::join_all(waiting)).await.expect("all are answered");
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    let refused = answers.iter().filter(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE).count();
    assert!((300..=350).contains(&refused), "{refused} of 750 found no room");
    let recorded = tokio::time::timeout(PATIENCE, front.node.client().pin(&Key::new("silent").unwrap(), None)).await;
    let confirmed = recorded.expect("a call is answered").unwrap().confirmed;
    assert!(confirmed.contains(holder.name()), "{confirmed:?}");
    assert_eq!(front.get("/-/readyz").await.status(), StatusCode::OK);
    drop(answers);
    front.stop().await;
    holder.shutdown().await;
}

/// A body too long to be kept, at a node whose only holder dies: the request ends, and is at no second node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_request_at_a_holder_that_dies_ends_and_hurts_no_other() {
    let (front, holder) = front_beside_a_holder("held").await;
    let head = "POST /held HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 600000\r\n\r\n";
    let requests = (0..8).map(|_| async {
        let mut stream = TcpStream::connect(front.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; 300_000]).await.unwrap();
        stream
    });
    let mut streams = futures::future::join_all(requests).await;
    drop(holder);
    let ends = futures::future::join_all(streams.iter_mut().map(|stream| async {
        let _ = stream.write_all(&vec![b'x'; 300_000]).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).chars().take(12).collect::<String>()
    }));
    let answers = tokio::time::timeout(PATIENCE, ends).await.expect("each request ends");
    assert!(answers.iter().all(|answer| answer.is_empty() || answer.starts_with("HTTP/1.1 ")), "{answers:?}");
    assert_eq!(front.get("/-/healthz").await.status(), StatusCode::OK);
    front.stop().await;
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

fn json_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

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
async fn http_2_is_spoken_to_those_who_begin_with_it() {
    let front = front().await;
    let stream = TokioIo::new(TcpStream::connect(front.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://localhost/a").body(Full::<Bytes>::default()).unwrap();
    let answered = sender.send_request(request).await.unwrap();
    assert_eq!(answered.version(), http::Version::HTTP_2);
    let said = answered.into_body().collect().await.unwrap().to_bytes();
    assert!(said.starts_with(b"GET /a [\"host\"]"), "{said:?}");
    drop(sender);
    let _ = connection.await;
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

#[tokio::test]
async fn more_requests_than_may_be_are_shed_while_operations_go_on() {
    let front = front_with(|gateway| gateway.requests_max(1)).await;
    let mut busy = TcpStream::connect(front.address).await.unwrap();
    busy.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    busy.read_u8().await.unwrap();
    let shed = front.get("/a").await;
    assert_eq!(
        (shed.status(), &shed.headers()[header::RETRY_AFTER]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
    assert_eq!(front.get("/-/healthz").await.status(), StatusCode::OK);
    assert!(text(&front.get("/-/metrics").await).contains("datad_http_in_flight{kind=\"data\"} 1"));
    drop(busy);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while front.get("/a").await.status() != StatusCode::OK {
        assert!(tokio::time::Instant::now() < deadline, "a request that was broken off still counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    front.stop().await;
}

#[tokio::test]
async fn idle_connections_give_way_to_new_ones_and_busy_ones_do_not() {
    let front = front_with(|gateway| gateway.connections_max(3)).await;
    let mut busy = TcpStream::connect(front.address).await.unwrap();
    busy.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    busy.read_u8().await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut connection = TcpStream::connect(front.address).await.unwrap();
        if idle.is_empty() {
            connection.write_all(b"GET /-/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            connection.read_u8().await.unwrap();
        }
        idle.push(connection);
    }
    for _ in 0..5 {
        assert_eq!(front.get("/-/healthz").await.status(), StatusCode::OK);
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, idle[0].read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the one that was idle for the longest time is closed");
    busy.read_u8().await.unwrap();
    drop(busy);
    front.stop().await;
}

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

#[tokio::test]
async fn absurd_heads_are_refused_by_the_protocol() {
    let front = front().await;
    let long = "x".repeat(70_000);
    let answer = front.raw(&format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer =
        front.raw(&format!("GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", &long[..600])).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("more than 512"), "{answer}");
    let answer = front.raw("OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    front.stop().await;
}

#[tokio::test]
async fn stopping_breaks_off_what_does_not_end_by_itself() {
    let front = front_with(|gateway| gateway.drain(Duration::from_millis(200))).await;
    let mut busy = TcpStream::connect(front.address).await.unwrap();
    busy.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    busy.read_u8().await.unwrap();
    let address = front.address;
    front.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, busy.read_to_end(&mut rest)).await.expect("the connection was closed");
}
