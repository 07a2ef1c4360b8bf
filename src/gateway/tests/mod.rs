//! The real server on a real socket, before a real node.

#![allow(clippy::disallowed_methods, reason = "tests run on the real machine")]

mod bodies;
mod changes;
mod connections;
mod data;
mod documents;

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

use crate::{
    config::{NodeConfig, Profile},
    gateway::{Gateway, GatewayBuilder},
    key::{Key, NodeName},
    net::identity::{ClusterKey, Credentials},
    node::Node,
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

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

fn json_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}
