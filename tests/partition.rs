//! Links that are cut: what is known spreads by other ways, each side goes on, and all agree again afterwards.

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Cluster, DEADLINE, Member, cut::WallClock, eventually, fetch, get, key, name, quick};
use datad_gossip::{
    HoldingState,
    config::NodeConfig,
    providers::{Files, FilesConfig},
};
use http::StatusCode;
use http_body_util::BodyExt;
use tower::ServiceExt;

fn config() -> NodeConfig {
    let mut config = quick();
    config.repair_delay = Duration::from_secs(60);
    config
}

#[tokio::test]
async fn claims_reach_a_node_through_another_when_their_writer_cannot_be_reached() {
    let cluster = Cluster::with_config(3, config()).await;
    cluster.cuts.between(&[cluster.address("n1")], &[cluster.address("n3")]);
    for number in 0..12 {
        cluster.upstream.put(&format!("k{number}"), "v");
        fetch(&cluster.client("n2"), &format!("k{number}")).await.unwrap();
    }
    let far = cluster.client("n3");
    let near = cluster.client("n2");
    eventually("n1 holds something that n3 does not", || async {
        (0..12).any(|number| {
            let nodes = near.nodes_for_key(&key(&format!("k{number}")));
            nodes.contains(&name("n1")) && nodes.contains(&name("n2")) && !nodes.contains(&name("n3"))
        })
    })
    .await;
    eventually("n3 knows all that n1 claims", || async {
        (0..12).all(|number| {
            let key = key(&format!("k{number}"));
            far.nodes_for_key(&key).contains(&name("n1")) == near.nodes_for_key(&key).contains(&name("n1"))
        })
    })
    .await;
    assert!(far.view().is_alive(&name("n1")), "gossip goes round as well");
    let asked = (0..12).map(|number| {
        let far = far.clone();
        async move { fetch(&far, &format!("k{number}")).await.unwrap() }
    });
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer, (StatusCode::OK, "v".to_owned()));
    }
}

#[tokio::test]
async fn each_side_of_a_partition_goes_on_and_all_agree_after_it() {
    let cluster = Cluster::with_config(3, config()).await;
    cluster.upstream.put("before", "v");
    fetch(&cluster.client("n1"), "before").await.unwrap();
    cluster.until_replicated("before", 2).await;
    let known = cluster.client("n1").nodes_for_key(&key("before"));

    cluster.cuts.between(&[cluster.address("n1")], &[cluster.address("n2"), cluster.address("n3")]);
    cluster.client("n1").view_when(|view| view.alive().count() == 1).await;
    cluster.client("n2").view_when(|view| !view.is_alive(&name("n1"))).await;
    cluster.client("n3").view_when(|view| !view.is_alive(&name("n1"))).await;
    let still = cluster.client("n1").locate(&key("before"));
    assert!(still.owners.iter().all(|owner| known.contains(owner)), "the lookup is answered, and nothing has moved");
    for (side, text) in [("n1", "here"), ("n2", "there")] {
        cluster.upstream.put(text, text);
        assert_eq!(fetch(&cluster.client(side), text).await.unwrap().1, text);
    }

    cluster.cuts.heal();
    cluster.until_whole().await;
    for text in ["before", "here", "there"] {
        cluster.until_replicated(text, 2).await;
        for side in ["n1", "n2", "n3"] {
            assert_eq!(fetch(&cluster.client(side), text).await.unwrap().0, StatusCode::OK);
        }
    }
    let located = |side: &str| {
        let location = cluster.client(side).locate(&key("here"));
        let ready = location.holders.into_iter().filter(|holder| holder.state == HoldingState::Ready);
        ready.map(|holder| holder.node).collect::<Vec<_>>()
    };
    assert_eq!(located("n1"), located("n2"));
    assert_eq!(located("n1"), located("n3"));
}

/// A key that `holder` alone has, and that `asker` knows of.
async fn held_only_by(cluster: &Cluster, holder: &str, asker: &str) -> String {
    let from = cluster.client(holder);
    for number in 0.. {
        let text = format!("only/{number}");
        cluster.upstream.put(&text, "v");
        fetch(&from, &text).await.unwrap();
        if from.nodes_for_key(&key(&text)).as_slice() == [name(holder)] {
            let to = cluster.client(asker);
            eventually("the claim has spread", || async { to.nodes_for_key(&key(&text)).as_slice() == [name(holder)] })
                .await;
            return text;
        }
    }
    unreachable!("some key is owned by each node")
}

fn one_replica() -> NodeConfig {
    let mut config = config();
    config.replicas = 1;
    config
}

#[tokio::test]
async fn a_holder_that_cannot_be_reached_is_asked_through_a_member_that_reaches_it() {
    let cluster = Cluster::with_config(3, one_replica()).await;
    let held = held_only_by(&cluster, "n3", "n1").await;
    let asks = cluster.upstream.asks();
    cluster.cuts.between(&[cluster.address("n1")], &[cluster.address("n3")]);
    let response = tokio::time::timeout(DEADLINE, fetch(&cluster.client("n1"), &held)).await.unwrap();
    assert_eq!(response.unwrap(), (StatusCode::OK, "v".to_owned()));
    assert!(cluster.client("n1").view().is_alive(&name("n3")), "gossip goes round");
    assert_eq!(cluster.upstream.asks(), asks, "it was answered by its holder, not fetched again");
    // A cold key that the other side of the cut leads is fetched by that side all the same.
    for number in 0..8 {
        let text = format!("cold/{number}");
        cluster.upstream.put(&text, "v");
        assert_eq!(fetch(&cluster.client("n1"), &text).await.unwrap().1, "v");
    }
    assert_eq!(cluster.upstream.asks(), asks + 8, "each by one node");
}

