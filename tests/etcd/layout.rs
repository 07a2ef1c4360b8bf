//! What outsiders read in etcd, and what comes of what they write.

use crate::cluster::common::{Cluster, DEADLINE, eventually, fetch, key, name};

#[tokio::test]
async fn etcd_reads_like_the_ancestors_registry() {
    let mut cluster = Cluster::start(2).await;
    cluster.upstream.put("a", "1");
    cluster.upstream.put("a/b", "2");
    for text in ["a", "a/b"] {
        fetch(&cluster.any(), text).await.unwrap();
        cluster.until_replicated(text, 2).await;
    }
    let expected = [
        "/datad/nodes/n1",
        "/datad/nodes/n2",
        "/datad/registry/data/a/$$nodes/n1",
        "/datad/registry/data/a/$$nodes/n2",
        "/datad/registry/data/a/b/$$nodes/n1",
        "/datad/registry/data/a/b/$$nodes/n2",
        "/datad/registry/nodes/n1/$$keys/a",
        "/datad/registry/nodes/n1/$$keys/a/b",
        "/datad/registry/nodes/n2/$$keys/a",
        "/datad/registry/nodes/n2/$$keys/a/b",
    ];
    eventually("etcd has it all", || async { cluster.etcd.as_ref().unwrap().names("/") == expected }).await;
    assert_eq!(cluster.etcd().value("/datad/registry/data/a/$$nodes/n1"), "ready");
    let member: serde_json::Value = serde_json::from_str(&cluster.etcd().value("/datad/nodes/n1")).unwrap();
    assert_eq!(member["state"], "serving");
    assert_eq!(member["address"], cluster.address("n1").to_string());

    cluster.members.remove("n2").unwrap().node.shutdown().await;
    assert_eq!(cluster.etcd().names("/datad/nodes/"), ["/datad/nodes/n1"], "it takes its record along");
    assert_eq!(cluster.etcd().names("/").len(), expected.len() - 1, "what it holds on disk stays registered");
}

