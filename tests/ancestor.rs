//! What the ancestor's own tests demanded of it, demanded of this system: one test for each of the seven.

mod common;

use std::time::Duration;

use common::{Cluster, DEADLINE, eventually, fetch, key, name, quick};
use datad_gossip::RouteError;
use http::StatusCode;

fn value(text: &str) -> (StatusCode, String) {
    (StatusCode::OK, text.to_owned())
}

#[tokio::test]
async fn a_key_on_disk_is_not_routable_before_its_node_starts_and_is_after() {
    let mut config = quick();
    config.not_found_ttl = Duration::ZERO;
    let mut cluster = Cluster::with_config(1, config).await;
    let memory = cluster.upstream.memory();
    memory.insert(key("on-disk"), "kept");
    let client = cluster.client("n1");
    assert!(client.nodes_for_key(&key("on-disk")).is_empty());
    let before = fetch(&client, "on-disk").await;
    assert!(matches!(before, Err(RouteError::NotFound { .. })), "{before:?}");

    cluster.add("n2", memory.clone()).await;
    eventually("the key is routable", || async { client.nodes_for_key(&key("on-disk")).contains(&name("n2")) }).await;
    assert_eq!(fetch(&client, "on-disk").await.unwrap(), value("kept"));
    assert_eq!(memory.origin_asks(), 0, "what was on disk is not fetched again");
}

#[tokio::test]
async fn a_node_is_among_the_nodes_once_it_starts_and_gone_after_it_stops() {
    let mut cluster = Cluster::start(2).await;
    let client = cluster.client("n1");
    let alive = |text: &'static str| {
        let client = client.clone();
        async move { client.view().is_alive(&name(text)) }
    };
    assert!(!alive("n3").await);
    let memory = cluster.upstream.memory();
    cluster.add("n3", memory).await;
    eventually("it is there", || alive("n3")).await;

    cluster.members.remove("n3").unwrap().node.shutdown().await;
    eventually("it has left", || async { !alive("n3").await }).await;
    cluster.kill("n2");
    eventually("one that just vanishes is gone as well", || async { !alive("n2").await }).await;
    assert!(alive("n1").await);
}

#[tokio::test]
async fn updating_an_unknown_key_creates_it_and_a_request_then_succeeds() {
    let cluster = Cluster::start(3).await;
    cluster.upstream.put("new", "data");
    let updated = cluster.client("n1").update(&key("new")).await.unwrap();
    assert!(!updated.is_empty() && updated.iter().all(|replica| replica.error.is_none()), "{updated:?}");
    for member in ["n1", "n2", "n3"] {
        assert_eq!(fetch(&cluster.client(member), "new").await.unwrap(), value("data"));
    }
    assert_eq!(cluster.upstream.asks(), 1);
}

#[tokio::test]
async fn updating_a_known_key_updates_it_where_it_is_held_and_says_where() {
    let cluster = Cluster::start(3).await;
    cluster.upstream.put("known", "old");
    fetch(&cluster.client("n1"), "known").await.unwrap();
    cluster.until_replicated("known", 2).await;
    let mut holders = cluster.any().nodes_for_key(&key("known")).to_vec();
    holders.sort();

    cluster.upstream.put("known", "new");
    let updated = cluster.client("n2").update(&key("known")).await.unwrap();
    assert!(updated.iter().all(|replica| replica.error.is_none()), "{updated:?}");
    let mut nodes: Vec<_> = updated.into_iter().map(|replica| replica.node).collect();
    nodes.sort();
    assert_eq!(nodes, holders);
    for member in cluster.members.values() {
        let held = member.memory.bytes(&key("known"));
        let expected = holders.contains(member.node.name()).then(|| "new".into());
        assert_eq!(held, expected, "{:?}", member.node.name());
    }
    assert_eq!(cluster.upstream.asks(), 2, "one holder asks the origin, the other copies");
}

#[tokio::test]
async fn a_node_whose_data_source_fails_stops_being_used_for_the_key() {
    let mut config = quick();
    // Out of sight for as long as the source fails: mended once, it would be trusted again.
    config.replicas = 3;
    let cluster = Cluster::with_config(3, config).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    cluster.until_replicated("k", 3).await;

    let (client, memory) = (cluster.client("n1"), &cluster.members["n1"].memory);
    memory.fail_serving(Some("the disk is unreadable"));
    assert_eq!(fetch(&client, "k").await.unwrap(), value("v"), "the others answer");
    eventually("it is not used any more", || async { !client.nodes_for_key(&key("k")).contains(&name("n1")) }).await;
    assert_eq!(fetch(&client, "k").await.unwrap(), value("v"));

    memory.fail_serving(None);
    cluster.until_replicated("k", 3).await;
    assert_eq!(cluster.upstream.asks(), 1, "it is mended from another holder");
}

#[tokio::test]
async fn a_request_succeeds_as_long_as_any_holder_responds() {
    let mut config = quick();
    config.replicas = 3;
    let cluster = Cluster::with_config(4, config).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    cluster.until_replicated("k", 3).await;
    let holders = cluster.any().nodes_for_key(&key("k"));
    for holder in &holders[..2] {
        cluster.members[holder.as_str()].memory.fail_serving(Some("broken"));
    }
    cluster.upstream.set_down(true);
    for _ in 0..20 {
        for member in cluster.members.values() {
            assert_eq!(
                fetch(&member.node.client(), "k").await.unwrap(),
                value("v"),
                "through {:?}",
                member.node.name()
            );
        }
    }
}

#[tokio::test]
async fn a_key_that_lost_all_its_nodes_is_given_a_new_one_and_created_there() {
    let mut config = quick();
    config.replicas = 1;
    let mut cluster = Cluster::with_config(3, config).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    cluster.until_replicated("k", 1).await;
    let holder = cluster.any().nodes_for_key(&key("k"))[0].to_string();

    cluster.kill(&holder);
    cluster.until_whole().await;
    // Nobody asks for the key: it comes back by itself.
    cluster.until_replicated("k", 1).await;
    let holders = cluster.any().nodes_for_key(&key("k"));
    assert_ne!(holders[0].as_str(), holder);
    assert_eq!(cluster.members[holders[0].as_str()].memory.bytes(&key("k")), Some("v".into()));
    assert_eq!(cluster.upstream.asks(), 2);
    let asked = tokio::time::timeout(DEADLINE, fetch(&cluster.any(), "k")).await.unwrap();
    assert_eq!(asked.unwrap(), value("v"));
}
