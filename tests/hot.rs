//! Keys that are asked for very often: more nodes keep them for a while, and all holders share the requests.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{Cluster, eventually, fetch, key, quick};
use http::StatusCode;

#[tokio::test]
async fn a_hot_key_gets_extra_replicas_and_loses_them_when_it_is_not_hot_any_more() {
    let mut config = quick();
    (config.replicas, config.hot_rate, config.hot_replicas) = (1, 10, 1);
    config.hot_hold = Duration::from_secs(2);
    config.trim_delay = Duration::from_millis(200);
    let cluster = Cluster::with_config(4, config).await;
    for text in ["hot", "cold"] {
        cluster.upstream.put(text, "value");
        fetch(&cluster.any(), text).await.unwrap();
        cluster.until_replicated(text, 1).await;
    }
    let asking = Arc::new(AtomicBool::new(true));
    let askers: Vec<_> = cluster
        .members
        .values()
        .map(|member| {
            let (client, asking) = (member.node.client(), asking.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while asking.load(Ordering::Relaxed) {
                    assert_eq!(fetch(&client, "hot").await.unwrap(), (StatusCode::OK, "value".to_owned()));
                    asked += 1;
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
                asked
            })
        })
        .collect();
    eventually("more nodes keep the hot key", || async { cluster.any().nodes_for_key(&key("hot")).len() == 2 }).await;
    assert_eq!(cluster.any().nodes_for_key(&key("cold")).len(), 1);
    eventually("the node that is asked knows why", || async {
        let found = cluster.any().explain(&key("hot")).await;
        (found.replicas, found.extra, found.places.len()) == (2, 1, 2)
    })
    .await;
    assert_eq!(cluster.any().status().await.hot, 1);
    asking.store(false, Ordering::Relaxed);
    for asker in askers {
        assert!(asker.await.unwrap() > 0);
    }
    cluster.until_replicated("hot", 1).await;
    eventually("no key is hot", || async { cluster.any().status().await.hot == 0 }).await;
    assert_eq!(cluster.upstream.asks(), 2, "copies come from holders");
}
