//! Etcd that is away, forgets, loses its leader, or does not let anybody in: what nodes make of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use datad_gossip::{MemberState, Node, StartError, etcd::EtcdConfig};
use http::StatusCode;
use rustix::process::Signal;

use crate::{
    cluster::common::{Cluster, etcd::Etcd, etcd_config, eventually, fetch, key, name, quick},
    process::harness,
    proxy::Proxy,
};

#[tokio::test]
async fn while_etcd_is_away_nodes_serve_what_they_know_and_say_what_they_cannot_do() {
    let mut cluster = Cluster::start(3).await;
    for text in ["known", "cold"] {
        cluster.upstream.put(text, "v");
    }
    fetch(&cluster.any(), "known").await.unwrap();
    cluster.until_replicated("known", 2).await;

    cluster.etcd().kill9(0);
    for member in cluster.members.values() {
        let client = member.node.client();
        eventually("it notices", || async { client.status().await.trouble.is_some() }).await;
        let trouble = client.status().await.trouble.unwrap();
        assert!(trouble.contains("cannot reach etcd at http://127.0.0.1:"), "{trouble}");
        assert!(!client.status().await.converged);
        assert_eq!(client.view().alive().count(), 3);
        assert_eq!(fetch(&client, "known").await.unwrap(), (StatusCode::OK, "v".into()));
    }
    let refused = fetch(&cluster.any(), "cold").await.unwrap_err().to_string();
    assert!(refused.contains("cannot reach etcd") && refused.contains("is it running"), "{refused}");
    assert_eq!(cluster.upstream.asks(), 1, "what cannot be registered is not fetched");
    // A refresh changes no registration.
    cluster.upstream.put("known", "w");
    let updated = cluster.any().update(&key("known")).await.unwrap();
    assert!(updated.iter().all(|replica| replica.error.is_none()), "{updated:?}");
    assert_eq!(fetch(&cluster.any(), "known").await.unwrap().1, "w");

    cluster.etcd().launch(0);
    for member in cluster.members.values() {
        let client = member.node.client();
        eventually("it is back", || async { client.status().await.trouble.is_none() }).await;
    }
    eventually("what was refused is possible again", || async { fetch(&cluster.any(), "cold").await.is_ok() }).await;
    cluster.until_whole().await;
    cluster.until_replicated("cold", 2).await;
}

#[tokio::test]
async fn a_node_that_missed_history_which_is_gone_catches_up_and_registers_anew_without_a_restart() {
    let mut cluster = Cluster::start(1).await;
    let proxy = Proxy::to(&cluster.etcd().url(0)).await;
    let mut etcd = etcd_config(cluster.etcd());
    etcd.endpoints = vec![proxy.url()];
    let away = Node::builder(name("away")).credentials(cluster.credentials()).config(quick()).etcd(etcd);
    let away = away.start().await.unwrap();
    let client = away.client();
    let ghost = "/datad/registry/data/ghostly/$$nodes/ghost";
    cluster.etcd().ctl(&["put", ghost, "ready"]);
    eventually("it hears of it", || async { client.keys("", None, 10).await.contains(&key("ghostly")) }).await;
    let incarnation = client.view().member(&name("away")).unwrap().incarnation;

    proxy.cut();
    eventually("it notices", || async { client.status().await.trouble.is_some() }).await;
    eventually("its lease lapses", || async { !cluster.any().view().is_alive(&name("away")) }).await;
    cluster.upstream.put("new", "v");
    fetch(&cluster.any(), "new").await.unwrap();
    cluster.etcd().ctl(&["del", ghost]);
    cluster.etcd().compact();
    assert!(!client.keys("", None, 10).await.contains(&key("new")), "it cannot know yet");
    assert!(client.view().is_alive(&name("n1")), "it goes on with what it knew");

    proxy.mend();
    eventually("it knows all again", || async { client.keys("", None, 10).await == [key("new")] }).await;
    eventually("it is among the members", || async { cluster.any().view().is_alive(&name("away")) }).await;
    assert_eq!(client.view().member(&name("away")).unwrap().incarnation, incarnation);
    eventually("nothing is wrong", || async { client.status().await.trouble.is_none() }).await;
    assert_eq!(fetch(&client, "new").await.unwrap().1, "v");
    away.shutdown().await;
}

#[tokio::test]
async fn a_short_interruption_is_resumed_where_it_broke_off() {
    let mut cluster = Cluster::start(1).await;
    let proxy = Proxy::to(&cluster.etcd().url(0)).await;
    let mut etcd = etcd_config(cluster.etcd());
    etcd.endpoints = vec![proxy.url()];
    let away = Node::builder(name("away")).credentials(cluster.credentials()).config(quick()).etcd(etcd);
    let away = away.start().await.unwrap();
    let client = away.client();
    for round in 0..5 {
        proxy.cut();
        eventually("it notices", || async { client.status().await.trouble.is_some() }).await;
        let text = format!("key{round}");
        cluster.upstream.put(&text, "v");
        fetch(&cluster.any(), &text).await.unwrap();
        proxy.mend();
        eventually("it hears of it", || async { client.nodes_for_key(&key(&text)).contains(&name("n1")) }).await;
    }
    away.shutdown().await;
}

