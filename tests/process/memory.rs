//! Large repositories through small processes.

use super::harness::{Checkout, Cluster, QUICK, Upstream};

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
