//! Gossip and etcd beside each other, in one run: how fast keys on a node's disk become known to another node, and what
//! it costs that one to look them up.
//!
//! ```sh
//! cargo bench --features etcd --bench coordination        # needs Debian's etcd-server and etcd-client
//! ```

#![allow(clippy::disallowed_methods, missing_docs, reason = "benchmarks measure real time")]

#[path = "../tests/common/etcd.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod etcd;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use datad_gossip::{
    Client, ClusterKey, Credentials, Node, NodeBuilder,
    config::{NodeConfig, Profile},
    etcd::EtcdConfig,
    key::{Key, NodeName},
    provider::UpdateError,
    providers::Memory,
};
use etcd::Etcd;

const KEYS: usize = 50_000;
const LOOKUPS: usize = 2_000_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{KEYS} keys on disk, one replica, two nodes on this machine");
        println!("{:8} {:>16} {:>14} {:>12}", "mode", "registrations/s", "lookup, ns", "all seen");
        measure("gossip", None).await;
        let server = Etcd::start(1).await;
        measure("etcd", Some(EtcdConfig::new(server.urls()))).await;
    });
}

async fn measure(mode: &str, etcd: Option<EtcdConfig>) {
    let secret = ClusterKey::generate();
    let watching = builder("watching", &secret, &etcd, Vec::new()).join().await.unwrap();
    let memory = Memory::new(|_: Key| async { Err(UpdateError::NotFound) });
    for number in 0..KEYS {
        memory.insert(key(number), "v");
    }
    let seeds = watching.members().iter().map(|member| member.address.to_string()).collect();
    let started = Instant::now();
    let node = builder("holding", &secret, &etcd, seeds).provider(Arc::new(memory)).start().await.unwrap();
    while seen(&watching).await < KEYS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let all_seen = started.elapsed();
    let rate = KEYS as f64 / all_seen.as_secs_f64();
    println!("{mode:8} {rate:>16.0} {:>14.0} {all_seen:>12.2?}", lookup_ns(&watching));
    watching.leave().await;
    node.shutdown().await;
}

fn builder(name: &str, secret: &ClusterKey, etcd: &Option<EtcdConfig>, seeds: Vec<String>) -> NodeBuilder {
    let mut config = NodeConfig::default();
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.profile = Profile::local();
    config.replicas = 1;
    config.seeds = seeds;
    let builder = Node::builder(NodeName::new(name).unwrap()).config(config);
    let builder = builder.credentials(Credentials::ClusterKey(secret.clone()));
    match etcd {
        Some(etcd) => builder.etcd(etcd.clone()),
        None => builder,
    }
}

fn key(number: usize) -> Key {
    Key::new(format!("github.com/organisation-{}/repository-{number}", number % 977)).unwrap()
}

async fn seen(client: &Client) -> usize {
    client.member_statuses().await.iter().map(|status| status.keys).sum()
}

fn lookup_ns(client: &Client) -> f64 {
    let keys: Vec<Key> = (0..KEYS).map(|number| key(number.wrapping_mul(7_919) % KEYS)).collect();
    let started = Instant::now();
    for number in 0..LOOKUPS {
        black_box(client.nodes_for_key(&keys[number % KEYS]));
    }
    started.elapsed().as_nanos() as f64 / LOOKUPS as f64
}
