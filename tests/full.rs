//! Nodes whose disks fill up: they take no new keys, give up what others have, lose nothing, and come back when there is
//! room.

mod common;

use std::collections::BTreeSet;

use common::{Cluster, eventually, fetch, key, name, quick};
use datad_gossip::{Client, config::NodeConfig, provider::Capacity};
use http::StatusCode;

const VALUE: &str = "ten bytes.";

fn config(replicas: usize) -> NodeConfig {
    let mut config = quick();
    config.replicas = replicas;
    config
}

async fn until_accepting(cluster: &Cluster, who: &str, accepting: bool) {
    for member in cluster.members.values() {
        let client = member.node.client();
        let says = |view: &datad_gossip::View| view.member(&name(who)).is_some_and(|it| it.accepting == accepting);
        let seen = tokio::time::timeout(common::DEADLINE, client.view_when(says)).await;
        assert!(seen.is_ok(), "{} does not see that {who} accepts: {accepting}", member.node.name());
    }
}

fn good() -> (StatusCode, String) {
    (StatusCode::OK, VALUE.to_owned())
}

/// Keys that nobody has yet and whose first owner is `who`.
fn new_keys_of(client: &Client, who: &str, prefix: &str, count: usize) -> Vec<String> {
    let names = (0..).map(|number| format!("{prefix}{number}"));
    names.filter(|text| client.locate(&key(text)).owners[0] == name(who)).take(count).collect()
}

#[tokio::test]
async fn a_full_node_gets_nothing_new_gives_up_what_is_cold_and_goes_on_when_there_is_room() {
    let cluster = Cluster::with_config(3, config(2)).await;
    let old: Vec<String> = (0..60).map(|number| format!("old{number}")).collect();
    for text in &old {
        cluster.upstream.put(text, VALUE);
        cluster.any().update(&key(text)).await.unwrap();
    }
    for text in &old {
        cluster.until_replicated(text, 2).await;
    }
    let (n1, memory) = (cluster.client("n1"), &cluster.members["n1"].memory);
    let had: Vec<&String> = old.iter().filter(|text| memory.bytes(&key(text)).is_some()).collect();
    // Half of what it has is asked for, and so are not the ones to go.
    let warm: BTreeSet<&String> = had.iter().step_by(2).copied().collect();
    for text in &warm {
        assert_eq!(fetch(&n1, text).await.unwrap(), good());
    }
    let status = n1.status().await;
    assert_eq!((status.full, status.disk), (false, None));

    let used = 10 * had.len() as u64;
    memory.limit(Some(used));
    until_accepting(&cluster, "n1", false).await;
    let status = n1.status().await;
    assert!(status.full && status.disk.is_some_and(|disk| disk.total == used), "{status:?}");
    let is_cold = |text: &&&String| !warm.contains(**text);
    eventually("it gives up what is cold, to below the low watermark", || async {
        (memory.held() as f64) < 0.8 * had.len() as f64
    })
    .await;
    let cold = had.iter().filter(is_cold).filter(|text| memory.bytes(&key(text)).is_some()).count();
    assert!(cold > 0, "no more than needed");
    for text in &warm {
        assert!(memory.bytes(&key(text)).is_some(), "{text} is in use");
    }
    until_accepting(&cluster, "n1", true).await;
    for text in &old {
        let client = cluster.client("n2");
        eventually("what it gave up was taken over", || async { client.nodes_for_key(&key(text)).len() >= 2 }).await;
        assert_eq!(fetch(&client, text).await.unwrap(), good());
    }

    // Filled again, by something else.
    memory.limit(Some(0));
    until_accepting(&cluster, "n1", false).await;
    for (number, text) in (0..30).map(|number| (number, format!("new{number}"))) {
        cluster.upstream.put(&text, VALUE);
        let asked = cluster.client(["n1", "n2", "n3"][number % 3]);
        assert_eq!(fetch(&asked, &text).await.unwrap(), good());
        cluster.until_replicated(&text, 2).await;
        assert!(memory.bytes(&key(&text)).is_none(), "{text} is new");
    }

    memory.limit(None);
    until_accepting(&cluster, "n1", true).await;
    for text in new_keys_of(&n1, "n1", "later", 5) {
        cluster.upstream.put(&text, VALUE);
        assert_eq!(fetch(&cluster.client("n2"), &text).await.unwrap(), good());
        cluster.until_replicated(&text, 2).await;
        assert!(memory.bytes(&key(&text)).is_some(), "{text} belongs there");
    }
}

#[tokio::test]
async fn a_key_that_its_only_owner_has_no_room_for_is_fetched_by_another() {
    let cluster = Cluster::with_config(3, config(1)).await;
    let (client, memory) = (cluster.client("n2"), &cluster.members["n1"].memory);
    for text in new_keys_of(&client, "n1", "old", 17) {
        cluster.upstream.put(&text, VALUE);
        assert_eq!(fetch(&client, &text).await.unwrap(), good());
    }
    // Between the watermarks: it takes new keys.
    memory.limit(Some(200));
    let n1 = cluster.client("n1");
    let seen = Some(Capacity { used: 170, total: 200 });
    eventually("it has seen that", || async { n1.status().await.disk == seen }).await;
    assert!(!n1.status().await.full);

    let large = "x".repeat(100);
    for text in new_keys_of(&client, "n1", "large", 3) {
        cluster.upstream.put(&text, &large);
        assert_eq!(fetch(&client, &text).await.unwrap(), (StatusCode::OK, large.clone()));
        assert!(memory.bytes(&key(&text)).is_none());
    }
    assert!(n1.status().await.full, "it was turned away");
    assert_eq!(memory.held(), 17, "what only it has stays");
}

#[tokio::test]
async fn where_all_are_full_new_keys_are_refused_and_old_ones_served() {
    let cluster = Cluster::with_config(2, config(2)).await;
    cluster.upstream.put("old", VALUE);
    fetch(&cluster.any(), "old").await.unwrap();
    // Otherwise one of them would give it up, and have room.
    cluster.any().pin(&key("old"), None).await.unwrap();
    cluster.until_replicated("old", 2).await;
    for member in cluster.members.values() {
        member.memory.limit(Some(10));
    }
    for who in ["n1", "n2"] {
        until_accepting(&cluster, who, false).await;
    }
    cluster.upstream.put("new", VALUE);
    let refused = fetch(&cluster.any(), "new").await.unwrap_err().to_string();
    assert!(refused.contains("full"), "{refused}");
    for who in ["n1", "n2"] {
        assert_eq!(fetch(&cluster.client(who), "old").await.unwrap(), good());
    }
}
