//! A node that is the first process of a container: whose parent is gone becomes its child, and must not stay a zombie.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use super::harness::{Checkout, Cluster, QUICK, Upstream, eventually};

const WRAPPER: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// All processes below `root`: their state and name, by id.
fn below(root: u32) -> BTreeMap<u32, (char, String)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let (name, rest) = stat.rsplit_once(") ").unwrap();
        let mut rest = rest.split(' ');
        let state = rest.next().unwrap().chars().next().unwrap();
        let parent: u32 = rest.next().unwrap().parse().unwrap();
        all.insert(id, (parent, state, name.split_once('(').unwrap().1.to_owned()));
    }
    let is_below = |mut id: u32| loop {
        match all.get(&id) {
            Some((parent, ..)) if *parent == root => return true,
            Some((parent, ..)) => id = *parent,
            None => return false,
        }
    };
    all.iter().filter(|(id, _)| is_below(**id)).map(|(id, (_, state, name))| (*id, (*state, name.clone()))).collect()
}

/// The id of a process as it is seen by those in its namespace.
fn inner_id(id: u32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().next_back().map(str::to_owned)
}

#[tokio::test]
async fn clients_that_break_off_leave_no_zombies_where_the_node_is_the_first_process() {
    if !Command::new(WRAPPER[0]).args(&WRAPPER[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        return;
    }
    let upstream = Upstream::start().await;
    upstream.create("org/repo", &[("file", &vec![7; 50 << 20])]).await;
    let cluster = Cluster::start(0, QUICK, &["--git", &upstream.git_template()]).await;
    let mut node = cluster.node("n1");
    node.wrap(&WRAPPER);
    node.start();
    eventually("it is ready", async || node.output().lines().any(|line| line.starts_with("ready n1 "))).await;
    Checkout::clone(node.http, "/org/repo", &[]).await.unwrap();
    let root = node.pid();
    let serves = |(state, name): &(char, String)| *state != 'Z' && name.contains("http-backen");
    let want = format!("0032want {}\n00000009done\n", upstream.head("org/repo").await);
    for _ in 0..10 {
        let mut client = TcpStream::connect(("127.0.0.1", node.http)).unwrap();
        let head = format!(
            "POST /org/repo/git-upload-pack HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n\
             content-type: application/x-git-upload-pack-request\r\ncontent-length: {}\r\n\r\n{want}",
            node.http,
            want.len()
        );
        client.write_all(head.as_bytes()).unwrap();
        client.read_exact(&mut [0; 4096]).unwrap();
        assert!(below(root).values().any(serves), "git waits for the client to take in more");
        drop(client);
        eventually("git has ended", async || !below(root).values().any(serves)).await;
    }
    eventually("no zombies are left", async || below(root).values().all(|(state, _)| *state != 'Z')).await;

    // The process that it names is the node, which a user may signal as well as the first process.
    let ready = node.output().lines().find(|line| line.starts_with("ready n1 ")).unwrap().to_owned();
    let named = ready.rsplit_once("pid ").unwrap().1.to_owned();
    let (outer, _) = below(root).into_iter().find(|(id, _)| inner_id(*id).as_ref() == Some(&named)).unwrap();
    let arguments = fs::read(format!("/proc/{outer}/cmdline")).unwrap();
    assert!(arguments.split(|byte| *byte == 0).any(|argument| argument == b"serve"), "{ready}");
    assert_ne!(named, "1", "the first process only passes signals on");

    // What stops the container stops the node in order.
    let first = fs::read_to_string(format!("/proc/{root}/task/{root}/children")).unwrap();
    let first = rustix::process::Pid::from_raw(first.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(first, rustix::process::Signal::TERM).unwrap();
    assert_eq!(node.until_exit().await.code(), Some(0), "{}", node.log());
    assert!(node.log().contains("finishing requests"));
}
