//! The programs that a node has started end with it, also when it is killed: they would write on into mirrors that the
//! restarted node tidies.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use super::harness::{Cluster, QUICK, Upstream, eventually, get};

/// Ids and command lines of the processes that have `folder` in theirs, and of all in the process groups of these.
fn at_work(folder: &Path) -> Vec<(String, String)> {
    let folder = folder.to_str().unwrap();
    let processes: Vec<(String, String, String)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?.replace('\0', " ");
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // After the name, which is in parentheses: state, parent, group.
            let group = stat.rsplit(") ").next()?.split(' ').nth(2)?.to_owned();
            Some((entry.file_name().into_string().ok()?, group, line))
        })
        .collect();
    let is_node = |line: &str| line.contains(" serve ");
    let own = processes.iter().filter(|(_, _, line)| line.contains(folder) && !is_node(line));
    let groups: BTreeSet<&str> = own.map(|(_, group, _)| group.as_str()).collect();
    let found = processes.iter().filter(|(_, group, line)| groups.contains(group.as_str()) && !is_node(line));
    found.map(|(id, _, line)| (id.clone(), line.clone())).collect()
}

#[tokio::test]
async fn git_and_what_it_has_started_end_with_a_node_that_is_killed() {
    let upstream = Upstream::start().await;
    upstream.create("org/repo", &[("file", b"content")]).await;
    upstream.set_delay(Duration::from_secs(600));
    let mut cluster = Cluster::start(1, QUICK, &["--git", &upstream.git_template()]).await;
    let (port, data) = (cluster.nodes[0].http, cluster.nodes[0].data.clone());
    let asking = tokio::spawn(async move { get(port, "/org/repo/info/refs?service=git-upload-pack").await });
    eventually("git talks to the upstream", async || {
        upstream.requests() > 0 && at_work(&data).iter().any(|(_, line)| line.contains("remote-http"))
    })
    .await;
    let before = at_work(&data);
    assert!(before.len() >= 3, "{before:?}");
    for (id, line) in &before {
        let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap_or_default();
        let cpu = limits.lines().find(|line| line.starts_with("Max cpu time")).unwrap_or_default();
        let seconds = cpu.split_whitespace().find_map(|word| word.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| seconds >= 24 * 60 * 60), "{line}: {cpu}");
    }
    cluster.nodes[0].kill9();
    eventually("they are gone", async || before.iter().all(|(id, _)| !lives(id))).await;
    asking.abort();
    upstream.set_delay(Duration::ZERO);
    cluster.nodes[0].restart().await;
    assert_eq!(get(port, "/org/repo/info/refs?service=git-upload-pack").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_fetch_that_hangs_ends_with_the_last_request_that_waits_for_it() {
    let upstream = Upstream::start().await;
    upstream.create("org/repo", &[("file", b"content")]).await;
    upstream.set_delay(Duration::from_secs(600));
    let config = QUICK.replace("request_patience = \"25s\"", "request_patience = \"4s\"");
    let config = format!("{config}stalled_fetch_patience = \"2s\"\n");
    let cluster = Cluster::start(1, &config, &["--git", &upstream.git_template()]).await;
    let (port, data) = (cluster.nodes[0].http, cluster.nodes[0].data.clone());
    let asking = tokio::spawn(async move { get(port, "/org/repo/info/refs?service=git-upload-pack").await });
    eventually("git talks to the upstream", async || {
        upstream.requests() > 0 && at_work(&data).iter().any(|(_, line)| line.contains("remote-http"))
    })
    .await;
    asking.abort();
    eventually("git is ended", async || at_work(&data).is_empty()).await;
    let status = cluster.nodes[0].status().await.unwrap();
    assert_eq!(status["fetching"], 0, "{status}");
    upstream.set_delay(Duration::ZERO);
    assert_eq!(get(port, "/org/repo/info/refs?service=git-upload-pack").await.unwrap().status, 200);
}

fn lives(id: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
    // One whose parent is gone, and that nobody has waited for, is as good as gone.
    !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}