#[tokio::test]
async fn a_request_that_began_while_no_holder_could_be_reached_is_answered_when_one_can_be_again() {
    let mut config = one_replica();
    // The members take each other for alive for as long as the link is cut.
    config.profile.phi_threshold = 1e9;
    let cluster = Cluster::with_config(2, config).await;
    let held = held_only_by(&cluster, "n2", "n1").await;
    let asks = cluster.upstream.asks();
    cluster.cuts.between(&[cluster.address("n1")], &[cluster.address("n2")]);
    let client = cluster.client("n1");
    let asked = tokio::spawn(async move { fetch(&client, &held).await });
    let status = || async { cluster.client("n1").status().await.connections };
    eventually("the connection has broken", || async { status().await == 0 }).await;
    assert!(!asked.is_finished());
    cluster.cuts.heal();
    let answer = tokio::time::timeout(DEADLINE, asked).await.unwrap().unwrap();
    assert_eq!(answer.unwrap(), (StatusCode::OK, "v".to_owned()));
    assert_eq!(cluster.upstream.asks(), asks, "it was answered by its holder, not fetched again");
}

#[tokio::test]
async fn a_node_that_lost_its_disk_and_the_time_of_day_is_taken_in_again() {
    let mut cluster = Cluster::start(3).await;
    cluster.upstream.put("k", "v");
    fetch(&cluster.any(), "k").await.unwrap();
    let before = cluster.any().view().member(&name("n1")).unwrap().incarnation;
    cluster.kill("n1");
    const YESTERDAY_MS: i64 = -86_400_000;
    cluster.add_with_clock("n1", cluster.upstream.memory(), YESTERDAY_MS).await;
    cluster.until_whole().await;
    for member in cluster.members.values() {
        let back = |view: &datad_gossip::View| {
            view.member(&name("n1")).is_some_and(|member| member.state.is_alive() && member.incarnation > before)
        };
        tokio::time::timeout(DEADLINE, member.node.client().view_when(back)).await.unwrap();
    }
    assert_eq!(fetch(&cluster.client("n1"), "k").await.unwrap().1, "v");
}

#[tokio::test]
async fn a_download_whose_sender_is_cut_off_goes_on_from_another_holder_long_before_the_connection_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let content: Bytes = (0..=255_u8).cycle().take(8 << 20).collect();
    std::fs::write(source.join("large"), &content).unwrap();
    let mut config = config();
    config.profile.idle_timeout = 10 * DEADLINE;
    // Its files are on the disk of the machine that runs the tests, which may be fuller than a node likes.
    (config.disk_low, config.disk_high) = (0.98, 0.99);
    let mut cluster = Cluster::with_config(0, config).await;
    for text in ["n1", "n2", "n3"] {
        let files = Files::open(FilesConfig::new(source.to_str().unwrap(), dir.path().join(text))).unwrap();
        let node = cluster.builder(text).provider(Arc::new(files)).start().await.unwrap();
        let (memory, clock) = (cluster.upstream.memory(), WallClock::default());
        cluster.members.insert(text.to_owned(), Member { node, memory, clock });
    }
    cluster.until_whole().await;
    let first = cluster.client("n1").transport_for_key(key("large")).oneshot(get("/large")).await.unwrap();
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), content);
    cluster.until_replicated("large", 2).await;
    let holders = cluster.client("n1").nodes_for_key(&key("large"));
    let outsider = ["n1", "n2", "n3"].into_iter().find(|text| !holders.contains(&name(text))).unwrap();
    let mut holders = ["n1", "n2", "n3"].into_iter().filter(|text| *text != outsider);
    let (sender, other) = (holders.next().unwrap(), holders.next().unwrap());

    let address = [cluster.address(outsider)];
    cluster.cuts.between(&address, &[cluster.address(other)]);
    let download = cluster.client(outsider).transport_for_key(key("large")).oneshot(get("/large"));
    let response = tokio::time::timeout(DEADLINE, download).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    cluster.cuts.heal();
    cluster.cuts.between(&address, &[cluster.address(sender)]);
    let whole = tokio::time::timeout(DEADLINE, response.into_body().collect()).await.expect("it goes on in time");
    assert!(whole.unwrap().to_bytes() == content);
}

/// No member comes or goes when a clock becomes right, and so no new view says that the certificate is good now.
#[tokio::test]
async fn a_node_whose_clock_was_wrong_has_joined_once_it_is_right() {
    let mut cluster = Cluster::with_config(0, config()).await;
    let decades = 40 * 365 * 24 * 3_600_000;
    cluster.add_with_clock("n1", cluster.upstream.memory(), -decades).await;
    let Member { node, clock, .. } = &cluster.members["n1"];
    let rejected = || async {
        let status = node.client().status().await;
        status.waiting_for.iter().any(|what| what.contains("they reject this node's"))
    };
    eventually("it says that others reject its certificate", rejected).await;
    assert!(!node.client().status().await.converged, "members would reject its certificate");
    clock.set_off_by(0);
    tokio::time::timeout(DEADLINE, node.joined()).await.expect("it joins in time").unwrap();
}
