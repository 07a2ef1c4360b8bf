//! Pins and forgets: what they make of keys, and that all nodes agree on them whatever happens in between.

mod common;

use std::time::Duration;

use common::{Cluster, eventually, fetch, key, name, quick};
use datad_gossip::{Client, HoldingState, IntentAck, IntentError};
use http::StatusCode;

fn pins(text: &[(&str, usize)]) -> Vec<(String, usize)> {
    text.iter().map(|(key, replicas)| ((*key).to_owned(), *replicas)).collect()
}

async fn pins_of(client: &Client) -> Vec<(String, usize)> {
    client.pins().await.into_iter().map(|pin| (pin.key.as_str().to_owned(), pin.replicas)).collect()
}

async fn until_pins_are(cluster: &Cluster, expected: &[(&str, usize)]) {
    for (text, member) in &cluster.members {
        let client = member.node.client();
        eventually(&format!("{text} knows the pins"), || async { pins_of(&client).await == pins(expected) }).await;
    }
}

fn confirmed(recorded: &IntentAck) -> Vec<&str> {
    recorded.confirmed.iter().map(|node| node.as_str()).collect()
}

/// What a clock may be wrong by.
const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

#[tokio::test]
async fn a_pinned_key_is_fetched_though_nobody_asks_and_kept_at_its_count() {
    let mut cluster = Cluster::start(4).await;
    cluster.upstream.put("k", "v");
    let recorded = cluster.client("n2").pin(&key("k"), Some(3)).await.unwrap();
    assert_eq!((confirmed(&recorded), recorded.pending.len()), (vec!["n1", "n2", "n3", "n4"], 0));
    assert_eq!(pins_of(&cluster.client("n4")).await, pins(&[("k", 3)]), "confirmed is known");
    cluster.until_replicated("k", 3).await;
    assert_eq!(cluster.upstream.asks(), 1, "two of the three are copies");
    assert!(cluster.any().locate(&key("k")).pinned);

    let victim = cluster.any().nodes_for_key(&key("k"))[0].to_string();
    cluster.kill(&victim);
    cluster.until_whole().await;
    cluster.until_replicated("k", 3).await;
    assert_eq!(cluster.upstream.asks(), 1);

    cluster.any().unpin(&key("k")).await.unwrap();
    cluster.until_replicated("k", 2).await;
    until_pins_are(&cluster, &[]).await;
}

#[tokio::test]
async fn a_pinned_key_that_the_origin_gets_late_arrives_all_the_same() {
    let cluster = Cluster::start(2).await;
    cluster.upstream.put("k", "v");
    cluster.upstream.set_down(true);
    cluster.any().pin(&key("k"), None).await.unwrap();
    eventually("it was tried, and is missed", || async {
        cluster.upstream.asks() > 0 && cluster.any().status().await.under_replicated == 1
    })
    .await;
    cluster.upstream.set_down(false);
    cluster.until_replicated("k", 2).await;
}

#[tokio::test]
async fn a_pattern_applies_to_the_keys_that_somebody_asked_for() {
    let cluster = Cluster::start(4).await;
    for text in ["org/a", "org/b", "other/a"] {
        cluster.upstream.put(text, "v");
    }
    fetch(&cluster.any(), "org/a").await.unwrap();
    fetch(&cluster.any(), "other/a").await.unwrap();
    cluster.any().pin(&key("org/*"), Some(4)).await.unwrap();
    cluster.until_replicated("org/a", 4).await;
    cluster.until_replicated("other/a", 2).await;
    fetch(&cluster.any(), "org/b").await.unwrap();
    cluster.until_replicated("org/b", 4).await;
    assert_eq!(cluster.upstream.asks(), 3);
}

#[tokio::test]
async fn prefixes_in_the_settings_have_their_own_count() {
    let mut config = quick();
    config.prefix_replicas = [("often/".to_owned(), 3)].into();
    let cluster = Cluster::with_config(3, config).await;
    for text in ["often/a", "a"] {
        cluster.upstream.put(text, "v");
        fetch(&cluster.any(), text).await.unwrap();
    }
    cluster.until_replicated("often/a", 3).await;
    cluster.until_replicated("a", 2).await;
}

