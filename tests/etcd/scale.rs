//! Tens of thousands of registrations.

use std::time::Instant;

use datad_gossip::Node;

use crate::cluster::common::{Cluster, etcd_config, eventually, key, name, quick};

const KEYS: usize = 50_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_keys_on_disk_are_registered_listed_and_not_written_again() {
    let mut cluster = Cluster::start(0).await;
    let memory = cluster.upstream.memory();
    for number in 0..KEYS {
        memory.insert(key(&format!("some/organisation/repository-{number}")), "v");
    }
    let etcd = etcd_config(cluster.etcd());
    let watching =
        Node::builder(name("watching")).credentials(cluster.credentials()).config(quick()).etcd(etcd.clone());
    let watching = watching.start().await.unwrap();
    let started = Instant::now();
    cluster.add("n1", memory.clone()).await;
    let count = |client: datad_gossip::Client| async move {
        client.member_statuses().await.iter().find(|status| status.member.name == name("n1")).map_or(0, |n1| n1.keys)
    };
    eventually("another sees them all as they come", || async { count(watching.client()).await == KEYS }).await;
    println!("{KEYS} registrations seen by another node after {:?}", started.elapsed());
    let listing = Node::builder(name("listing")).credentials(cluster.credentials()).config(quick()).etcd(etcd);
    let listing = listing.start().await.unwrap();
    assert_eq!(count(listing.client()).await, KEYS, "one that comes later finds them all at once");

    let n1 = cluster.members.remove("n1").unwrap();
    eventually("all is said", || async { n1.node.client().status().await.converged }).await;
    let names = cluster.etcd().names("/datad/registry/");
    assert_eq!(names.len(), 2 * KEYS);
    n1.node.shutdown().await;
    let assignments =
        ["get", "--prefix", "/datad/registry/nodes/n1/", "-w", "json", "--limit", "1", "--order", "DESCEND"];
    let newest = |cluster: &mut Cluster| {
        let args = [&assignments[..], &["--sort-by", "MODIFY"]].concat();
        let newest: serde_json::Value = serde_json::from_str(&cluster.etcd().ctl(&args)).unwrap();
        newest["kvs"][0]["mod_revision"].as_i64().unwrap()
    };
    let before = newest(&mut cluster);
    cluster.add("n1", memory).await;
    let client = cluster.client("n1");
    eventually("it has looked at its disk", || async { client.status().await.converged }).await;
    assert_eq!(count(client).await, KEYS);
    assert_eq!(newest(&mut cluster), before, "a restart writes nothing that stands there already");
}
