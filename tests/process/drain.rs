//! A rolling restart of all nodes while requests go on.

use std::sync::{Arc, RwLock};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;

use super::harness::{Checkout, Cluster, Load, QUICK, Upstream, eventually, get, send};

/// The nodes that a load balancer would send requests to, and who still uses them. A clone is several requests, so whoever
/// began one with a node ends it with that node.
#[derive(Clone)]
struct Rotation(Arc<RwLock<Vec<Arc<u16>>>>);

impl Rotation {
    fn of(cluster: &Cluster) -> Self {
        Self(Arc::new(RwLock::new(cluster.nodes.iter().map(|node| node.http.into()).collect())))
    }

    /// A node to use for as long as what this returns lives.
    fn port(&self, number: usize) -> Arc<u16> {
        let ports = self.0.read().unwrap();
        ports[number % ports.len()].clone()
    }

    /// Waits until nobody uses it any more.
    async fn take_out(&self, port: u16) {
        let users = {
            let mut ports = self.0.write().unwrap();
            let at = ports.iter().position(|other| **other == port).unwrap();
            ports.remove(at)
        };
        eventually("who began with it has ended", || std::future::ready(Arc::strong_count(&users) == 1)).await;
    }

    fn put_in(&self, port: u16) {
        self.0.write().unwrap().push(port.into());
    }
}

/// Drains, stops and starts every node in turn, and waits until each is ready. It gets requests all the time, except from
/// when it has left until it is ready again.
async fn restart_all(cluster: &mut Cluster, rotation: &Rotation, load: &Load) {
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.port).collect();
    for number in 0..cluster.nodes.len() {
        let port = cluster.nodes[number].http;
        let said = cluster.nodes[number].ask(&["drain", "--timeout", "40s"]).await.unwrap();
        assert!(said.contains("has left"), "{said}");
        assert_eq!(get(port, "/-/readyz").await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
        load.until_more(20).await;
        rotation.take_out(port).await;
        assert_eq!(cluster.nodes[number].sigterm().await.code(), Some(0));
        // The first node was started without any: it would take itself for the first once more.
        cluster.nodes[number].add_seeds(&ports);
        cluster.nodes[number].start();
        eventually("it is ready", || async {
            get(port, "/-/readyz").await.is_ok_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
        rotation.put_in(port);
        load.until_more(20).await;
    }
}

#[tokio::test]
async fn parts_of_files_go_on_being_served_through_a_rolling_restart() {
    let upstream = Upstream::start().await;
    let content: Bytes = (0..2_u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let keys: Vec<String> = (0..10).map(|number| format!("file{number}")).collect();
    keys.iter().for_each(|key| upstream.put_file(key, content.clone(), "application/octet-stream"));
    let mut cluster = Cluster::start(3, QUICK, &["--files", &upstream.files_url()]).await;
    for key in &keys {
        assert_eq!(get(cluster.nodes[0].http, &format!("/{key}")).await.unwrap().status, StatusCode::OK);
        cluster.until_held(key, 2).await;
    }
    let rotation = Rotation::of(&cluster);
    let load = Load::start(6, {
        let rotation = rotation.clone();
        move |number| {
            let (key, port) = (format!("/file{}", number % 10), rotation.port(number / 10));
            let start = number.wrapping_mul(7_919) % (1 << 20);
            let (end, content) = (start + (1 << 19), content.clone());
            async move {
                let request = Request::get(&key).header("range", format!("bytes={start}-{}", end - 1));
                let answer = send(*port, request.body(Empty::new()).unwrap()).await?;
                match answer.status {
                    StatusCode::PARTIAL_CONTENT if answer.body == content.slice(start..end) => Ok(()),
                    status => Err(format!("{key} from {start} through {port}: {status} {}", answer.text().len())),
                }
            }
        }
    });
    restart_all(&mut cluster, &rotation, &load).await;
    load.finish().await;
    cluster.until_members_are(3).await;
    for key in &keys {
        cluster.until_held(key, 2).await;
        assert_eq!(upstream.reads(key), 1, "{key}: copies come from peers");
    }
}

#[tokio::test]
async fn clones_go_on_through_a_rolling_restart() {
    let upstream = Upstream::start().await;
    let keys: Vec<String> = (0..4).map(|number| format!("org/repo{number}")).collect();
    for key in &keys {
        upstream.create(key, &[("name", key.as_bytes()), ("data", &[1; 400_000])]).await;
    }
    let mut cluster = Cluster::start(3, QUICK, &["--git", &upstream.git_template()]).await;
    for key in &keys {
        Checkout::clone(cluster.nodes[0].http, &format!("/{key}"), &[]).await.unwrap();
        cluster.until_held(key, 2).await;
    }
    let rotation = Rotation::of(&cluster);
    let load = Load::start(2, {
        let (rotation, keys) = (rotation.clone(), keys.clone());
        move |number| {
            let (key, port) = (keys[number % keys.len()].clone(), rotation.port(number));
            async move {
                let clone = Checkout::clone(*port, &format!("/{key}"), &[]).await?;
                let name = clone.read("name");
                if name == key { Ok(()) } else { Err(format!("{key} has the content of {name}")) }
            }
        }
    });
    restart_all(&mut cluster, &rotation, &load).await;
    load.finish().await;
    cluster.until_members_are(3).await;
    for key in &keys {
        cluster.until_held(key, 2).await;
        assert_eq!(upstream.packs(key), 1, "{key}: copies come from peers");
    }
}

#[tokio::test]
async fn a_node_that_is_only_told_to_stop_hands_over_first() {
    let upstream = Upstream::start().await;
    upstream.put_file("file", "content", "text/plain");
    let config = format!("{QUICK}replicas = 1\n");
    let mut cluster = Cluster::start(2, &config, &["--files", &upstream.files_url()]).await;
    get(cluster.nodes[0].http, "/file").await.unwrap();
    let holder = cluster.until_held("file", 1).await.remove(0);
    upstream.set_down(true);
    assert_eq!(cluster.by_name_mut(&holder).sigterm().await.code(), Some(0));
    let other = cluster.running().next().unwrap();
    assert_eq!(other.ready_holders("file").await, std::slice::from_ref(&other.name));
    assert_eq!(get(other.http, "/file").await.unwrap().text(), "content");

    // There is nobody to take it now; saying so names it.
    let refused = other.ask(&["drain", &other.name, "--timeout", "2s"]).await.unwrap_err();
    assert!(refused.contains("last holder") && refused.contains("file"), "{refused}");
    assert_eq!(other.state_of(&other.name).await, "draining");
    assert_eq!(get(other.http, "/file").await.unwrap().text(), "content");
    let forced = other.ask(&["drain", &other.name, "--force", "--timeout", "2s"]).await.unwrap();
    assert!(forced.contains("has left; 1 keys are not to be had now: file"), "{forced}");
}
