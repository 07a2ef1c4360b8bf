//! Nodes that are killed, frozen and brought back while requests go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::Empty;
use rustix::process::Signal;

use super::harness::{Checkout, Cluster, Load, QUICK, Upstream, eventually, get, send};

/// A node that holds many of `keys`: the one whose death is felt most.
async fn busiest(cluster: &Cluster, keys: &[String]) -> String {
    let mut held: Vec<(usize, String)> = cluster.nodes.iter().map(|node| (0, node.name.clone())).collect();
    for key in keys {
        for holder in cluster.nodes[0].ready_holders(key).await {
            held.iter_mut().find(|(_, name)| *name == holder).unwrap().0 += 1;
        }
    }
    held.into_iter().max().unwrap().1
}

#[tokio::test]
async fn when_two_of_three_are_lost_at_once_the_third_copies_nothing_and_says_so() {
    let upstream = Upstream::start().await;
    let keys: Vec<String> = (0..6).map(|number| format!("org/repo{number}")).collect();
    for key in &keys {
        upstream.create(key, &[("name", key.as_bytes())]).await;
    }
    let mut cluster = Cluster::start(3, QUICK, &["--git", &upstream.git_template()]).await;
    for key in &keys {
        Checkout::clone(cluster.nodes[0].http, &format!("/{key}"), &[]).await.unwrap();
        cluster.until_held(key, 2).await;
    }
    cluster.until_converged().await;
    let kept: Vec<_> = cluster.nodes.iter().map(|node| node.kept()).collect();
    let packs: Vec<usize> = keys.iter().map(|key| upstream.packs(key)).collect();

    cluster.nodes[1].kill9();
    cluster.nodes[2].kill9();
    eventually("the survivor says that it holds back", async || {
        let Some(status) = cluster.nodes[0].status().await else { return false };
        let why = status["repairs_paused"].as_str().unwrap_or_default();
        status["members"] == 1 && why.starts_with("2 of 3 members")
    })
    .await;
    // Twice the repair delay of these settings: time in which it would have fetched what it had not.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(cluster.nodes[0].status().await.unwrap()["repairs_paused"].is_string());
    for node in [1, 2] {
        cluster.nodes[node].restart().await;
    }
    cluster.until_members_are(3).await;
    cluster.until_converged().await;
    assert!(cluster.nodes[0].status().await.unwrap()["repairs_paused"].is_null());
    assert_eq!(cluster.nodes.iter().map(|node| node.kept()).collect::<Vec<_>>(), kept, "nothing was copied or dropped");
    assert_eq!(keys.iter().map(|key| upstream.packs(key)).collect::<Vec<_>>(), packs, "nothing was fetched");
}

#[tokio::test]
async fn clones_go_on_while_a_holder_is_killed_and_its_keys_are_soon_where_they_should_be_again() {
    let upstream = Upstream::start().await;
    let keys: Vec<String> = (0..6).map(|number| format!("org/repo{number}")).collect();
    for key in &keys {
        upstream.create(key, &[("name", key.as_bytes()), ("data", &[1; 200_000])]).await;
    }
    let mut cluster = Cluster::start(3, QUICK, &["--git", &upstream.git_template()]).await;
    for key in &keys {
        Checkout::clone(cluster.nodes[0].http, &format!("/{key}"), &[]).await.unwrap();
    }
    for key in &keys {
        cluster.until_held(key, 2).await;
    }
    cluster.until_converged().await;
    let victim = busiest(&cluster, &keys).await;
    let before = cluster.by_name(&victim).kept();
    assert!(!before.is_empty());

    let ports: Vec<u16> = cluster.nodes.iter().filter(|node| node.name != victim).map(|node| node.http).collect();
    let cloned = keys.clone();
    let load = Load::start(3, move |number| {
        let (key, port) = (cloned[number % cloned.len()].clone(), ports[number / cloned.len() % ports.len()]);
        async move {
            let clone = Checkout::clone(port, &format!("/{key}"), &[]).await?;
            let name = clone.read("name");
            if name == key { Ok(()) } else { Err(format!("{key} has the content of {name}")) }
        }
    });
    load.until_more(6).await;
    cluster.by_name_mut(&victim).kill9();
    let killed = Instant::now();
    cluster.until_members_are(2).await;
    for key in &keys {
        cluster.until_held(key, 2).await;
    }
    let healed = killed.elapsed();
    load.finish().await;
    assert!(healed < Duration::from_secs(20), "{healed:?} with a repair delay of three seconds");

    let packs: Vec<usize> = keys.iter().map(|key| upstream.packs(key)).collect();
    cluster.by_name_mut(&victim).restart().await;
    cluster.until_members_are(3).await;
    cluster.until_converged().await;
    for key in &keys {
        let holders = cluster.until_held(key, 2).await;
        let located = cluster.by_name(&victim).locate(key).await;
        assert!(located["owners"].as_array().unwrap().iter().all(|owner| holders.iter().any(|holder| owner == holder)));
        let clone = Checkout::clone(cluster.by_name(&victim).http, &format!("/{key}"), &[]).await.unwrap();
        assert_eq!(clone.read("name"), *key);
    }
    assert_eq!(cluster.by_name(&victim).kept(), before, "nothing that it has is copied again");
    assert_eq!(keys.iter().map(|key| upstream.packs(key)).collect::<Vec<_>>(), packs);
    assert_eq!(packs, vec![1; keys.len()], "replicas come from peers");
}

