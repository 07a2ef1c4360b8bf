//! A node with few open files: idle clients do not keep others from it, intents are written down, and no key is taken for
//! damaged.

use http::{Method, StatusCode};
use http_body_util::Empty;
use tokio::{net::TcpStream, task::JoinSet};

use super::harness::{Answer, Checkout, Cluster, QUICK, Serve, Upstream, get, send};

const OPEN_FILES: u32 = 64;
const IDLE: usize = 180;

async fn limited(provider: &[&str]) -> Cluster {
    Cluster::start_with(1, QUICK, provider, |node: &mut Serve| node.limit_open_files(OPEN_FILES)).await
}

/// Connections on which nothing is asked.
async fn idle(port: u16) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    idle
}

/// As any client does, asks again on a new connection if the node closed the one before it had read the request.
async fn get_again(port: u16, path: &str) -> Answer {
    for _ in 0..5 {
        if let Ok(answer) = get(port, path).await {
            return answer;
        }
    }
    get(port, path).await.unwrap()
}

async fn is_well(node: &Serve, pin: &str) {
    assert_eq!(get_again(node.http, "/-/healthz").await.status, StatusCode::OK);
    let request = http::Request::builder().method(Method::PUT).uri(format!("/-/pins/{pin}"));
    let request = request.header(http::header::AUTHORIZATION, node.authorization());
    let answer = send(node.http, request.body(Empty::new()).unwrap()).await.unwrap();
    assert!(answer.status.is_success(), "{answer:?}");
}

fn was_not_blamed(node: &Serve) {
    for blame in ["held but unreadable", "is made anew", "Too many open files"] {
        assert!(!node.log().contains(blame), "{blame}");
    }
}

#[tokio::test]
async fn a_hundred_and_eighty_idle_clients_keep_nobody_from_a_node_with_64_open_files() {
    let upstream = Upstream::start().await;
    upstream.put_file("a", "data", "text/plain");
    let mut cluster = limited(&["--files", &upstream.files_url()]).await;
    let port = cluster.nodes[0].http;
    assert_eq!(get(port, "/a").await.unwrap().text(), "data");
    let idle = idle(port).await;
    is_well(&cluster.nodes[0], "first").await;
    let mut asked = JoinSet::new();
    for _ in 0..IDLE {
        asked.spawn(async move { get_again(port, "/a").await.status });
    }
    let answers = asked.join_all().await;
    assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
    is_well(&cluster.nodes[0], "second").await;
    was_not_blamed(&cluster.nodes[0]);
    drop(idle);
    cluster.nodes[0].kill9();
    cluster.nodes[0].restart().await;
    let pins = cluster.nodes[0].ask(&["pins"]).await.unwrap();
    assert!(pins.contains("first") && pins.contains("second"), "{pins}");
}

#[tokio::test]
async fn many_clones_at_once_share_the_open_files_that_there_are() {
    let upstream = Upstream::start().await;
    upstream.create("repo", &[("file", b"data")]).await;
    let cluster = limited(&["--git", &upstream.git_template()]).await;
    let port = cluster.nodes[0].http;
    let _idle = idle(port).await;
    let mut clones = JoinSet::new();
    for _ in 0..20 {
        clones.spawn(async move { Checkout::clone(port, "/repo", &[]).await.map(|clone| clone.read("file")) });
    }
    for clone in clones.join_all().await {
        assert_eq!(clone.unwrap(), "data");
    }
    is_well(&cluster.nodes[0], "pinned").await;
    was_not_blamed(&cluster.nodes[0]);
    assert_eq!(cluster.nodes[0].ready_holders("repo").await, ["n1"]);
}
