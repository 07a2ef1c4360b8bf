//! Members that are gone for good: who takes them off the list, what goes with them, and that they stay off it.

mod common;

use std::time::Duration;

use common::{Cluster, Member, eventually, fetch, key, name, quick};
use datad_gossip::{Client, HoldingState, MemberState, RemoveError, config::NodeConfig};
use http::StatusCode;
use tokio::time::Instant;

fn config(replicas: usize) -> NodeConfig {
    let mut config = quick();
    config.replicas = replicas;
    config
}

fn state_at(client: &Client, text: &str) -> Option<MemberState> {
    client.view().member(&name(text)).map(|member| member.state)
}

/// Waits until every node sees `text` in this state, or not at all.
async fn until_seen(cluster: &Cluster, text: &str, state: Option<MemberState>) {
    for Member { node, .. } in cluster.members.values() {
        eventually(&format!("{} sees {text} {state:?}", node.name()), || async {
            state_at(&node.client(), text) == state
        })
        .await;
    }
}

/// Nobody lists `text` for as long as it takes a node to believe what others tell of the dead, and longer.
async fn stays_off(cluster: &Cluster, text: &str) {
    let end = Instant::now() + cluster.config.repair_delay * 2;
    while Instant::now() < end {
        for Member { node, .. } in cluster.members.values() {
            assert_eq!(state_at(&node.client(), text), None, "{} lists {text} again", node.name());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_member_that_was_removed_is_off_every_list_also_that_of_a_newcomer_until_it_starts_again() {
    let mut cluster = Cluster::with_config(4, config(1)).await;
    for number in 0..40 {
        cluster.upstream.put(&format!("k{number}"), "v");
        fetch(&cluster.any(), &format!("k{number}")).await.unwrap();
    }
    let client = cluster.client("n1");
    eventually("n1 knows all keys", || async { client.keys("", None, 100).await.len() == 40 }).await;
    let only_there = client.keys_for_node(&name("n4")).await;
    assert!(!only_there.is_empty());
    assert_eq!(client.remove_member(&name("n4")).await, Err(RemoveError::Alive(name("n4"))));
    assert_eq!(client.remove_member(&name("n9")).await, Err(RemoveError::Unknown(name("n9"))));

    let observer = cluster.builder("watcher").join().await.unwrap();
    observer.view_when(|view| view.is_alive(&name("n4"))).await;
    let memory = cluster.kill("n4");
    until_seen(&cluster, "n4", Some(MemberState::Dead)).await;
    let removed = client.remove_member(&name("n4")).await.unwrap();
    assert_eq!((removed.node, removed.only_there), (name("n4"), only_there.len() as u64));
    assert_eq!(state_at(&client, "n4"), None, "at once where it was asked for");
    until_seen(&cluster, "n4", None).await;
    let refused = observer.remove_member(&name("n4")).await;
    assert!(matches!(refused, Err(RemoveError::Observer(_) | RemoveError::Unknown(_))), "{refused:?}");
    eventually("the observer does not list it either", || async { state_at(&observer, "n4").is_none() }).await;
    observer.leave().await;
    for Member { node, .. } in cluster.members.values() {
        eventually("its claims are gone", || async {
            node.client().keys("", None, 100).await.len() == 40 - only_there.len()
        })
        .await;
    }
    let newcomer = cluster.upstream.memory();
    cluster.add("n5", newcomer).await;
    stays_off(&cluster, "n4").await;
    assert_eq!(fetch(&client, only_there[0].as_str()).await.unwrap(), (StatusCode::OK, "v".to_owned()));

    cluster.add("n4", memory).await;
    cluster.until_whole().await;
    let last = only_there.last().unwrap();
    for Member { node, .. } in cluster.members.values() {
        eventually("what it brought along is known", || async { !node.client().nodes_for_key(last).is_empty() }).await;
    }
}

#[tokio::test]
async fn what_two_parts_removed_of_each_other_is_back_when_they_meet() {
    let cluster = Cluster::with_config(4, config(2)).await;
    let part = |names: [&str; 2]| names.map(|text| cluster.address(text));
    let (left, right) = (part(["n1", "n2"]), part(["n3", "n4"]));
    cluster.cuts.between(&left, &right);
    let client = cluster.client("n1");
    eventually("n1 takes n3 for dead", || async { state_at(&client, "n3") == Some(MemberState::Dead) }).await;
    client.remove_member(&name("n3")).await.unwrap();
    eventually("n2 has heard of it", || async { state_at(&cluster.client("n2"), "n3").is_none() }).await;
    cluster.cuts.heal();
    cluster.until_whole().await;
    until_seen(&cluster, "n3", Some(MemberState::Serving)).await;
}

#[tokio::test]
async fn a_dead_member_goes_by_itself_once_others_have_all_that_it_had() {
    let mut config = config(1);
    config.dead_kept = Duration::from_secs(4);
    config.repair_delay = Duration::from_secs(1);
    let mut cluster = Cluster::with_config(3, config).await;
    for number in 0..30 {
        cluster.upstream.put(&format!("k{number}"), "v");
        fetch(&cluster.any(), &format!("k{number}")).await.unwrap();
    }
    let client = cluster.client("n1");
    eventually("n1 knows all keys", || async { client.keys("", None, 100).await.len() == 30 }).await;
    let only_there = client.keys_for_node(&name("n3")).await;
    assert!(!only_there.is_empty());
    // The others cannot make up for what it had: the origin is down.
    cluster.upstream.set_down(true);
    cluster.kill("n3");
    eventually("n1 says why the member stays", || async {
        let listed = client.member_statuses().await;
        listed
            .iter()
            .any(|listed| listed.member.name == name("n3") && listed.only_there == Some(only_there.len() as u64))
    })
    .await;
    assert_eq!(state_at(&client, "n3"), Some(MemberState::Dead));
    cluster.upstream.set_down(false);
    until_seen(&cluster, "n3", None).await;
    let ready = |key| client.locate(key).holders.iter().any(|holder| holder.state == HoldingState::Ready);
    assert!(only_there.iter().all(ready), "nothing went with it");
    stays_off(&cluster, "n3").await;
}

#[tokio::test]
async fn what_was_forgotten_keeps_no_dead_member_on_the_list() {
    let mut config = config(1);
    config.dead_kept = Duration::from_secs(3);
    let mut cluster = Cluster::with_config(3, config).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    let client = cluster.client("n1");
    eventually("its holder is known", || async { !client.nodes_for_key(&key("k")).is_empty() }).await;
    let holder = client.nodes_for_key(&key("k"))[0].clone();
    cluster.kill(holder.as_str());
    let client = cluster.any();
    eventually("it is dead", || async { state_at(&client, holder.as_str()) == Some(MemberState::Dead) }).await;
    client.forget(&key("k")).await.unwrap();
    until_seen(&cluster, holder.as_str(), None).await;
}
