//! Held keys follow their origin, and the origin is not asked for more than the settings allow.

#![allow(clippy::disallowed_methods, reason = "tests run on the real machine")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{Cluster, eventually, fetch, key, quick};
use datad_gossip::{
    ActorKind, Client,
    config::{NodeConfig, RefreshPolicy, UpstreamLimit},
    key::Key,
    providers::Memory,
};
use futures::future::join_all;
use http::StatusCode;
use tokio::sync::watch;

/// An origin that remembers when it was asked, and can be held up.
#[derive(Clone, Default)]
struct Origin {
    state: Arc<Mutex<State>>,
    held_up: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    value: String,
    /// Every answer is another one.
    changing: bool,
    asks: BTreeMap<Key, Vec<Instant>>,
    inside: usize,
    most_inside: usize,
}

impl Origin {
    fn set(&self, value: &str) {
        self.state.lock().unwrap().value = value.to_owned();
    }

    fn asks(&self, text: &str) -> Vec<Instant> {
        self.state.lock().unwrap().asks.get(&key(text)).cloned().unwrap_or_default()
    }

    fn gaps(&self, text: &str) -> Vec<Duration> {
        self.asks(text).windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    async fn answer(self, wanted: Key) -> Bytes {
        let slow = wanted.as_str().starts_with("slow/");
        {
            let mut state = self.state.lock().unwrap();
            state.asks.entry(wanted.clone()).or_default().push(Instant::now());
            state.inside += usize::from(slow);
            state.most_inside = state.most_inside.max(state.inside);
        }
        if slow {
            let _ = self.held_up.subscribe().wait_for(|held_up| !held_up).await;
        }
        let mut state = self.state.lock().unwrap();
        state.inside -= usize::from(slow);
        let number = if state.changing { state.asks[&wanted].len() } else { 0 };
        format!("{}{number}", state.value).into()
    }

    fn memory(&self) -> Memory {
        let origin = self.clone();
        Memory::new(move |wanted: Key| {
            let answer = origin.clone().answer(wanted);
            async move { Ok(answer.await) }
        })
    }

    async fn cluster(&self, nodes: usize, config: NodeConfig) -> Cluster {
        let mut cluster = Cluster::with_config(0, config).await;
        for number in 1..=nodes {
            cluster.add(&format!("n{number}"), self.memory()).await;
        }
        cluster.until_whole().await;
        cluster
    }
}

fn refreshing(policy: RefreshPolicy) -> NodeConfig {
    let mut config = quick();
    config.refresh = [(String::new(), policy), ("never/".to_owned(), RefreshPolicy::default())].into();
    config
}

async fn until_all_hold(cluster: &Cluster, client: &Client, value: &str) {
    eventually("all holders have the newest", || async {
        let holders = client.nodes_for_key(&key("k"));
        let bytes = |name: &str| cluster.members.get(name)?.memory.bytes(&key("k"));
        holders.len() == 2 && holders.iter().all(|name| bytes(name.as_str()) == Some(format!("{value}0").into()))
    })
    .await;
}

#[tokio::test]
async fn one_holder_asks_once_an_interval_and_the_copies_follow() {
    let interval = Duration::from_millis(400);
    let origin = Origin::default();
    let cluster = origin.cluster(3, refreshing(RefreshPolicy::every(interval))).await;
    let client = cluster.any();
    for text in ["k", "never/k"] {
        fetch(&client, text).await.unwrap();
        cluster.until_replicated(text, 2).await;
    }
    origin.set("new");
    until_all_hold(&cluster, &client, "new").await;
    eventually("it is asked again and again", || async { origin.asks("k").len() >= 6 }).await;
    let gaps = origin.gaps("k");
    assert!(gaps.iter().all(|gap| *gap >= interval), "{gaps:?}");
    assert_eq!(origin.asks("never/k").len(), 1);

    for member in cluster.members.values() {
        member.node.inject_panic(ActorKind::Refresher);
    }
    origin.set("newer");
    until_all_hold(&cluster, &client, "newer").await;
}

#[tokio::test]
async fn another_holder_goes_on_when_the_one_who_asks_dies() {
    let origin = Origin::default();
    let mut cluster = origin.cluster(3, refreshing(RefreshPolicy::every(Duration::from_millis(300)))).await;
    fetch(&cluster.any(), "k").await.unwrap();
    cluster.until_replicated("k", 2).await;
    let first = cluster.any().locate(&key("k")).owners[0].clone();
    cluster.kill(first.as_str());
    origin.set("new");
    let client = cluster.any();
    until_all_hold(&cluster, &client, "new").await;
}

#[tokio::test]
async fn keys_that_do_not_change_are_asked_for_less_and_less() {
    let origin = Origin::default();
    let mut policy = RefreshPolicy::every(Duration::from_millis(300));
    (policy.max, policy.jitter) = (Some(Duration::from_secs(60)), 0.0);
    let cluster = origin.cluster(2, refreshing(policy)).await;
    fetch(&cluster.any(), "k").await.unwrap();
    eventually("it is refreshed three times", || async { origin.asks("k").len() >= 4 }).await;
    let gaps = origin.gaps("k");
    for (gap, least) in gaps.iter().zip([300, 600, 1_200, 2_400]) {
        assert!(*gap >= Duration::from_millis(least), "{gaps:?}");
    }
}

#[tokio::test]
async fn keys_that_change_are_asked_for_more_and_more() {
    let origin = Origin::default();
    origin.state.lock().unwrap().changing = true;
    let mut policy = RefreshPolicy::every(Duration::from_secs(5));
    policy.min = Some(Duration::from_millis(50));
    let cluster = origin.cluster(2, refreshing(policy)).await;
    fetch(&cluster.any(), "k").await.unwrap();
    // At the interval that it begins with, that would take longer than this waits.
    eventually("it is refreshed often", || async { origin.asks("k").len() >= 15 }).await;
}

#[tokio::test]
async fn limits_of_an_origin_hold_and_keep_nobody_else_waiting() {
    let mut config = quick();
    config.updaters = 2;
    let (mut slow, mut rated) = (UpstreamLimit::default(), UpstreamLimit::default());
    (slow.concurrency, rated.per_second) = (Some(1), Some(10.0));
    config.upstreams = [("slow/".to_owned(), slow), ("rated/".to_owned(), rated)].into();
    let origin = Origin::default();
    origin.held_up.send_replace(true);
    let cluster = origin.cluster(1, config).await;
    let client = cluster.any();
    let fetch_all = async |prefix: &str| {
        let keys: Vec<String> = (0..6).map(|number| format!("{prefix}{number}")).collect();
        join_all(keys.iter().map(|text| fetch(&client, text))).await
    };
    let others = async {
        eventually("the first is on its way", || async { origin.state.lock().unwrap().inside == 1 }).await;
        for text in ["fast/1", "fast/2", "fast/3"] {
            assert_eq!(fetch(&client, text).await.unwrap().0, StatusCode::OK);
        }
        let began = Instant::now();
        assert!(fetch_all("rated/").await.into_iter().all(|answer| answer.is_ok()));
        assert!(began.elapsed() >= Duration::from_millis(500), "five of six had to wait for a tenth of a second each");
        origin.held_up.send_replace(false);
    };
    let (answers, ()) = tokio::join!(fetch_all("slow/"), others);
    assert!(answers.into_iter().all(|answer| answer.is_ok_and(|(status, _)| status == StatusCode::OK)));
    assert_eq!(origin.state.lock().unwrap().most_inside, 1);
}

#[tokio::test]
async fn a_request_waits_for_a_crowded_origin_no_longer_than_it_is_patient() {
    let mut config = quick();
    config.request_patience = Duration::from_secs(1);
    let mut limit = UpstreamLimit::default();
    limit.concurrency = Some(1);
    config.upstreams = [(String::new(), limit)].into();
    let origin = Origin::default();
    origin.held_up.send_replace(true);
    let cluster = origin.cluster(1, config).await;
    let client = cluster.any();
    let (one, two) = tokio::join!(fetch(&client, "slow/1"), fetch(&client, "slow/2"));
    for outcome in [one, two] {
        assert!(matches!(outcome, Err(datad_gossip::RouteError::Pending { .. })), "{outcome:?}");
    }
    origin.held_up.send_replace(false);
    eventually("both get there in the end", || async {
        fetch(&client, "slow/1").await.is_ok() && fetch(&client, "slow/2").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn an_update_names_the_holder_that_could_not_follow() {
    let cluster = Cluster::start(3).await;
    cluster.upstream.put("k", "old");
    let client = cluster.any();
    fetch(&client, "k").await.unwrap();
    cluster.until_replicated("k", 2).await;
    let owners = client.locate(&key("k")).owners;
    cluster.members[owners[0].as_str()].memory.fail_serving(Some("disk on fire"));
    cluster.upstream.put("k", "new");
    let replicas = client.update(&key("k")).await.unwrap();
    let said: Vec<_> = replicas.iter().map(|replica| (&replica.node, replica.error.is_some())).collect();
    assert_eq!(said, [(&owners[0], false), (&owners[1], true)], "{replicas:?}");
    assert_eq!(cluster.upstream.asks(), 2);
}
