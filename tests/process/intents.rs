//! Pins and forgets, through the death of all nodes at once.

use serde_json::{Value, json};

use super::harness::{Cluster, QUICK, Upstream, eventually, get};

async fn pins(cluster: &Cluster, node: usize) -> Value {
    let said = cluster.nodes[node].ask(&["pins", "--json"]).await.unwrap();
    serde_json::from_str(&said).unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_all_nodes_were_killed_at_once() {
    let upstream = Upstream::start().await;
    for name in ["kept", "gone", "org/a"] {
        upstream.put_file(name, name.to_owned(), "text/plain");
    }
    let mut cluster = Cluster::start(3, QUICK, &["--files", &upstream.files_url()]).await;
    for name in ["gone", "org/a"] {
        assert_eq!(get(cluster.nodes[0].http, &format!("/{name}")).await.unwrap().text(), name);
        cluster.until_held(name, 2).await;
    }
    let said = cluster.nodes[0].ask(&["pin", "org/*", "--replicas", "3"]).await.unwrap();
    assert_eq!(said.trim(), "recorded by n1 n2 n3");
    cluster.nodes[1].ask(&["pin", "once", "--replicas", "1"]).await.unwrap();
    cluster.nodes[2].ask(&["unpin", "once"]).await.unwrap();
    cluster.nodes[1].ask(&["forget", "gone"]).await.unwrap();
    let said = cluster.nodes[2].ask(&["pin", "kept", "--replicas", "3", "--json"]).await.unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said, json!({ "key": "kept", "confirmed": ["n1", "n2", "n3"], "lacking": [] }));

    // At once: nobody has had the time to fetch anything, or to drop it.
    cluster.nodes.iter_mut().for_each(|node| node.kill9());
    cluster.nodes.iter_mut().for_each(|node| node.start());
    for node in &cluster.nodes {
        node.until_ready().await;
    }
    let expected = json!([{ "key": "kept", "replicas": 3 }, { "key": "org/*", "replicas": 3 }]);
    for node in 0..3 {
        assert_eq!(pins(&cluster, node).await, expected);
    }
    cluster.until_held("kept", 3).await;
    cluster.until_held("org/a", 3).await;
    cluster.until_held("gone", 0).await;
    for node in &cluster.nodes {
        eventually("the forgotten key is not known", || async {
            node.ask(&["keys", "--json"]).await.unwrap().trim() == r#"["kept","org/a"]"#
        })
        .await;
    }
    assert!(upstream.reads("kept") <= 2, "once, or once more if the first fetch was cut short");
    assert_eq!(upstream.reads("gone"), 1);
    upstream.put_file("gone", "anew", "text/plain");
    assert_eq!(get(cluster.nodes[0].http, "/gone").await.unwrap().text(), "anew");
}

#[tokio::test]
async fn a_flipped_bit_in_a_log_costs_one_pin_until_another_member_tells_of_it() {
    let upstream = Upstream::start().await;
    let mut cluster = Cluster::start(2, QUICK, &["--files", &upstream.files_url()]).await;
    for number in 0..20 {
        cluster.nodes[0].ask(&["pin", &format!("k{number}")]).await.unwrap();
    }
    let expected = pins(&cluster, 0).await;
    assert_eq!(expected.as_array().unwrap().len(), 20);
    cluster.nodes.iter_mut().for_each(|node| node.kill9());
    let log = cluster.nodes[0].data.join("node/catalog");
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x04;
    std::fs::write(&log, &bytes).unwrap();

    cluster.nodes[0].restart().await;
    assert_eq!(pins(&cluster, 0).await.as_array().unwrap().len(), 19);
    let status = cluster.nodes[0].status().await.unwrap();
    assert!(status["trouble"].as_str().is_some_and(|why| why.contains("damaged")), "{status}");
    assert_eq!(status["converged"], false);
    assert_eq!(std::fs::read(log.with_file_name("catalog.damaged-1")).unwrap(), bytes);

    cluster.nodes[1].restart().await;
    for number in 0..2 {
        eventually("all pins are known again, and the log is in order", || async {
            let status = cluster.nodes[number].status().await.unwrap();
            pins(&cluster, number).await == expected && status["trouble"].is_null()
        })
        .await;
    }
}
