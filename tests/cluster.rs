//! Nodes in one process, on real sockets: cold keys, failover, healing, recovery of actors, observers.

pub(crate) mod common;

use std::{sync::Arc, time::Duration};

use common::{Cluster, DEADLINE, eventually, fetch, key, name, quick};
use datad_gossip::{ActorKind, RouteError, StartError};
use http::StatusCode;

#[tokio::test]
async fn a_cold_key_asked_for_everywhere_at_once_is_fetched_once() {
    let cluster = Cluster::start(3).await;
    cluster.upstream.put("cold", "data");
    cluster.upstream.set_delay(Duration::from_millis(200));
    let requests = (0..48).map(|number| {
        let client = cluster.client(&format!("n{}", number % 3 + 1));
        async move { fetch(&client, "cold").await.unwrap() }
    });
    for answer in futures::future::join_all(requests).await {
        assert_eq!(answer, (StatusCode::OK, "data".to_owned()));
    }
    cluster.until_replicated("cold", 2).await;
    assert_eq!(cluster.upstream.asks(), 1, "the second replica comes from the first");
}

#[tokio::test]
async fn no_such_key_is_told_to_all_and_remembered() {
    let cluster = Cluster::start(3).await;
    let requests = (1..=3).map(|number| {
        let client = cluster.client(&format!("n{number}"));
        async move { fetch(&client, "missing").await }
    });
    for answer in futures::future::join_all(requests).await {
        assert!(matches!(answer, Err(RouteError::NotFound { .. })), "{answer:?}");
    }
    let asks = cluster.upstream.asks();
    assert!(asks <= 2, "{asks}");
    assert!(fetch(&cluster.any(), "missing").await.is_err());
    assert_eq!(cluster.upstream.asks(), asks, "remembered");
    eventually("nobody claims to be fetching it any more", || async {
        cluster.any().locate(&key("missing")).holders.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_failing_origin_is_an_error_with_its_reason_and_a_later_request_succeeds() {
    let cluster = Cluster::start(2).await;
    cluster.upstream.put("k", "v");
    cluster.upstream.set_down(true);
    let error = fetch(&cluster.any(), "k").await.unwrap_err();
    assert!(error.to_string().contains("the origin is down"), "{error}");
    cluster.upstream.set_down(false);
    eventually("the key can be had again", || async {
        matches!(fetch(&cluster.any(), "k").await, Ok((StatusCode::OK, _)))
    })
    .await;
}

#[tokio::test]
async fn a_fetch_that_outlasts_the_request_goes_on() {
    let mut config = quick();
    config.request_patience = Duration::from_millis(300);
    let cluster = Cluster::with_config(2, config).await;
    cluster.upstream.put("slow", "v");
    cluster.upstream.set_delay(Duration::from_millis(1_500));
    let client = cluster.any();
    let error = fetch(&client, "slow").await.unwrap_err();
    assert!(matches!(error, RouteError::Pending { .. }), "{error}");
    eventually("it arrived", || async { !client.nodes_for_key(&key("slow")).is_empty() }).await;
    assert_eq!(cluster.upstream.asks(), 1);
}

#[tokio::test]
async fn requests_go_on_while_a_holder_dies_and_the_replica_is_made_again() {
    let mut cluster = Cluster::start(3).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.client("n1"), "k").await.unwrap();
    cluster.until_replicated("k", 2).await;
    let holders = cluster.any().nodes_for_key(&key("k"));
    let victim = holders[0].to_string();
    let asker = cluster.members.keys().find(|text| **text != victim).unwrap().clone();
    let client = cluster.client(&asker);
    cluster.kill(&victim);
    let until = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < until {
        assert_eq!(fetch(&client, "k").await.unwrap(), (StatusCode::OK, "v".to_owned()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.until_whole().await;
    cluster.until_replicated("k", 2).await;
    assert_eq!(cluster.upstream.asks(), 1, "the replica was copied from the survivor");
}

#[tokio::test]
async fn a_request_outlives_the_death_of_the_only_holder() {
    let mut config = quick();
    config.replicas = 1;
    let mut cluster = Cluster::with_config(3, config).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    let victim = cluster.any().nodes_for_key(&key("k"))[0].to_string();
    let asker = cluster.members.keys().find(|text| **text != victim).unwrap().clone();
    let client = cluster.client(&asker);
    eventually("the asker knows the holder", || async { client.nodes_for_key(&key("k")).len() == 1 }).await;
    cluster.kill(&victim);
    assert_eq!(fetch(&client, "k").await.unwrap(), (StatusCode::OK, "v".to_owned()));
    assert_eq!(cluster.upstream.asks(), 2, "fetched again by the next owner, once");
}

#[tokio::test]
async fn a_node_that_returns_within_the_delay_moves_nothing() {
    let mut config = quick();
    config.repair_delay = Duration::from_secs(60);
    let mut cluster = Cluster::with_config(3, config).await;
    for number in 0..20 {
        let text = format!("k{number}");
        cluster.upstream.put(&text, "v");
        fetch(&cluster.any(), &text).await.unwrap();
        cluster.until_replicated(&text, 2).await;
    }
    let copies = |cluster: &Cluster| cluster.members.values().map(|member| member.memory.peer_copies()).sum::<u64>();
    let before = copies(&cluster);
    let memory = cluster.kill("n2");
    let lost = memory.peer_copies();
    let survivor = cluster.client("n1");
    survivor.view_when(|view| !view.is_alive(&name("n2"))).await;
    cluster.add("n2", memory).await;
    cluster.until_whole().await;
    for number in 0..20 {
        cluster.until_replicated(&format!("k{number}"), 2).await;
    }
    assert_eq!(copies(&cluster), before, "nothing was copied, {lost} of them are the returned node's own");
    assert_eq!(cluster.upstream.asks(), 20);
}

#[tokio::test]
async fn keys_spread_to_a_node_that_joins_and_the_surplus_goes() {
    let mut cluster = Cluster::start(2).await;
    for number in 0..30 {
        cluster.upstream.put(&format!("k{number}"), "v");
        fetch(&cluster.any(), &format!("k{number}")).await.unwrap();
    }
    let memory = cluster.upstream.memory();
    cluster.add("n3", memory).await;
    cluster.until_whole().await;
    for number in 0..30 {
        cluster.until_replicated(&format!("k{number}"), 2).await;
    }
    eventually("every node holds just what it claims", || async {
        cluster.members.values().map(|member| member.memory.held()).sum::<usize>() == 60
    })
    .await;
    assert!(cluster.members["n3"].memory.held() > 0);
    assert_eq!(cluster.upstream.asks(), 30, "replicas come from peers");
}

#[tokio::test]
async fn a_newcomer_learns_what_only_a_dead_member_had_and_fetches_what_is_its_own_now() {
    let mut config = quick();
    config.replicas = 1;
    let mut cluster = Cluster::with_config(2, config).await;
    let keys: Vec<String> = (0..30).map(|number| format!("k{number}")).collect();
    for text in &keys {
        cluster.upstream.put(text, "v");
        fetch(&cluster.any(), text).await.unwrap();
    }
    for text in &keys {
        cluster.until_replicated(text, 1).await;
    }
    cluster.upstream.set_down(true);
    let lost: Vec<&String> = {
        let at = |text: &&String| cluster.any().nodes_for_key(&key(text)).iter().any(|node| node.as_str() == "n2");
        keys.iter().filter(at).collect()
    };
    cluster.kill("n2");
    cluster.until_whole().await;
    let memory = cluster.upstream.memory();
    cluster.add("n3", memory).await;
    cluster.until_whole().await;
    let moved = lost.iter().filter(|text| cluster.any().locate(&key(text)).owners == [name("n3")]).count();
    assert!(moved > 0, "the newcomer owns some of what was lost");
    cluster.upstream.set_down(false);
    for text in lost {
        cluster.until_replicated(text, 1).await;
    }
}

#[tokio::test]
async fn a_holder_that_turns_out_not_to_have_the_key_corrects_itself() {
    let cluster = Cluster::start(2).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    cluster.until_replicated("k", 2).await;
    cluster.members["n1"].memory.lose(&key("k"));
    assert_eq!(fetch(&cluster.client("n1"), "k").await.unwrap().1, "v");
    cluster.until_replicated("k", 2).await;
    assert!(cluster.members["n1"].memory.bytes(&key("k")).is_some());
    assert_eq!(cluster.upstream.asks(), 1);
}

#[tokio::test]
async fn an_observer_looks_up_and_routes_but_never_owns() {
    let cluster = Cluster::start(2).await;
    cluster.upstream.put("k", "v");
    let observer = cluster.builder("watcher").join().await.unwrap();
    assert_eq!(fetch(&observer, "k").await.unwrap(), (StatusCode::OK, "v".to_owned()));
    eventually("both nodes have it", || async { observer.nodes_for_key(&key("k")).len() == 2 }).await;
    assert!(!observer.view().ring().nodes().contains(&name("watcher")));
    until_followed(&cluster, 1).await;
    observer.leave().await;
    until_followed(&cluster, 0).await;
}

/// Waits until the members have so many observers, and checks that they do not list them.
async fn until_followed(cluster: &Cluster, observers: usize) {
    #[cfg(feature = "etcd")]
    if common::BY_ETCD {
        let alive = |view: &datad_gossip::View| view.alive().filter(|member| member.observer).count() == observers;
        tokio::time::timeout(DEADLINE, cluster.any().view_when(alive)).await.unwrap();
        return;
    }
    let streams = observers * cluster.members.len().min(2);
    eventually("each observer follows two members", || async {
        let counts = cluster.members.values().map(|member| async { member.node.client().status().await.observers });
        futures::future::join_all(counts).await.into_iter().sum::<usize>() == streams
    })
    .await;
    let listed = |view: &datad_gossip::View| view.members().any(|member| member.observer);
    assert!(cluster.members.values().all(|member| !listed(&member.node.client().view())));
}

#[tokio::test]
async fn an_observer_goes_on_when_the_members_that_it_follows_die() {
    #[cfg(feature = "etcd")]
    if common::BY_ETCD {
        // Nothing is followed there.
        return;
    }
    let mut cluster = Cluster::start(4).await;
    cluster.upstream.put("k", "v");
    let observer = cluster.builder("watcher").join().await.unwrap();
    let mut alive = 4;
    for _ in 0..2 {
        let mut followed = Vec::new();
        for (name, member) in &cluster.members {
            if member.node.client().status().await.observers > 0 {
                followed.push(name.clone());
            }
        }
        let killed = followed.first().expect("it follows somebody").clone();
        cluster.kill(&killed);
        alive -= 1;
        let knows = |view: &datad_gossip::View| {
            view.member(&name(&killed)).is_none_or(|member| !member.state.is_alive())
                && view.alive().count() == alive + 1
        };
        tokio::time::timeout(DEADLINE, observer.view_when(knows)).await.unwrap();
        until_followed(&cluster, 1).await;
        assert_eq!(fetch(&observer, "k").await.unwrap().1, "v");
    }
}

#[tokio::test]
async fn an_observer_that_has_lost_all_members_says_so_and_finds_one_that_comes_back() {
    #[cfg(feature = "etcd")]
    if common::BY_ETCD {
        return;
    }
    let mut cluster = Cluster::start(1).await;
    let address = cluster.members["n1"].node.address();
    let observer = cluster.builder("watcher").join().await.unwrap();
    let memory = cluster.kill("n1");
    let alone = |view: &datad_gossip::View| view.alive().count() == 1;
    tokio::time::timeout(DEADLINE, observer.view_when(alone)).await.unwrap();
    eventually("it says which seed does not answer", || async {
        observer.status().await.waiting_for.iter().any(|lack| lack.contains(&address.to_string()))
    })
    .await;
    cluster.config.listen = address;
    cluster.add("n1", memory).await;
    let found = |view: &datad_gossip::View| view.alive().count() == 2;
    tokio::time::timeout(DEADLINE, observer.view_when(found)).await.unwrap();
}

#[tokio::test]
async fn the_name_of_an_observer_is_taken_while_it_is_there() {
    let cluster = Cluster::start(2).await;
    let first = cluster.builder("watcher").join().await.unwrap();
    for second in futures::future::join_all(["n2", "watcher"].map(|taken| cluster.builder(taken).join())).await {
        let error = second.unwrap_err();
        assert!(matches!(error, StartError::NameInUse(_)), "{error}");
    }
    first.leave().await;
    cluster.builder("watcher").join().await.expect("the name is free again").leave().await;
}

#[tokio::test]
async fn observers_cost_no_gossip() {
    #[cfg(feature = "etcd")]
    if common::BY_ETCD {
        return;
    }
    let cluster = Cluster::start(3).await;
    let joined = (0..40).map(|number| cluster.builder(&format!("observer-{number}")).join());
    let observers: Vec<_> = futures::future::join_all(joined).await.into_iter().map(|joined| joined.unwrap()).collect();
    until_followed(&cluster, observers.len()).await;
    for member in cluster.members.values() {
        let status = member.node.client().status().await;
        assert_eq!(status.members, 3);
        assert_eq!(status.gossip_identities, 3, "gossip tells of the members alone");
    }
    futures::future::join_all(observers.into_iter().map(|observer| observer.leave())).await;
    until_followed(&cluster, 0).await;
}

#[tokio::test]
async fn a_second_node_of_a_live_name_does_not_start() {
    let cluster = Cluster::start(2).await;
    let second = cluster.builder("n2");
    let error = second.provider(Arc::new(cluster.upstream.memory())).start().await.unwrap_err();
    assert!(matches!(error, StartError::NameInUse(_)), "{error}");
}

#[tokio::test]
async fn every_actor_that_panics_comes_back_and_the_node_is_whole_again() {
    for kind in [
        ActorKind::Router,
        ActorKind::Balancer,
        ActorKind::Updater,
        ActorKind::Catalog,
        ActorKind::Registry,
        ActorKind::Membership,
    ] {
        let cluster = Cluster::start(2).await;
        cluster.upstream.put("before", "1");
        cluster.upstream.put("after", "2");
        fetch(&cluster.any(), "before").await.unwrap();
        cluster.until_replicated("before", 2).await;
        let incarnation = cluster.any().view().member(&name("n1")).unwrap().incarnation;
        cluster.members["n1"].node.inject_panic(kind);
        if matches!(kind, ActorKind::Registry | ActorKind::Membership) {
            let reborn = |view: &datad_gossip::View| view.member(&name("n1")).unwrap().incarnation > incarnation;
            tokio::time::timeout(DEADLINE, cluster.client("n2").view_when(reborn)).await.unwrap();
        }
        cluster.until_whole().await;
        eventually("the node answers", || async {
            matches!(fetch(&cluster.client("n1"), "after").await, Ok((StatusCode::OK, _)))
        })
        .await;
        cluster.until_replicated("before", 2).await;
        cluster.until_replicated("after", 2).await;
        assert_eq!(cluster.upstream.asks(), 2, "{kind:?}");
    }
}

#[tokio::test]
async fn a_node_whose_actors_keep_failing_stops_and_says_so() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.members["n1"].node;
    let reason = tokio::time::timeout(DEADLINE, async {
        loop {
            node.inject_panic(ActorKind::Router);
            tokio::select! {
                reason = node.failed() => break reason,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    });
    assert!(reason.await.unwrap().to_string().contains("gave up"));
}

#[test]
fn a_node_leaves_no_task_behind_whether_shut_down_or_dropped() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = alive();
        let mut cluster = Cluster::start(3).await;
        cluster.upstream.put("k", "v");
        fetch(&cluster.any(), "k").await.unwrap();
        assert!(alive() > before);
        cluster.members.remove("n1").unwrap().node.shutdown().await;
        drop(cluster);
        eventually("all tasks ended", || async { alive() <= before }).await;
    });
}

#[tokio::test]
async fn a_refusal_of_the_origin_is_remembered_for_a_while_and_an_explicit_update_asks_again() {
    let cluster = Cluster::start(3).await;
    cluster.upstream.put("k", "v");
    cluster.upstream.set_refusing(true);
    for who in ["n1", "n2", "n3", "n1"] {
        let refused = fetch(&cluster.client(who), "k").await.unwrap_err().to_string();
        assert!(refused.contains("403"), "{refused}");
    }
    assert_eq!(cluster.upstream.asks(), 1);
    cluster.upstream.set_refusing(false);
    cluster.client("n2").update(&key("k")).await.unwrap();
    assert_eq!(cluster.upstream.asks(), 2);
    assert_eq!(fetch(&cluster.client("n3"), "k").await.unwrap(), (StatusCode::OK, "v".to_owned()));
}

#[tokio::test]
async fn observers_and_restarts_leave_nothing_behind_in_gossip() {
    #[cfg(feature = "etcd")]
    if common::BY_ETCD {
        // There is no gossip.
        return;
    }
    let mut cluster = Cluster::start(2).await;
    for batch in 0..3 {
        let joined = (0..10).map(|number| {
            let observer = cluster.builder(&format!("observer-{batch}-{number}-{}", "x".repeat(45)));
            async move { observer.join().await.unwrap().leave().await }
        });
        futures::future::join_all(joined).await;
        let memory = cluster.kill("n2");
        cluster.add("n2", memory).await;
    }
    cluster.until_whole().await;
    for member in cluster.members.values() {
        let client = member.node.client();
        eventually("gossip tells of the two members alone", || async { client.status().await.gossip_identities == 2 })
            .await;
        // With every observer and start in it, the largest message would be longer than this.
        assert!(client.status().await.gossip_largest < 5_000, "{}", client.status().await.gossip_largest);
    }
}