#[tokio::test]
async fn a_forgotten_key_is_gone_everywhere_and_fetched_anew_when_asked_for() {
    let cluster = Cluster::start(3).await;
    cluster.upstream.put("k", "old");
    cluster.any().pin(&key("k"), Some(2)).await.unwrap();
    cluster.until_replicated("k", 2).await;
    cluster.upstream.put("k", "new");
    cluster.client("n3").forget(&key("k")).await.unwrap();
    eventually("nobody holds it or knows of it", || async {
        let mut known = 0;
        for member in cluster.members.values() {
            known += member.node.client().keys("", None, 10).await.len() + member.memory.held();
        }
        known == 0
    })
    .await;
    until_pins_are(&cluster, &[]).await;
    assert_eq!(cluster.upstream.asks(), 1, "nobody fetches what nobody asks for");
    for text in ["n1", "n2", "n3"] {
        assert_eq!(fetch(&cluster.client(text), "k").await.unwrap(), (StatusCode::OK, "new".to_owned()));
    }
    cluster.until_replicated("k", 2).await;
    assert_eq!(cluster.upstream.asks(), 2);
    assert_eq!(cluster.any().forget(&key("o/*")).await, Err(IntentError::Pattern(key("o/*"))));
}

#[tokio::test]
async fn a_holder_that_was_away_when_a_key_was_forgotten_drops_it_when_it_returns() {
    let mut config = quick();
    config.repair_delay = Duration::from_secs(60);
    let mut cluster = Cluster::with_config(2, config).await;
    cluster.upstream.put("k", "old");
    fetch(&cluster.any(), "k").await.unwrap();
    cluster.until_replicated("k", 2).await;
    let memory = cluster.kill("n2");
    let client = cluster.client("n1");
    client.view_when(|view| !view.is_alive(&name("n2"))).await;
    let recorded = client.forget(&key("k")).await.unwrap();
    assert_eq!((confirmed(&recorded), recorded.pending[0].node.as_str()), (vec!["n1"], "n2"));
    eventually("it is gone here, and not fetched again for the dead", || async {
        let gone = client.locate(&key("k")).holders.is_empty() && cluster.members["n1"].memory.held() == 0;
        gone && client.status().await.converged
    })
    .await;
    assert_eq!(cluster.upstream.asks(), 1);
    cluster.upstream.put("k", "new");
    assert!(memory.bytes(&key("k")).is_some());
    cluster.add("n2", memory.clone()).await;
    eventually("it is gone there", || async { memory.held() == 0 && client.keys("", None, 10).await.is_empty() }).await;
    assert_eq!(fetch(&cluster.client("n2"), "k").await.unwrap().1, "new");
    cluster.until_replicated("k", 2).await;
    assert_eq!(memory.bytes(&key("k")).unwrap(), "new");
}

