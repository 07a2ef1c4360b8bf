//! Observers join and leave by the hundred, or stay; gossip stays small, and a third node can join at any time.
//!
//! ```sh
//! cargo run --release --example observers -- 900          # they come and go
//! cargo run --release --example observers -- 900 stay     # they are all there at once
//! ```

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use datad_gossip::{
    Client, ClusterKey, Credentials, Node,
    config::{NodeConfig, Profile},
    key::{Key, NodeName},
    providers::Memory,
};
use tokio::task::JoinSet;

/// Observers that are there at once.
const BATCH: usize = 20;
/// How long a join may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let total: usize = std::env::args().nth(1).context("how many observers?")?.parse()?;
    let stay = std::env::args().nth(2).is_some_and(|word| word == "stay");
    let mut staying = Vec::new();
    let secret = ClusterKey::generate();
    let a = start("a", &secret, Vec::new()).await?;
    let seeds = vec![a.address().to_string()];
    let _b = start("b", &secret, seeds.clone()).await?;
    for batch in 0..total.div_ceil(BATCH) {
        let mut observers = JoinSet::new();
        for number in batch * BATCH..(batch + 1) * BATCH {
            let name = NodeName::new(format!("observer-{number:05}-{}", "x".repeat(45)))?;
            let (credentials, config) = (Credentials::ClusterKey(secret.clone()), config(seeds.clone()));
            observers.spawn(async move { anyhow::Ok(Client::join(name, credentials, config).await?) });
        }
        while let Some(joined) = observers.join_next().await {
            let observer = joined??;
            if stay { staying.push(observer) } else { observer.leave().await }
        }
        let status = a.client().status().await;
        if batch % 5 == 4 {
            let (identities, largest) = (status.gossip_identities, status.gossip_largest);
            println!(
                "{} observers: gossip tells of {identities}, largest message {largest} bytes; {} follow this member",
                (batch + 1) * BATCH,
                status.observers,
            );
        }
        ensure!(status.gossip_largest < 65_507, "a gossip message was too long");
    }
    let c = tokio::time::timeout(PATIENCE, start("c", &secret, seeds)).await.context("a third node has to join")??;
    tokio::time::timeout(PATIENCE, c.client().view_when(|view| view.ring().nodes().len() == 3)).await?;
    println!("a third node has joined, and knows of all");
    Ok(())
}

fn config(seeds: Vec<String>) -> NodeConfig {
    let mut config = NodeConfig::default();
    config.listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    (config.seeds, config.profile) = (seeds, Profile::local());
    config
}

async fn start(name: &str, secret: &ClusterKey, seeds: Vec<String>) -> anyhow::Result<Node> {
    let memory = Memory::new(|key: Key| async move { Ok(format!("value of {key}").into()) });
    let builder = Node::builder(NodeName::new(name)?).credentials(Credentials::ClusterKey(secret.clone()));
    Ok(builder.config(config(seeds)).provider(Arc::new(memory)).start().await?)
}
