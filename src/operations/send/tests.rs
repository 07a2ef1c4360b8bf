//! Requests that several holders have to answer between them, on real nodes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use headers::{ContentLength, ContentRange, ETag, HeaderMapExt};
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::{
    config::{NodeConfig, Profile},
    key::{Key, NodeName},
    net::identity::{ClusterKey, Credentials},
    node::Node,
    operations::send::route,
    provider::{self, Body, Provider, ProviderError, SECOND_OPINION, ServeError, UpdateContext, UpdateError},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// More than is held back of a response.
const PART: u64 = 300 << 10;
const WHOLE: u64 = 10 * PART;

/// Breaks off each response after a part.
struct Breaking;

#[async_trait]
impl Provider for Breaking {
    async fn has(&self, _key: &Key) -> Result<bool, ProviderError> {
        Ok(true)
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        stream::iter([Ok(Key::new("k").unwrap())]).boxed()
    }

    async fn update(&self, _key: &Key, _context: UpdateContext) -> Result<(), UpdateError> {
        Ok(())
    }

    async fn remove(&self, _key: &Key) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn serve(&self, _key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
        let from = range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
        let part = stream::once(async { Ok(Frame::data(Bytes::from(vec![7; PART as usize]))) });
        // A reset may overtake what was sent before it.
        let gone = stream::once(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(std::io::Error::other("gone"))
        });
        let mut response = Response::new(provider::body(StreamBody::new(Box::pin(part.chain(gone)))));
        response.headers_mut().typed_insert("\"v\"".parse::<ETag>().unwrap());
        response.headers_mut().typed_insert(ContentLength(WHOLE - from.unwrap_or(0)));
        if let Some(from) = from {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response.headers_mut().typed_insert(ContentRange::bytes(from..WHOLE, WHOLE).unwrap());
        }
        Ok(response)
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_again_and_again_is_not_resumed_for_ever() {
    let secret = Credentials::ClusterKey(ClusterKey::generate());
    let mut config = NodeConfig { replicas: 1, profile: Profile::local(), ..NodeConfig::default() };
    config.listen = "127.0.0.1:0".parse().unwrap();
    let holder = Node::builder(NodeName::new("holder").unwrap()).config(config.clone()).provider(Arc::new(Breaking));
    let holder = holder.credentials(secret.clone()).start().await.unwrap();
    config.seeds = vec![holder.address().to_string()];
    let asker = Node::builder(NodeName::new("asker").unwrap()).config(config).credentials(secret);
    let asker = asker.start().await.unwrap();
    let met = |view: &crate::core::membership::View| view.ring().nodes().len() == 1;
    tokio::time::timeout(PATIENCE, asker.client().view_when(met)).await.unwrap();
    let request = Request::get("/k").body(provider::empty()).unwrap();
    let response = route(asker.shared(), &Key::new("k").unwrap(), request).await.unwrap();
    assert_eq!(response.headers().typed_get(), Some(ContentLength(WHOLE)));
    let (mut body, mut read, mut broken) = (response.into_body(), 0, false);
    let reading = async {
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => read += frame.data_ref().map_or(0, Bytes::len) as u64,
                Err(_) => broken = true,
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    assert!(broken && read <= 4 * PART, "{read} bytes, so it was taken up more than three times");
}

/// Answers that it lacks what is asked for, or that it has it.
struct Version(bool);

#[async_trait]
impl Provider for Version {
    async fn has(&self, _key: &Key) -> Result<bool, ProviderError> {
        Ok(true)
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        stream::iter([Ok(Key::new("k").unwrap())]).boxed()
    }

    async fn update(&self, _key: &Key, _context: UpdateContext) -> Result<(), UpdateError> {
        Ok(())
    }

    async fn remove(&self, _key: &Key) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn serve(&self, _key: &Key, _request: Request<Body>) -> Result<Response<Body>, ServeError> {
        if self.0 {
            return Ok(Response::new(provider::full("new")));
        }
        Ok(Response::builder().header(SECOND_OPINION, "?1").body(provider::full("lacking")).unwrap())
    }
}

#[tokio::test]
async fn what_one_holder_lacks_is_asked_of_the_others_before_that_is_said() {
    for (others, expected) in [([false, false], "lacking"), ([false, true], "new")] {
        let secret = Credentials::ClusterKey(ClusterKey::generate());
        let mut config = NodeConfig { replicas: 3, profile: Profile::local(), ..NodeConfig::default() };
        config.listen = "127.0.0.1:0".parse().unwrap();
        let mut nodes: Vec<Node> = Vec::new();
        for (number, is_new) in [false].into_iter().chain(others).enumerate() {
            config.seeds = nodes.iter().map(|node| node.address().to_string()).collect();
            let node = Node::builder(NodeName::new(format!("n{number}")).unwrap()).config(config.clone());
            let node = node.provider(Arc::new(Version(is_new))).credentials(secret.clone());
            nodes.push(node.start().await.unwrap());
        }
        let (client, key) = (nodes[0].client(), Key::new("k").unwrap());
        let all_hold_it = async {
            while client.nodes_for_key(&key).len() < 3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all_hold_it).await.unwrap();
        let request = Request::get("/k").body(provider::empty()).unwrap();
        let response = route(nodes[0].shared(), &key, request).await.unwrap();
        assert!(!response.headers().contains_key(SECOND_OPINION));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected);
    }
}