#[tokio::test]
async fn both_sides_of_a_partition_take_intents_and_agree_after_it() {
    let mut config = quick();
    config.repair_delay = Duration::from_secs(60);
    let cluster = Cluster::with_config(3, config).await;
    for text in ["a", "b", "c"] {
        cluster.upstream.put(text, "v");
    }
    cluster.client("n1").pin(&key("c"), Some(3)).await.unwrap();
    cluster.until_replicated("c", 3).await;
    cluster.cuts.between(&[cluster.address("n1")], &[cluster.address("n2"), cluster.address("n3")]);
    cluster.client("n1").view_when(|view| view.alive().count() == 1).await;
    cluster.client("n2").view_when(|view| !view.is_alive(&name("n1"))).await;
    let alone = cluster.client("n1").pin(&key("a"), Some(3)).await.unwrap();
    assert_eq!((confirmed(&alone), alone.pending.len()), (vec!["n1"], 2));
    let two = cluster.client("n2").pin(&key("b"), Some(1)).await.unwrap();
    assert_eq!((confirmed(&two), two.pending.len()), (vec!["n2", "n3"], 1));
    // The later of two that contradict each other holds, on both sides.
    cluster.client("n1").pin(&key("c"), Some(1)).await.unwrap();
    cluster.client("n3").unpin(&key("c")).await.unwrap();
    cluster.client("n3").pin(&key("c"), Some(2)).await.unwrap();

    cluster.cuts.heal();
    cluster.until_whole().await;
    until_pins_are(&cluster, &[("a", 3), ("b", 1), ("c", 2)]).await;
    for (text, count) in [("a", 3), ("b", 1), ("c", 2)] {
        cluster.until_replicated(text, count).await;
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_wrong_by_a_year_does_no_harm() {
    let mut cluster = Cluster::start(2).await;
    // While it runs, and from the start.
    cluster.members["n1"].clock.set_off_by(YEAR_MS);
    cluster.client("n1").pin(&key("a"), Some(1)).await.unwrap();
    let late = cluster.upstream.memory();
    cluster.add_with_clock("n3", late, YEAR_MS).await;
    cluster.until_whole().await;
    let months = 300 * 24 * 3600;
    eventually("n2 says whose clock is off", || async {
        let apart = cluster.client("n2").status().await.clocks_apart;
        apart.iter().map(|clock| clock.node.as_str()).eq(["n1", "n3"])
            && apart.iter().all(|clock| clock.ahead_seconds > months)
    })
    .await;
    cluster.client("n3").pin(&key("b"), Some(1)).await.unwrap();
    cluster.client("n2").pin(&key("c"), Some(1)).await.unwrap();
    until_pins_are(&cluster, &[("a", 1), ("b", 1), ("c", 1)]).await;
    cluster.members["n1"].clock.set_off_by(-YEAR_MS);
    for (node, text) in [("n1", "b"), ("n2", "a"), ("n1", "c")] {
        assert_eq!(cluster.client(node).unpin(&key(text)).await.unwrap().pending, []);
    }
    until_pins_are(&cluster, &[]).await;
}

#[tokio::test]
async fn an_observer_may_say_what_it_wants_and_needs_a_member_to_write_it_down() {
    let mut cluster = Cluster::start(2).await;
    cluster.upstream.put("k", "v");
    let mut config = quick();
    config.seeds = cluster.seeds();
    let observer = Client::join(name("watcher"), cluster.credentials(), config).await.unwrap();
    let recorded = observer.pin(&key("k"), Some(2)).await.unwrap();
    assert_eq!(confirmed(&recorded), ["n1", "n2"]);
    cluster.until_replicated("k", 2).await;
    eventually("it sees the owners as they do", || async {
        observer.locate(&key("k")).holders.iter().filter(|holder| holder.state == HoldingState::Ready).count() == 2
    })
    .await;
    cluster.members.clear();
    observer.view_when(|view| view.alive().count() == 1).await;
    assert_eq!(observer.pin(&key("l"), None).await, Err(IntentError::NobodyReached));
    observer.leave().await;
}

#[tokio::test]
async fn what_an_observer_says_last_holds_though_somebody_whose_clock_is_ahead_said_something_before() {
    let mut cluster = Cluster::start(1).await;
    let memory = cluster.upstream.memory();
    cluster.add_with_clock("n2", memory, YEAR_MS).await;
    cluster.until_whole().await;
    let mut config = quick();
    config.seeds = cluster.seeds();
    let observer = Client::join(name("watcher"), cluster.credentials(), config).await.unwrap();
    for number in 0..5 {
        let pinned = key(&format!("k{number}"));
        cluster.client("n2").pin(&pinned, Some(1)).await.unwrap();
        // It may not have heard of the pin yet.
        assert_eq!(confirmed(&observer.unpin(&pinned).await.unwrap()), ["n1", "n2"]);
        for member in cluster.members.values() {
            assert_eq!(member.node.client().pins().await, [], "{number} at {}", member.node.name());
        }
    }
    observer.leave().await;
}
