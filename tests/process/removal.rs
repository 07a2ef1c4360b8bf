//! A machine that is gone for good is taken off the list.

use http::{Request, StatusCode};
use http_body_util::Empty;

use super::harness::{Cluster, QUICK, Upstream, eventually, get, send};

#[tokio::test]
async fn a_killed_node_is_removed_by_command_and_comes_back_as_any_other_when_it_is_started_again() {
    let upstream = Upstream::start().await;
    let config = format!("{QUICK}replicas = 1\n");
    let mut cluster = Cluster::start(3, &config, &["--files", &upstream.files_url()]).await;
    for number in 0..12 {
        upstream.put_file(&format!("file{number}"), format!("content {number}"), "text/plain");
        get(cluster.nodes[0].http, &format!("/file{number}")).await.unwrap();
    }
    let mut only_there = 0;
    for number in 0..12 {
        let holders = cluster.until_held(&format!("file{number}"), 1).await;
        only_there += usize::from(holders == ["n3"]);
    }
    let alive = cluster.nodes[0].ask(&["members", "--remove", "n3"]).await.unwrap_err();
    assert!(alive.contains("drain n3"), "{alive}");
    let stranger = cluster.nodes[0].ask(&["members", "--remove", "n9"]).await.unwrap_err();
    assert!(stranger.contains("no member is called n9"), "{stranger}");

    cluster.by_name_mut("n3").kill9();
    for node in cluster.running() {
        eventually("it is known to be dead", || async { node.state_of("n3").await == "dead" }).await;
    }
    #[cfg(feature = "etcd")]
    if matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"etcd") {
        // Nothing is remembered from node to node there.
        let refused = cluster.nodes[0].ask(&["members", "--remove", "n3"]).await.unwrap_err();
        assert!(refused.contains("registry/nodes/n3/"), "{refused}");
        return;
    }
    let request = Request::delete("/-/members/n3").body(Empty::<bytes::Bytes>::new()).unwrap();
    assert_eq!(send(cluster.nodes[0].http, request).await.unwrap().status, StatusCode::UNAUTHORIZED);
    let said = cluster.nodes[0].ask(&["members", "--remove", "n3"]).await.unwrap();
    assert!(said.contains("n3 is off the list"), "{said}");
    assert!(said.contains(&format!("{only_there} keys")) || only_there == 0 && said.contains("nothing"), "{said}");
    for node in cluster.running() {
        eventually("nobody lists it", || async { !node.states().await.contains_key("n3") }).await;
    }
    cluster.by_name_mut("n3").restart().await;
    cluster.until_members_are(3).await;
    for number in 0..12 {
        cluster.until_held(&format!("file{number}"), 1).await;
    }
}
