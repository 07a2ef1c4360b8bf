//! An origin that hangs: it stops its own keys and no others, and nothing goes on that nobody waits for.

mod common;

use std::time::Duration;

use common::{Cluster, DEADLINE, eventually, fetch, key, quick};
use datad_gossip::config::NodeConfig;
use http::StatusCode;
use tokio::{task::JoinSet, time::Instant};

const NODES: usize = 3;
const HANGING: usize = 40;

fn config(stalled: Duration) -> NodeConfig {
    let mut config = quick();
    config.stalled_fetch_patience = stalled;
    config
}

/// A cluster whose updaters are all taken by keys of an origin that hangs, and who asked for these.
async fn stuck(config: NodeConfig) -> (Cluster, JoinSet<()>) {
    let updaters = config.updaters;
    let cluster = Cluster::with_config(NODES, config).await;
    cluster.upstream.hang(Some("a/"));
    let mut askers = JoinSet::new();
    for number in 0..HANGING {
        let client = cluster.client(["n1", "n2", "n3"][number % NODES]);
        askers.spawn(async move {
            let _ = fetch(&client, &format!("a/{number}")).await;
        });
    }
    eventually("all updaters are taken", || async { cluster.upstream.stuck() == NODES * updaters }).await;
    (cluster, askers)
}

#[tokio::test]
async fn keys_of_another_origin_are_served_while_forty_hang_at_one() {
    let config = config(DEADLINE);
    let (patience, updaters) = (config.request_patience, config.updaters);
    let (cluster, _askers) = stuck(config).await;
    let mut asked = JoinSet::new();
    for number in 0..12 {
        let (client, text) = (cluster.client(["n1", "n2", "n3"][number % NODES]), format!("b/{number}"));
        cluster.upstream.put(&text, "value");
        asked.spawn(async move {
            let began = Instant::now();
            (fetch(&client, &text).await.unwrap(), began.elapsed())
        });
    }
    while let Some(answer) = asked.join_next().await {
        let (answer, took) = answer.unwrap();
        assert_eq!(answer, (StatusCode::OK, "value".to_owned()));
        assert!(took < patience / 2, "{took:?}");
    }
    eventually("the origin that hangs has the updaters that are not needed", || async {
        cluster.upstream.stuck() == NODES * updaters
    })
    .await;
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_fetched_unless_it_is_pinned() {
    let mut config = config(Duration::from_secs(1));
    config.request_patience = Duration::from_secs(5);
    let (cluster, mut askers) = stuck(config).await;
    cluster.any().pin(&key("a/pinned"), Some(1)).await.unwrap();
    askers.shutdown().await;
    eventually("only what is pinned is asked for", || async { cluster.upstream.stuck() == 1 }).await;
    let asks = cluster.upstream.asks();
    cluster.upstream.put("b/0", "value");
    assert_eq!(fetch(&cluster.any(), "b/0").await.unwrap().0, StatusCode::OK);
    assert_eq!((cluster.upstream.asks(), cluster.upstream.stuck()), (asks + 1, 1));
    eventually("no claim is left behind", || async { cluster.any().status().await.fetching == 1 }).await;
    cluster.upstream.put("a/0", "value");
    cluster.upstream.hang(None);
    assert_eq!(fetch(&cluster.any(), "a/0").await.unwrap().0, StatusCode::OK, "no failure is remembered");
}