#[tokio::test]
async fn pins_are_mirrored_whoever_is_there_to_do_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.upstream.put("k", "v");
    cluster.client("n2").pin(&key("k"), Some(2)).await.unwrap();
    cluster.client("n3").pin(&key("org/*"), Some(3)).await.unwrap();
    cluster.client("n1").pin(&key("gone"), None).await.unwrap();
    let until = async |cluster: &Cluster, expected: &[(&str, &str)]| {
        let etcd = cluster.etcd.as_ref().unwrap();
        let expected: Vec<_> = expected.iter().map(|(key, value)| (format!("/datad/pins/{key}"), *value)).collect();
        eventually("these are the pins in etcd", || async {
            etcd.names("/datad/pins/").len() == expected.len()
                && expected.iter().all(|(name, value)| etcd.value(name) == *value)
        })
        .await;
    };
    until(&cluster, &[("gone", r#"{"replicas":2}"#), ("k", r#"{"replicas":2}"#), ("org/*", r#"{"replicas":3}"#)]).await;
    cluster.client("n2").unpin(&key("org/*")).await.unwrap();
    cluster.client("n2").forget(&key("gone")).await.unwrap();
    until(&cluster, &[("k", r#"{"replicas":2}"#)]).await;

    // Without the one who did it, and without etcd for a while.
    cluster.kill("n1");
    eventually("it is missed", || async { !cluster.client("n2").view().is_alive(&name("n1")) }).await;
    cluster.etcd().kill9(0);
    let pinned = cluster.client("n3").pin(&key("x/*"), Some(1)).await.unwrap();
    assert_eq!(pinned.confirmed, [name("n2"), name("n3")], "etcd is not needed for that");
    cluster.etcd().launch(0);
    until(&cluster, &[("k", r#"{"replicas":2}"#), ("x/*", r#"{"replicas":1}"#)]).await;

    // What a stranger writes is no pin, and goes.
    let etcd = cluster.etcd.as_ref().unwrap();
    etcd.ctl(&["put", "/datad/pins/strange", r#"{"replicas":2}"#]);
    etcd.ctl(&["put", "/datad/pins/k", "1"]);
    until(&cluster, &[("k", r#"{"replicas":2}"#), ("x/*", r#"{"replicas":1}"#)]).await;
    assert_eq!(cluster.any().pins().await.len(), 2);
}

#[tokio::test]
async fn a_key_set_below_a_node_is_created_or_updated_there() {
    let cluster = Cluster::start(3).await;
    let etcd = cluster.etcd.as_ref().unwrap();
    for number in 1..=3 {
        let text = format!("key{number}");
        cluster.upstream.put(&text, "old");
        etcd.ctl(&["put", &format!("/datad/registry/nodes/n2/$$keys/{text}"), ""]);
        let node = &cluster.members["n2"];
        eventually("it is created there", || async { node.memory.bytes(&key(&text)) == Some("old".into()) }).await;
        assert_eq!(fetch(&cluster.client("n1"), &text).await.unwrap().1, "old");
    }
    cluster.until_replicated("key1", 2).await;
    let holder = cluster.any().nodes_for_key(&key("key1"))[0].to_string();
    let asks = cluster.upstream.asks();
    cluster.upstream.put("key1", "new");
    let assignment = format!("/datad/registry/nodes/{holder}/$$keys/key1");
    etcd.ctl(&["put", &assignment, "whatever an outsider writes"]);
    let memory = &cluster.members[&holder].memory;
    eventually("it is updated there", || async { memory.bytes(&key("key1")) == Some("new".into()) }).await;
    assert_eq!(cluster.upstream.asks(), asks + 1);
    eventually("the node has the last word", || async { etcd.value(&assignment) == "ready" }).await;
}

#[tokio::test]
async fn an_assignment_that_nobody_was_there_for_is_carried_out_and_an_impossible_one_goes_away() {
    let mut cluster = Cluster::start(1).await;
    cluster.upstream.put("early", "v");
    for text in ["early", "impossible"] {
        cluster.etcd().ctl(&["put", &format!("/datad/registry/nodes/n2/$$keys/{text}"), ""]);
    }
    let memory = cluster.upstream.memory();
    cluster.add("n2", memory.clone()).await;
    eventually("it is created", || async { memory.bytes(&key("early")) == Some("v".into()) }).await;
    let etcd = cluster.etcd.as_ref().unwrap();
    eventually("the other is gone", || async {
        etcd.names("/datad/registry/").iter().all(|name| !name.contains("impossible"))
    })
    .await;
}

#[tokio::test]
async fn thousands_of_assignments_at_once_are_all_carried_out() {
    const COUNT: usize = 2_000;
    let cluster = Cluster::start(1).await;
    let keys: Vec<String> = (0..COUNT).map(|number| format!("many/{number}")).collect();
    for text in &keys {
        cluster.upstream.put(text, text);
    }
    let mut outsider = etcd_client::Client::connect(cluster.etcd.as_ref().unwrap().urls(), None).await.unwrap();
    for chunk in keys.chunks(100) {
        let put = |text| etcd_client::TxnOp::put(format!("/datad/registry/nodes/n1/$$keys/{text}"), "", None);
        let puts: Vec<_> = chunk.iter().map(put).collect();
        outsider.txn(etcd_client::Txn::new().and_then(puts)).await.unwrap();
    }
    let memory = &cluster.members["n1"].memory;
    eventually("all are there", || async { keys.iter().all(|text| memory.bytes(&key(text)).is_some()) }).await;
    assert_eq!(cluster.upstream.asks(), COUNT);
}

#[tokio::test]
async fn what_strangers_delete_or_make_up_is_put_right_by_the_node_it_is_about() {
    let cluster = Cluster::start(2).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    cluster.until_replicated("k", 2).await;
    let etcd = cluster.etcd.as_ref().unwrap();
    eventually("it is registered", || async { etcd.names("/datad/registry/").len() == 4 }).await;
    etcd.ctl(&["del", "--prefix", "/datad/registry/"]);
    etcd.ctl(&["del", "/datad/nodes/n1"]);
    etcd.ctl(&["put", "/datad/registry/data/made-up/$$nodes/n1", "ready"]);
    etcd.ctl(&["put", "/datad/registry/data/not/a/../key/$$nodes/n1", "ready"]);
    eventually("all is as it was", || async {
        let names = etcd.names("/datad/registry/");
        etcd.names("/datad/nodes/").len() == 2
            && names.iter().filter(|name| name.contains("/k/$$nodes") || name.ends_with("$$keys/k")).count() == 4
            && !names.iter().any(|name| name.contains("made-up"))
    })
    .await;
    cluster.until_whole().await;
    cluster.until_replicated("k", 2).await;
    assert_eq!(cluster.upstream.asks(), 1);
    let found = tokio::time::timeout(DEADLINE, cluster.any().keys_for_node(&name("n1"))).await.unwrap();
    assert_eq!(found, [key("k")]);
}
