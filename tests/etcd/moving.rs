//! A cluster that leaves etcd for gossip, node by node, while requests go on.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;

use crate::process::harness::{Cluster, QUICK, Upstream, eventually, get};

const KEYS: usize = 12;

#[tokio::test]
async fn node_by_node_a_cluster_leaves_etcd_and_no_request_fails() {
    let upstream = Upstream::start().await;
    for number in 0..=KEYS {
        upstream.put_file(&format!("file{number}"), format!("content {number}"), "text/plain");
    }
    let mut cluster = Cluster::start(3, QUICK, &["--files", &upstream.files_url()]).await;
    for number in 0..KEYS {
        get(cluster.nodes[0].http, &format!("/file{number}")).await.unwrap();
    }
    for number in 0..KEYS {
        cluster.until_held(&format!("file{number}"), 2).await;
    }
    let url = cluster.etcd().url(0);
    cluster.nodes[0].ask(&["pin", "file0", "--replicas", "3"]).await.unwrap();
    let pinned = ["/datad/pins/file0"];
    eventually("the pin is in etcd", || async { cluster.etcd().names("/datad/pins/") == pinned }).await;

    // Requests go to the nodes that are up, as a load balancer would have it.
    let ports = Arc::new(Mutex::new(cluster.nodes.iter().map(|node| node.http).collect::<Vec<u16>>()));
    let done = Arc::new(AtomicUsize::new(0));
    let load = tokio::spawn({
        let (ports, done) = (ports.clone(), done.clone());
        async move {
            for number in 0.. {
                let port = {
                    let ports = ports.lock().unwrap();
                    if ports.is_empty() {
                        return;
                    }
                    ports[number % ports.len()]
                };
                let number = number % KEYS;
                let answer = get(port, &format!("/file{number}")).await.unwrap();
                assert_eq!((answer.status.as_u16(), answer.text()), (200, format!("content {number}").as_str().into()));
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for index in 0..3 {
        let (http, seeds) = (cluster.nodes[index].http, cluster.nodes[..index].iter().map(|node| node.port));
        let seeds: Vec<String> = seeds.map(|port| format!("127.0.0.1:{port}")).collect();
        ports.lock().unwrap().retain(|port| *port != http);
        let node = &mut cluster.nodes[index];
        assert_eq!(node.sigterm().await.code(), Some(0));
        for option in ["--etcd", "--etcd-ttl"] {
            node.without(option);
        }
        for seed in &seeds {
            node.with("--seed", seed);
        }
        node.restart().await;
        ports.lock().unwrap().push(http);
        let from = done.load(Ordering::Relaxed);
        eventually("requests go on", || async { done.load(Ordering::Relaxed) > from + 3 * KEYS || load.is_finished() })
            .await;
    }
    cluster.until_members_are(3).await;
    assert!(cluster.etcd().names("/datad/nodes/").is_empty());

    // A key that was only ever known to etcd, and one that is not to be had.
    let ghost = |key: &str| format!("/datad/registry/data/{key}/$$nodes/ghost");
    cluster.etcd().ctl(&["put", &ghost(&format!("file{KEYS}")), ""]);
    // Pins that no disk brought along, and one that the cluster has, otherwise.
    for (key, value) in [("file0", r#"{"replicas":1}"#), ("file1", r#"{"replicas":3}"#), ("fil?2", r#"{"replicas":1}"#)]
    {
        cluster.etcd().ctl(&["put", &format!("/datad/pins/{key}"), value]);
    }
    let migrated = cluster.nodes[0].ask(&["migrate", "--from-etcd", &url]).await.unwrap();
    assert!(migrated.contains("3 pins in etcd; 2 set now"), "{migrated}");
    let pins: serde_json::Value =
        serde_json::from_str(&cluster.nodes[2].ask(&["pins", "--json"]).await.unwrap()).unwrap();
    let expected =
        [("fil?2", 1), ("file0", 3), ("file1", 3)].map(|(key, replicas)| json!({ "key": key, "replicas": replicas }));
    assert_eq!(pins.as_array().unwrap()[..], expected);
    assert!(migrated.contains(&format!("{} keys in etcd; 1 fetched now, 0 could not be", KEYS + 1)), "{migrated}");
    cluster.etcd().ctl(&["put", &ghost("nowhere"), ""]);
    let error = cluster.nodes[1].ask(&["migrate", "--from-etcd", &url]).await.unwrap_err();
    assert!(error.contains("nowhere: ") && error.contains("1 keys could not be fetched"), "{error}");
    let again = cluster.nodes[2].ask(&["migrate", "--from-etcd", &url, "--json"]).await.unwrap_err();
    assert!(again.contains("nowhere: "), "{again}");
    cluster.etcd().ctl(&["del", &ghost("nowhere")]);
    let again = cluster.nodes[2].ask(&["migrate", "--from-etcd", &url, "--json"]).await.unwrap();
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again, json!({ "registered": KEYS + 1, "fetched": 0, "failed": 0, "pins": 3, "pinned": 0 }));
    for number in 0..=KEYS {
        let replicas = match number {
            0 | 1 => 3,
            2 => 1,
            _ => 2,
        };
        cluster.until_held(&format!("file{number}"), replicas).await;
    }
    ports.lock().unwrap().clear();
    load.await.unwrap();
}