#[tokio::test]
async fn clones_that_wait_for_a_node_that_dies_while_it_fetches_are_served_all_the_same() {
    let upstream = Upstream::start().await;
    upstream.create("some/repo", &[("file", b"content")]).await;
    upstream.set_delay(Duration::from_secs(1));
    let mut cluster = Cluster::start(3, QUICK, &["--git", &upstream.git_template()]).await;
    let owners = cluster.nodes[0].locate("some/repo").await["owners"].clone();
    let leader = owners[0].as_str().unwrap().to_owned();
    let ports: Vec<u16> = cluster.nodes.iter().filter(|node| node.name != leader).map(|node| node.http).collect();
    let waiting: Vec<_> =
        (0..6).map(|number| tokio::spawn(Checkout::clone(ports[number % 2], "/some/repo", &[]))).collect();
    eventually("the fetch has begun", || async { upstream.advertised("some/repo") > 0 }).await;
    cluster.by_name_mut(&leader).kill9();
    for clone in join_all(waiting).await {
        assert_eq!(clone.unwrap().unwrap().read("file"), "content");
    }
    // What it left half done is no obstacle when it is back.
    cluster.by_name_mut(&leader).restart().await;
    cluster.until_members_are(3).await;
    let back = cluster.by_name(&leader);
    eventually("it holds what it owns", || async { back.ready_holders("some/repo").await.contains(&leader) }).await;
    cluster.until_held("some/repo", 2).await;
    assert!(upstream.packs("some/repo") <= 2, "by the one that died, and by its successor");
}

#[tokio::test]
async fn parts_of_files_go_on_being_served_while_a_holder_is_killed_in_the_middle_of_them() {
    let upstream = Upstream::start().await;
    let content: Bytes = (0..4_u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let keys: Vec<String> = (0..8).map(|number| format!("file{number}")).collect();
    for key in &keys {
        upstream.put_file(key, content.clone(), "application/octet-stream");
    }
    let mut cluster = Cluster::start(3, QUICK, &["--files", &upstream.files_url()]).await;
    for key in &keys {
        assert_eq!(get(cluster.nodes[1].http, &format!("/{key}")).await.unwrap().status, StatusCode::OK);
    }
    for key in &keys {
        cluster.until_held(key, 2).await;
    }
    let victim = busiest(&cluster, &keys).await;
    let ports: Vec<u16> = cluster.nodes.iter().filter(|node| node.name != victim).map(|node| node.http).collect();
    let load = Load::start(8, move |number| {
        let (key, port) = (format!("/file{}", number % 8), ports[number / 8 % ports.len()]);
        let start = number.wrapping_mul(7_919) % (3 << 20);
        let (end, content) = (start + (1 << 20), content.clone());
        async move {
            let request = Request::get(&key).header("range", format!("bytes={start}-{}", end - 1));
            let answer = send(port, request.body(Empty::new()).unwrap()).await?;
            match answer.status {
                StatusCode::PARTIAL_CONTENT if answer.body == content.slice(start..end) => Ok(()),
                StatusCode::PARTIAL_CONTENT => Err(format!("{key} from {start} has wrong content")),
                status => Err(format!("{key}: {status} {}", answer.text())),
            }
        }
    });
    load.until_more(30).await;
    cluster.by_name_mut(&victim).kill9();
    cluster.until_members_are(2).await;
    for key in &keys {
        cluster.until_held(key, 2).await;
    }
    load.until_more(30).await;
    load.finish().await;
    for key in &keys {
        assert_eq!(upstream.reads(key), 1, "{key}");
    }
}

#[tokio::test]
async fn a_frozen_node_does_not_fail_requests_through_the_others() {
    let upstream = Upstream::start().await;
    let keys: Vec<String> = (0..12).map(|number| format!("file{number}")).collect();
    for key in &keys {
        upstream.put_file(key, key.clone(), "text/plain");
    }
    let cluster = Cluster::start(3, QUICK, &["--files", &upstream.files_url()]).await;
    for key in &keys {
        get(cluster.nodes[2].http, &format!("/{key}")).await.unwrap();
    }
    for key in &keys {
        cluster.until_held(key, 2).await;
    }
    let victim = busiest(&cluster, &keys).await;
    let ports: Vec<u16> = cluster.nodes.iter().filter(|node| node.name != victim).map(|node| node.http).collect();
    let slowest = Arc::new(AtomicUsize::new(0));
    let load = Load::start(4, {
        let slowest = slowest.clone();
        move |number| {
            let (key, port, slowest) =
                (format!("file{}", number % 12), ports[number / 12 % ports.len()], slowest.clone());
            async move {
                let started = Instant::now();
                let answer = get(port, &format!("/{key}")).await?;
                slowest.fetch_max(started.elapsed().as_millis() as usize, Ordering::Relaxed);
                if answer.text() == key { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.text())) }
            }
        }
    });
    load.until_more(50).await;
    cluster.by_name(&victim).signal(Signal::STOP);
    let witness = cluster.other_than(std::slice::from_ref(&victim));
    eventually("the others notice", || async { witness.state_of(&victim).await == "dead" }).await;
    load.until_more(200).await;
    cluster.by_name(&victim).signal(Signal::CONT);
    eventually("it is taken back", || async { witness.state_of(&victim).await == "serving" }).await;
    load.until_more(200).await;
    load.finish().await;
    let slowest = slowest.load(Ordering::Relaxed);
    assert!(slowest < 5_000, "one request took {slowest} ms");
    cluster.until_members_are(3).await;
    cluster.until_converged().await;
}
