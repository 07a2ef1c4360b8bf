//! Large repositories through small processes, and memory that comes back.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::harness::{Checkout, Cluster, QUICK, Serve, Upstream, eventually, get};

const BLOB_BYTES: usize = 25 << 20;
const BLOBS: usize = 4;
/// What one process may take more than it took before, in MiB, whatever the size of the repository.
const GROWTH_MIB_MAX: u64 = 48;

/// Bytes that cannot be compressed (xorshift64, Marsaglia, 2003).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&words.next().expect("it never ends"));
    }
    bytes.truncate(length);
    bytes
}

#[tokio::test]
async fn a_repository_of_a_hundred_megabytes_passes_through_processes_that_stay_small() {
    let upstream = Upstream::start().await;
    let blobs: Vec<(String, Vec<u8>)> =
        (0..BLOBS).map(|number| (format!("blob{number}"), noise(number as u64 + 1, BLOB_BYTES))).collect();
    let files: Vec<(&str, &[u8])> = blobs.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    upstream.create("big/repo", &files).await;
    let cluster = Cluster::start(3, QUICK, &["--git", &upstream.git_template()]).await;
    let before: Vec<u64> = cluster.nodes.iter().map(|node| node.peak_mib()).collect();

    // Cold through one, then through the one that ends up without a copy.
    let cold = Checkout::clone(cluster.nodes[0].http, "/big/repo", &["--no-checkout"]).await.unwrap();
    cold.git(&["cat-file", "-e", "HEAD:blob3"]).await.unwrap();
    let holders = cluster.until_held("big/repo", 2).await;
    let outsider = cluster.other_than(&holders);
    let warm = Checkout::clone(outsider.http, "/big/repo", &["--no-checkout"]).await.unwrap();
    let size = warm.git(&["cat-file", "-s", "HEAD:blob3"]).await.unwrap();
    assert_eq!(size, BLOB_BYTES.to_string());

    let growth: Vec<(&str, u64)> = cluster
        .nodes
        .iter()
        .zip(&before)
        .map(|(node, before)| (node.name.as_str(), node.peak_mib() - before))
        .collect();
    println!("peak memory before {before:?} MiB, growth {growth:?} MiB");
    assert!(growth.iter().all(|(_, mib)| *mib < GROWTH_MIB_MAX), "{growth:?}");
    assert_eq!(upstream.packs("big/repo"), 1);
}

/// Connections of HTTP/2 clients that ask and then take nothing in, and what each asks for at once.
const STALLED_CONNECTIONS: usize = 8;
const STALLED_STREAMS: usize = 200;
/// How far above what it had before a node may stay when they have gone.
const KEPT_MIB_MAX: u64 = 50;
/// How long it may take to give the memory back.
const REST: Duration = Duration::from_secs(60);

#[tokio::test]
async fn memory_comes_back_when_clients_that_took_nothing_in_have_gone() {
    let upstream = Upstream::start().await;
    upstream.put_file("big", noise(7, 4 << 20), "application/octet-stream");
    let cluster = Cluster::start(3, QUICK, &["--files", &upstream.files_url()]).await;
    get(cluster.nodes[0].http, "/big").await.unwrap();
    let holders = cluster.until_held("big", 2).await;
    let node = cluster.other_than(&holders);
    // Once as usual, so that what is made with the first request is there.
    get(node.http, "/big").await.unwrap();
    let before: Vec<u64> = cluster.nodes.iter().map(Serve::memory_mib).collect();

    for round in 0..2 {
        let stalled = join_all((0..STALLED_CONNECTIONS).map(|_| stall(node.http))).await;
        let answered: usize = stalled.iter().map(Vec::len).sum();
        assert!(answered >= STALLED_STREAMS, "only {answered} are answered at once, so they stall nothing");
        eventually("what they stall takes memory", || async {
            node.memory_mib() > before.iter().max().unwrap() + KEPT_MIB_MAX
        })
        .await;
        assert!(cluster.nodes.iter().any(|node| open_files(node) > 0), "a holder reads its store for them");
        println!("round {round}: {answered} answers stand still, {} MiB", node.memory_mib());
    }
    let now = || -> Vec<u64> { cluster.nodes.iter().map(Serve::memory_mib).collect() };
    println!("before {before:?} MiB, when they had gone {:?} MiB", now());
    let rested = tokio::time::timeout(REST, async {
        while now().iter().zip(&before).any(|(now, before)| *now > before + KEPT_MIB_MAX) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let is_in_time = rested.await.is_ok();
    println!("after the rest {:?} MiB", now());
    assert!(is_in_time, "after {REST:?} of rest the nodes keep {:?} MiB; they had {before:?} MiB", now());
    for node in &cluster.nodes {
        assert_eq!(open_files(node), 0, "{} still answers somebody", node.name);
    }
}

/// Files of its store that a node has open.
fn open_files(node: &Serve) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let store = node.data.join("files");
    links.filter(|link| link.starts_with(&store)).count()
}

/// Asks for much over one connection without room for any of it. The answers that began; dropping them ends the requests.
async fn stall(port: u16) -> Vec<http::Response<hyper::body::Incoming>> {
    let stream = TokioIo::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    let connection = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake::<_, Empty<Bytes>>(stream);
    let (sender, connection) = connection.await.unwrap();
    tokio::spawn(connection);
    let asked = (0..STALLED_STREAMS).map(|_| {
        let mut sender = sender.clone();
        let request = http::Request::get(format!("http://localhost:{port}/big")).body(Empty::new()).unwrap();
        async move {
            sender.ready().await.ok()?;
            sender.send_request(request).await.ok().filter(|answer| answer.status() == http::StatusCode::OK)
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}
