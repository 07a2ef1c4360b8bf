//! A node that starts with much on its disk serves before it has read it all, and fetches nothing anew that is there.

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::{Upstream, eventually, fetch, key, name, quick};
use datad_gossip::{
    ClusterKey, Credentials, Node,
    key::Key,
    provider::{Body, Provider, ProviderError, ServeError, UpdateContext, UpdateError},
    providers::Memory,
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{Request, Response, StatusCode};
use tokio::sync::watch;

const KEYS: usize = 600;
const AT_ONCE: usize = 300;

/// A disk on which the first [`AT_ONCE`] keys are found at once, and the others when the gate opens.
struct SlowDisk {
    memory: Memory,
    gate: watch::Receiver<bool>,
}

#[async_trait]
impl Provider for SlowDisk {
    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        self.memory.has(key).await
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        let mut gate = self.gate.clone();
        let opened = stream::once(async move { gate.wait_for(|open| *open).await.map(drop) });
        let opened = opened.filter_map(|_| async { None });
        let first = self.memory.keys().take(AT_ONCE);
        first.chain(opened).chain(self.memory.keys().skip(AT_ONCE)).boxed()
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        self.memory.update(key, context).await
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        self.memory.remove(key).await
    }

    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.memory.serve(key, request).await
    }
}

fn text(number: usize) -> String {
    format!("k{number:04}")
}

#[tokio::test]
async fn a_node_serves_what_it_has_found_and_what_it_has_not_come_to_yet_and_fetches_none_of_it() {
    let upstream = Upstream::default();
    let memory = upstream.memory();
    for number in 0..KEYS {
        memory.insert(key(&text(number)), "here");
    }
    let (open, gate) = watch::channel(false);
    let disk = SlowDisk { memory: memory.clone(), gate };
    let builder = Node::builder(name("n1")).config(quick()).provider(Arc::new(disk));
    let node = builder.credentials(Credentials::ClusterKey(ClusterKey::generate())).start().await.unwrap();
    let client = node.client();
    eventually("it says how far it is", || async { client.status().await.scanning == Some(AT_ONCE) }).await;
    let status = client.status().await;
    assert!(!status.converged && status.keys >= AT_ONCE, "{status:?}");
    for number in [0, AT_ONCE - 1, AT_ONCE, KEYS - 1] {
        assert_eq!(fetch(&client, &text(number)).await.unwrap(), (StatusCode::OK, "here".to_owned()));
    }
    assert_eq!(client.status().await.scanning, Some(AT_ONCE));
    open.send(true).unwrap();
    eventually("all is registered", || async {
        let status = client.status().await;
        status.scanning.is_none() && status.converged && status.keys == KEYS
    })
    .await;
    assert_eq!((upstream.asks(), memory.origin_asks()), (0, 0));
}
