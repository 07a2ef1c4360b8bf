//! What is on a node's disk is for its user alone: the data may be of private repositories.

use std::{os::unix::fs::PermissionsExt, path::Path};

use super::harness::{Checkout, Cluster, QUICK, Upstream};

/// Everything below `folder` that another user could open, were its folders open to others.
fn open_to_others(folder: &Path) -> (usize, Vec<String>) {
    let (mut seen, mut open, mut folders) = (0, Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let (path, about) = (entry.path(), entry.metadata().unwrap());
            seen += 1;
            if about.permissions().mode() & 0o077 != 0 {
                open.push(format!("{} {:o}", path.display(), about.permissions().mode()));
            }
            if about.is_dir() {
                folders.push(path);
            }
        }
    }
    (seen, open)
}

#[tokio::test]
async fn nothing_that_a_node_or_its_git_writes_is_open_to_other_users() {
    let upstream = Upstream::start().await;
    upstream.create("org/repo", &[("file", b"content")]).await;
    let cluster = Cluster::start(2, QUICK, &["--git", &upstream.git_template()]).await;
    Checkout::clone(cluster.nodes[0].http, "/org/repo", &[]).await.unwrap();
    cluster.until_held("org/repo", 2).await;
    upstream.commit("org/repo", &[("file", b"changed")]).await;
    cluster.nodes[0].ask(&["update", "org/repo", "--wait"]).await.unwrap();
    for node in &cluster.nodes {
        let (seen, open) = open_to_others(&node.data);
        assert!(seen > 20, "{} has only {seen} files and folders", node.name);
        assert!(open.is_empty(), "{open:#?}");
        assert_eq!(std::fs::metadata(&node.data).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
