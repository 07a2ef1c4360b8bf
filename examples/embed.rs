//! Three nodes in one process around a data source of one's own: requests before and after one of them is dropped.
//!
//! Run it with `cargo run --release --example embed`.

use std::{collections::BTreeMap, sync::Arc, sync::Mutex, time::Duration};

use async_trait::async_trait;
use datad_gossip::{
    ClusterKey, Credentials, Node,
    config::{NodeConfig, Profile},
    key::{Key, NodeName},
    provider::{Body, Provider, ProviderError, ServeError, UpdateContext, UpdateError, empty, full},
};
use futures::stream::{self, BoxStream, StreamExt};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::ServiceExt;

/// A data source that knows every key's length, and is slow to work it out.
#[derive(Default)]
struct Lengths(Mutex<BTreeMap<Key, usize>>);

#[async_trait]
impl Provider for Lengths {
    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        Ok(self.0.lock().unwrap().contains_key(key))
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        let held: Vec<_> = self.0.lock().unwrap().keys().cloned().map(Ok).collect();
        stream::iter(held).boxed()
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        match context.peers() {
            [] => {
                println!("  working out {key}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            [peer, ..] => println!("  copying {key} from {peer}"),
        }
        self.0.lock().unwrap().insert(key.clone(), key.as_str().len());
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        self.0.lock().unwrap().remove(key);
        Ok(())
    }

    async fn serve(&self, key: &Key, _request: Request<Body>) -> Result<Response<Body>, ServeError> {
        let length = self.0.lock().unwrap().get(key).copied().ok_or(ServeError::NotHeld)?;
        Ok(Response::new(full(length.to_string())))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let secret = ClusterKey::generate();
    let mut nodes: Vec<Node> = Vec::new();
    for number in 1..=3 {
        let mut config = NodeConfig::default();
        config.listen = "127.0.0.1:0".parse()?;
        config.seeds = nodes.iter().map(|node| node.address().to_string()).collect();
        config.profile = Profile::local();
        let builder = Node::builder(NodeName::new(format!("node-{number}"))?).config(config);
        let builder = builder.credentials(Credentials::ClusterKey(secret.clone()));
        nodes.push(builder.provider(Arc::new(Lengths::default())).start().await?);
    }
    let client = nodes[0].client();
    println!("{} members are up", client.view_when(|view| view.ring().nodes().len() == 3).await.alive().count());

    let key = Key::new("github.com/org/repo")?;
    let ask = || async {
        let response = client.transport_for_key(key.clone()).oneshot(Request::get("/").body(empty())?).await?;
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok(String::from_utf8(body.to_vec())?)
    };
    println!("the first request waits for the one fetch:");
    println!("  {key} has {} bytes", ask().await?);
    while client.nodes_for_key(&key).len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("it is on {:?} now", client.nodes_for_key(&key));

    let holders = client.nodes_for_key(&key);
    let victim = nodes.iter().rposition(|node| holders.contains(node.name())).expect("one of ours holds it");
    if victim > 0 {
        println!("dropping {}, without a goodbye", nodes.remove(victim).name());
    }
    println!("  {key} still has {} bytes", ask().await?);
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}
