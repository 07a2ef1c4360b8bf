//! Nodes whose disks fill up: they take no new keys, give up what others have, lose nothing, and come back when there is
//! room.

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{Cluster, eventually, fetch, key, name, quick};
use datad_gossip::{
    Client,
    config::{LastCopies, NodeConfig},
    provider::Capacity,
};
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

/// Two nodes that have 20 keys, `old/0` and so on, and are full of them; the first two are pinned. Each key is on one node.
async fn full_cluster(last_copies: LastCopies) -> Cluster {
    let mut config = config(1);
    config.last_copies = last_copies;
    // Nothing is given up within this time of its last use.
    config.request_patience = Duration::from_secs(2);
    let cluster = Cluster::with_config(2, config).await;
    for number in 0..20 {
        let text = format!("old/{number}");
        cluster.upstream.put(&text, VALUE);
        assert_eq!(fetch(&cluster.any(), &text).await.unwrap(), good());
    }
    for text in ["old/0", "old/1"] {
        cluster.any().pin(&key(text), None).await.unwrap();
    }
    for member in cluster.members.values() {
        member.memory.limit(Some(10 * member.memory.held() as u64));
    }
    for who in ["n1", "n2"] {
        until_accepting(&cluster, who, false).await;
    }
    cluster
}

fn held(cluster: &Cluster, text: &str) -> bool {
    cluster.members.values().any(|member| member.memory.bytes(&key(text)).is_some())
}

fn held_of(cluster: &Cluster, texts: impl IntoIterator<Item = String>) -> usize {
    texts.into_iter().filter(|text| held(cluster, text)).count()
}

#[tokio::test]
async fn where_all_are_full_what_is_cold_makes_room_for_what_is_new() {
    let cluster = full_cluster(LastCopies::Evict).await;
    cluster.upstream.lose("old/2");
    for number in 0..8 {
        let text = format!("new/{number}");
        cluster.upstream.put(&text, VALUE);
        let asked = cluster.client(["n1", "n2"][number % 2]);
        eventually(&format!("{text} is served"), || async {
            match fetch(&asked, &text).await {
                Ok(answer) => answer == good(),
                // There is no room just now, and a client is told to come back.
                Err(error) => {
                    assert!(error.to_string().contains("full") || error.to_string().contains("still"), "{error}");
                    false
                }
            }
        })
        .await;
        for kept in ["old/0", "old/1", "old/2"] {
            assert!(held(&cluster, kept), "{kept} is pinned, or the origin has lost it");
        }
    }
    let client = cluster.client("n1");
    let status = client.status().await;
    assert!(status.keys < 28, "what was given up is not known any more: {}", status.keys);
    let gone = (3..20).map(|number| format!("old/{number}")).find(|text| !held(&cluster, text)).unwrap();
    eventually("what was given up is fetched again when asked for", || async {
        fetch(&client, &gone).await.is_ok_and(|answer| answer == good())
    })
    .await;
}

#[tokio::test]
async fn while_the_origin_is_away_no_only_copy_goes() {
    let cluster = full_cluster(LastCopies::Evict).await;
    cluster.upstream.set_down(true);
    let before = cluster.upstream.asks();
    eventually("the origin was asked", || async { cluster.upstream.asks() > before }).await;
    // Each node asks about three keys, and leaves the origin of these keys alone then.
    let refused = fetch(&cluster.any(), "new").await.unwrap_err().to_string();
    assert!(refused.contains("full") || refused.contains("still"), "{refused}");
    assert_eq!(held_of(&cluster, (0..20).map(|number| format!("old/{number}"))), 20);
    assert!(cluster.upstream.asks() <= before + 6, "{} questions", cluster.upstream.asks() - before);
}

#[tokio::test]
async fn only_copies_stay_where_the_operator_says_so() {
    let cluster = full_cluster(LastCopies::Keep).await;
    cluster.upstream.put("new", VALUE);
    let refused = fetch(&cluster.any(), "new").await.unwrap_err().to_string();
    assert!(refused.contains("full") || refused.contains("still"), "{refused}");
    assert_eq!(held_of(&cluster, (0..20).map(|number| format!("old/{number}"))), 20);
}

#[tokio::test]
async fn pins_that_find_no_room_are_named_in_the_status() {
    let cluster = full_cluster(LastCopies::Keep).await;
    cluster.upstream.put("wanted", VALUE);
    let client = cluster.client("n1");
    client.pin(&key("wanted"), None).await.unwrap();
    eventually("the status says what the pin waits for", || async {
        client.status().await.waiting_for.iter().any(|what| what.contains("room") && what.contains("1 pinned key"))
    })
    .await;
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
