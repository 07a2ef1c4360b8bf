//! Nodes that are taken out of service: what only they hold is handed over first, or they do not leave.

mod common;

use std::time::Duration;

use common::{Cluster, eventually, fetch, key, name, quick};
use datad_gossip::{DrainError, Drained, MemberState};
use http::StatusCode;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

fn config(replicas: usize) -> datad_gossip::config::NodeConfig {
    let mut config = quick();
    config.replicas = replicas;
    config.trim_delay = Duration::from_secs(60);
    config
}

fn is_clean(drained: &Drained) -> bool {
    drained.left && drained.remaining == 0 && drained.keys.is_empty()
}

#[tokio::test]
async fn a_drained_node_has_handed_over_what_only_it_held_and_comes_back_with_all_it_had() {
    let mut cluster = Cluster::with_config(3, config(1)).await;
    for number in 0..30 {
        cluster.upstream.put(&format!("k{number}"), "v");
        fetch(&cluster.any(), &format!("k{number}")).await.unwrap();
    }
    eventually("all know all holders", || async {
        (0..30).all(|number| cluster.client("n1").nodes_for_key(&key(&format!("k{number}"))).len() == 1)
    })
    .await;
    let had = cluster.client("n1").keys_for_node(&name("n2")).await;
    assert!(!had.is_empty());

    let drained = cluster.client("n1").drain(&name("n2"), false, PATIENCE).await.unwrap();
    assert!(is_clean(&drained), "{drained:?}");
    for member in ["n1", "n3"] {
        let client = cluster.client(member);
        client.view_when(|view| view.member(&name("n2")).unwrap().state == MemberState::Left).await;
        assert!(had.iter().all(|key| !client.nodes_for_key(key).is_empty()), "no key is without a live holder");
    }
    // It still answers, from the others, and holds nothing new.
    cluster.upstream.put("new", "v");
    for text in ["new", had[0].as_str()] {
        assert_eq!(fetch(&cluster.client("n2"), text).await.unwrap(), (StatusCode::OK, "v".to_owned()));
    }
    let member = cluster.members.remove("n2").unwrap();
    assert!(member.memory.bytes(&key("new")).is_none());
    assert_eq!(member.memory.held(), had.len(), "its own copies stay for its return");
    member.node.shutdown().await;
    let copies = member.memory.peer_copies();
    cluster.add("n2", member.memory.clone()).await;
    cluster.until_whole().await;
    eventually("it has its keys back", || async {
        cluster.client("n1").keys_for_node(&name("n2")).await.len() >= had.len()
    })
    .await;
    assert_eq!(member.memory.peer_copies(), copies, "nothing that it has is copied again");
    assert_eq!(cluster.upstream.asks(), 31);
}

#[tokio::test]
async fn the_last_live_holder_does_not_leave_unless_it_is_forced_to() {
    let mut cluster = Cluster::with_config(1, config(1)).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    cluster.upstream.set_down(true);
    // One that takes no keys.
    cluster.config.weight = 0;
    let memory = cluster.upstream.memory();
    cluster.add("n2", memory).await;
    let asker = cluster.client("n2");
    eventually("it is known who holds it", || async { asker.nodes_for_key(&key("k")).len() == 1 }).await;
    let refused = asker.drain(&name("n1"), false, PATIENCE).await.unwrap();
    assert_eq!((refused.left, refused.remaining, refused.keys), (false, 1, vec![key("k")]));
    assert_eq!(asker.view().member(&name("n1")).unwrap().state, MemberState::Draining);
    assert_eq!(fetch(&asker, "k").await.unwrap().1, "v", "it goes on serving");

    // Asked again, when there is somebody to take it.
    cluster.config.weight = 100;
    let memory = cluster.upstream.memory();
    cluster.add("n3", memory).await;
    let drained = asker.drain(&name("n1"), false, PATIENCE).await.unwrap();
    assert!(is_clean(&drained), "{drained:?}");
    assert_eq!(asker.nodes_for_key(&key("k")).as_slice(), [name("n3")]);

    let forced = asker.drain(&name("n3"), true, PATIENCE).await.unwrap();
    assert_eq!((forced.left, forced.keys), (true, vec![key("k")]));
    let error = asker.drain(&name("nobody"), false, None).await;
    assert_eq!(error, Err(DrainError::NotAlive(name("nobody"))));
}

#[tokio::test]
async fn two_that_drain_at_once_do_not_rely_on_each_other() {
    let cluster = Cluster::with_config(2, config(2)).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    cluster.until_replicated("k", 2).await;
    let (one, other) = (name("n1"), name("n2"));
    let (first, second) = (cluster.client("n1"), cluster.client("n2"));
    let (first, second) = tokio::join!(first.drain(&one, false, PATIENCE), second.drain(&other, false, PATIENCE));
    assert!(!(first.unwrap().left && second.unwrap().left), "the key would be gone");
}