#[tokio::test]
async fn an_etcd_that_lost_all_it_had_is_told_again() {
    let mut cluster = Cluster::start(2).await;
    for text in ["a", "b", "c"] {
        cluster.upstream.put(text, "v");
        fetch(&cluster.any(), text).await.unwrap();
        cluster.until_replicated(text, 2).await;
    }
    let before = cluster.etcd().names("/datad/");
    cluster.etcd().kill9(0);
    std::fs::remove_dir_all(cluster.etcd().folder().join("etcd0")).unwrap();
    cluster.etcd().launch(0);
    let etcd = cluster.etcd.as_ref().unwrap();
    etcd.until_healthy().await;
    eventually("it has it all again", || async { etcd.names("/datad/") == before }).await;
    cluster.until_whole().await;
    for text in ["a", "b", "c"] {
        cluster.until_replicated(text, 2).await;
    }
    assert_eq!(cluster.upstream.asks(), 3, "nothing is fetched again");
}

#[tokio::test]
async fn no_request_fails_while_a_three_member_etcd_loses_its_leader() {
    let mut cluster = Cluster::start(0).await;
    cluster.etcd = Some(Etcd::start(3).await);
    for member in ["n1", "n2", "n3"] {
        let memory = cluster.upstream.memory();
        cluster.add(member, memory).await;
    }
    cluster.until_whole().await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..6)
        .map(|worker| {
            let client = cluster.client(&format!("n{}", worker % 3 + 1));
            let (upstream, stop, done) = (cluster.upstream.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                // Every other request is for a key that nobody has asked for yet.
                for number in 0.. {
                    let text = format!("key/{worker}/{}", number / 2);
                    upstream.put(&text, &text);
                    let answer = fetch(&client, &text).await;
                    assert_eq!(answer.map_err(|error| error.to_string()), Ok((StatusCode::OK, text)));
                    done.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    let more = |count: usize| {
        let done = done.clone();
        async move {
            let from = done.load(Ordering::Relaxed);
            eventually("requests go on", || async { done.load(Ordering::Relaxed) >= from + count }).await;
        }
    };
    more(50).await;
    let leader = cluster.etcd().leader();
    cluster.etcd().kill9(leader);
    more(100).await;
    cluster.etcd().launch(leader);
    more(100).await;
    // One that hangs is worse than one that is gone.
    let leader = cluster.etcd().leader();
    cluster.etcd().signal(leader, Signal::STOP);
    more(100).await;
    cluster.etcd().signal(leader, Signal::CONT);
    more(100).await;
    stop.store(true, Ordering::Relaxed);
    for worker in load {
        worker.await.unwrap();
    }
    for member in cluster.members.values() {
        let client = member.node.client();
        assert_eq!(client.view().alive().filter(|member| member.state == MemberState::Serving).count(), 3);
        eventually("all is well", || async { client.status().await.trouble.is_none() }).await;
    }
}

#[tokio::test]
async fn a_member_that_answers_is_not_gone_because_etcd_lost_its_record() {
    let mut cluster = Cluster::start(3).await;
    let was_missed = Arc::new(AtomicBool::new(false));
    let watches: Vec<_> = ["n1", "n3"]
        .map(|watcher| {
            let (client, was_missed) = (cluster.client(watcher), was_missed.clone());
            tokio::spawn(async move {
                client.view_when(|view| !view.is_alive(&name("n2"))).await;
                was_missed.store(true, Ordering::Relaxed);
            })
        })
        .into();
    for _ in 0..5 {
        let etcd = cluster.etcd();
        etcd.ctl(&["del", "/datad/nodes/n2"]);
        eventually("it is recorded again", || async {
            etcd.names("/datad/nodes/").iter().any(|record| record.ends_with("/n2"))
        })
        .await;
    }
    cluster.until_whole().await;
    assert!(!was_missed.load(Ordering::Relaxed), "it was there all the time");
    watches.iter().for_each(tokio::task::JoinHandle::abort);
    // One that is dead is missed all the same.
    cluster.kill("n2");
    for watcher in ["n1", "n3"] {
        let gone = cluster.client(watcher);
        eventually("the dead member is missed", || async { !gone.view().is_alive(&name("n2")) }).await;
    }
}

#[tokio::test]
async fn a_full_etcd_is_told_of_and_used_again_once_it_has_room() {
    let mut cluster = Cluster::start(0).await;
    cluster.etcd = Some(Etcd::with_quota(4 << 20).await);
    let memory = cluster.upstream.memory();
    cluster.add("n1", memory).await;
    cluster.upstream.put("before", "v");
    cluster.upstream.put("after", "v");
    fetch(&cluster.any(), "before").await.unwrap();

    let mut outsider = etcd_client::Client::connect(cluster.etcd().urls(), None).await.unwrap();
    while outsider.put("/fill", vec![0; 1 << 20], None).await.is_ok() {}
    let refused = fetch(&cluster.any(), "after").await.unwrap_err().to_string();
    assert!(refused.contains("is full") && refused.contains("alarm disarm"), "{refused}");
    assert_eq!(fetch(&cluster.any(), "before").await.unwrap().1, "v");
    assert!(cluster.any().status().await.trouble.unwrap().contains("is full"));

    outsider.delete("/fill", None).await.unwrap();
    cluster.etcd().compact();
    cluster.etcd().ctl(&["defrag"]);
    cluster.etcd().ctl(&["alarm", "disarm"]);
    eventually("it goes on", || async { fetch(&cluster.any(), "after").await.is_ok() }).await;
    let client = cluster.any();
    eventually("nothing is wrong", || async { client.status().await.trouble.is_none() }).await;
}

#[tokio::test]
async fn the_program_says_what_is_wrong_with_etcd_and_stays_ready() {
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("a"), "content").unwrap();
    let provider = ["--files", source.path().to_str().unwrap()];
    let mut cluster = harness::Cluster::start(2, harness::QUICK, &provider).await;
    let node = &cluster.nodes[0];
    assert_eq!(harness::get(node.http, "/a").await.unwrap().text(), "content");
    assert!(!node.ask(&["status"]).await.unwrap().contains("trouble"));

    cluster.etcd().signal(0, Signal::STOP);
    let node = &cluster.nodes[0];
    harness::eventually("it notices", || async { node.status().await.unwrap()["trouble"].is_string() }).await;
    let status = node.ask(&["status"]).await.unwrap();
    assert!(status.lines().any(|line| line.starts_with("trouble ") && line.contains("cannot reach etcd")), "{status}");
    assert_eq!(harness::get(node.http, "/a").await.unwrap().text(), "content");
    assert_eq!(harness::get(node.http, "/-/readyz").await.unwrap().status, StatusCode::OK);
    cluster.etcd().signal(0, Signal::CONT);
    let node = &cluster.nodes[0];
    harness::eventually("it is over", || async { node.status().await.unwrap()["trouble"].is_null() }).await;
    cluster.until_members_are(2).await;

    let last = cluster.nodes.last_mut().unwrap();
    last.kill9();
    last.without("--etcd");
    last.with("--etcd", "http://127.0.0.1:1");
    last.start();
    assert_eq!(last.until_exit().await.code(), Some(1));
    let log = last.log();
    let complaint = log.lines().last().unwrap();
    assert!(complaint.starts_with("error: cannot reach etcd at http://127.0.0.1:1: "), "{complaint}");
}

async fn refusal(etcd: EtcdConfig) -> String {
    let secret = datad_gossip::ClusterKey::generate();
    let node = Node::builder(name("n1")).credentials(datad_gossip::Credentials::ClusterKey(secret)).config(quick());
    match node.etcd(etcd).start().await {
        Err(error @ StartError::Etcd(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_etcd_with_tls_and_users_is_used_with_both_and_complaints_say_what_to_do() {
    let mut etcd = Etcd::with_tls().await;
    etcd.ask_for_users();
    let file = |name: &str| etcd.folder().join(name);
    let mut config = EtcdConfig::new(etcd.urls());
    config.lease_ttl = Duration::from_secs(2);
    let error = refusal(config.clone()).await;
    assert!(error.contains("cannot reach etcd") && error.to_lowercase().contains("certificate"), "{error}");

    config.tls.authority = Some(file("missing.pem"));
    let error = refusal(config.clone()).await;
    assert!(error.contains("cannot read") && error.contains("missing.pem"), "{error}");

    config.tls.authority = Some(file("ca.pem"));
    config.tls.identity = Some((file("etcd.pem"), file("etcd.key")));
    config.user = Some(("datad".into(), "wrong".into()));
    let error = refusal(config.clone()).await;
    assert!(error.contains("does not let this node in") && error.contains("password"), "{error}");

    config.user = Some(("datad".into(), "secret".into()));
    config.prefix = "/elsewhere/".into();
    let error = refusal(config.clone()).await;
    assert!(error.contains("permission below the prefix"), "{error}");

    config.prefix = "/datad/".into();
    let secret = datad_gossip::ClusterKey::generate();
    let upstream = crate::cluster::common::Upstream::default();
    upstream.put("k", "v");
    let node = Node::builder(name("n1")).credentials(datad_gossip::Credentials::ClusterKey(secret)).config(quick());
    let node = node.etcd(config).provider(Arc::new(upstream.memory())).start().await.unwrap();
    assert_eq!(fetch(&node.client(), "k").await.unwrap().1, "v");
    eventually("it is registered", || async { etcd.names("/datad/registry/").len() == 2 }).await;
    node.shutdown().await;
}

#[tokio::test]
async fn without_an_etcd_a_node_does_not_start_and_says_why() {
    let error = refusal(EtcdConfig::new(["http://127.0.0.1:1"])).await;
    assert!(error.contains("http://127.0.0.1:1: ") && error.contains("refused"), "{error}");
    assert!(!error.contains("Status") && !error.contains('{'), "{error}");
}
