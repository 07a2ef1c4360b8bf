//! Starting, stopping, who is let in, and `dev`.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{
    harness::{Cluster, DEADLINE, QUICK, Upstream, command, eventually, get, port, write_key},
    memory::noise,
};

#[tokio::test]
async fn a_node_that_is_asked_to_stop_leaves_in_order_and_no_request_through_the_others_fails() {
    let upstream = Upstream::start().await;
    for number in 0..8 {
        upstream.put_file(&format!("file{number}"), format!("content {number}"), "text/plain");
    }
    let mut cluster = Cluster::start(3, QUICK, &["--files", &upstream.files_url()]).await;
    for number in 0..8 {
        get(cluster.nodes[0].http, &format!("/file{number}")).await.unwrap();
    }
    for number in 0..8 {
        cluster.until_held(&format!("file{number}"), 2).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let ports = [cluster.nodes[0].http, cluster.nodes[1].http];
    let load = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let answer = get(ports[number % 2], &format!("/file{}", number % 8)).await.unwrap();
                assert_eq!(answer.text(), format!("content {}", number % 8), "{}", answer.status);
            }
            number
        }
    });
    let ended = cluster.by_name_mut("n3").sigterm().await;
    assert_eq!(ended.code(), Some(0));
    for node in cluster.running() {
        eventually("it is known to be away", || async { node.state_of("n3").await == "leaving" }).await;
    }
    cluster.until_members_are(2).await;
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 10);

    cluster.by_name_mut("n3").restart().await;
    cluster.until_members_are(3).await;
    assert_eq!(get(cluster.by_name("n3").http, "/file1").await.unwrap().text(), "content 1");
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_and_returns_costs_no_copy() {
    let upstream = Upstream::start().await;
    upstream.put_file("large", noise(1, 150 << 20), "application/octet-stream");
    let config = format!("{}repair_delay = \"60s\"\n", without(QUICK, "repair_delay"));
    let mut cluster = Cluster::start(3, &config, &["--files", &upstream.files_url()]).await;
    // On a busy machine, fetching it may take longer than a request waits.
    let fetched = async || get(cluster.nodes[0].http, "/large").await.unwrap().status == StatusCode::OK;
    eventually("it is fetched", fetched).await;
    let holders = cluster.until_held("large", 2).await;
    let outsider = cluster.other_than(&holders).name.clone();
    cluster.until_converged().await;
    let before = cluster.by_name(&outsider).kept();
    assert_eq!(cluster.by_name_mut(&holders[0]).sigterm().await.code(), Some(0));
    let away = async || cluster.by_name(&outsider).state_of(&holders[0]).await == "leaving";
    eventually("it is known to be away", away).await;
    // Plans are made some rounds of gossip after a change; a copy would have begun long before the last of these looks.
    for _ in 0..150 {
        let status = cluster.by_name(&outsider).status().await.unwrap();
        assert_eq!((&status["fetching"], &status["repairs_running"]), (&0.into(), &0.into()), "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get(cluster.by_name(&outsider).http, "/large").await.unwrap().status, StatusCode::OK);
    cluster.by_name_mut(&holders[0]).restart().await;
    cluster.until_members_are(3).await;
    cluster.until_converged().await;
    let mut back = cluster.until_held("large", 2).await;
    back.sort();
    let mut holders = holders;
    holders.sort();
    assert_eq!(back, holders);
    assert_eq!(cluster.by_name(&outsider).kept(), before, "it has copied nothing");
    assert_eq!(upstream.reads("large"), 1);
}

/// `config` without the line that sets `name`.
fn without(config: &str, name: &str) -> String {
    config.lines().filter(|line| !line.starts_with(name)).map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn a_node_with_another_cluster_key_is_not_let_in_and_the_others_say_so() {
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("a"), "a").unwrap();
    let provider = ["--files", source.path().to_str().unwrap()];
    let cluster = Cluster::start(2, QUICK, &provider).await;
    let key_file = cluster.folder().join("other.key");
    write_key(&key_file);
    let mut stranger = cluster.node("stranger");
    stranger.use_key(&key_file);
    stranger.start();
    let refused = |log: &str| log.lines().any(|line| line.contains("WARN") && line.contains("certificate"));
    eventually("the refusal is logged", || async { cluster.nodes.iter().any(|node| refused(&node.log())) }).await;
    for node in &cluster.nodes {
        assert_eq!(node.state_of("stranger").await, "", "{} does not know it", node.name);
        assert_eq!(node.status().await.unwrap()["members"], 2);
    }
    assert_eq!(get(cluster.nodes[0].http, "/a").await.unwrap().text(), "a");
}

#[tokio::test]
async fn a_second_node_of_a_live_name_ends_with_a_clear_message_and_harms_nobody() {
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("a"), "a").unwrap();
    let cluster = Cluster::start(2, QUICK, &["--files", source.path().to_str().unwrap()]).await;
    let mut second = cluster.node("n2");
    second.use_data(&cluster.folder().join("another"));
    second.start();
    assert_eq!(second.until_exit().await.code(), Some(1));
    let log = second.log();
    assert!(log.lines().last().is_some_and(|line| line.contains("already called n2")), "{log}");
    assert!(!second.output().contains("ready"));
    cluster.until_members_are(2).await;
    assert_eq!(get(cluster.nodes[1].http, "/a").await.unwrap().text(), "a");
}

/// A `datad-gossip dev`, stopped in order when dropped, so that its children go with it.
struct Dev(Child);

impl Dev {
    fn stop(&self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::TERM);
    }

    async fn until_exit(&mut self) -> Option<i32> {
        eventually("dev ends", || std::future::ready(matches!(self.0.try_wait(), Ok(Some(_))))).await;
        self.0.try_wait().unwrap().unwrap().code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.stop();
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while matches!(self.0.try_wait(), Ok(None)) && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_alive(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Three free ports in a row, since `dev` counts up.
fn three_ports() -> u16 {
    loop {
        let [first, second, third] = [port(), port(), port()];
        if second == first + 1 && third == first + 2 {
            return first;
        }
    }
}

/// `ready NAME URL pid PID`
fn ready_lines(out: &Path) -> Vec<(String, u16, i32)> {
    let text = std::fs::read_to_string(out).unwrap_or_default();
    let parse = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let ["ready", name, url, "pid", pid] = words[..] else { return None };
        Some((name.to_owned(), url.strip_prefix("http://127.0.0.1:")?.parse().ok()?, pid.parse().ok()?))
    };
    let mut lines: Vec<_> = text.lines().filter_map(parse).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn dev_brings_three_nodes_that_serve_the_same_and_takes_all_of_them_along_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("hello.txt"), "hello").unwrap();
    let (out, log, first) = (dir.path().join("out"), dir.path().join("log"), three_ports());
    let child = Command::new(command())
        .args(["dev", "--http", &format!("127.0.0.1:{first}"), "--data"])
        .arg(dir.path().join("data"))
        .args(["--files", source.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut dev = Dev(child);
    let ready = tokio::time::timeout(DEADLINE, async {
        while ready_lines(&out).len() < 3 {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
    assert!(ready.await.is_ok(), "{}", std::fs::read_to_string(&log).unwrap());
    let nodes = ready_lines(&out);
    let expected: Vec<(String, u16)> = (0..3).map(|n| (format!("node-{}", n + 1), first + n)).collect();
    assert_eq!(nodes.iter().map(|(name, port, _)| (name.clone(), *port)).collect::<Vec<_>>(), expected);
    assert!(
        nodes.iter().all(|(_, _, pid)| is_alive(*pid) && *pid != dev.0.id() as i32),
        "one process for each: {nodes:?}"
    );
    for (name, port, _) in &nodes {
        let answer = get(*port, "/hello.txt").await.unwrap();
        assert_eq!(answer.text(), "hello", "through {name}: {}", answer.status);
        assert_eq!(get(*port, "/-/readyz").await.unwrap().status, 200);
    }
    dev.stop();
    assert_eq!(dev.until_exit().await, Some(0));
    for (name, port, pid) in &nodes {
        assert!(!is_alive(*pid), "{name} still runs");
        assert!(get(*port, "/hello.txt").await.is_err());
    }
}

#[tokio::test]
async fn a_signal_that_asks_for_nothing_that_a_node_does_is_logged_and_ends_nothing() {
    let upstream = Upstream::start().await;
    let mut cluster = Cluster::start(1, QUICK, &["--files", &upstream.files_url()]).await;
    let node = &mut cluster.nodes[0];
    for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        node.signal(signal);
        eventually(&format!("{name} is logged"), || async { node.log().contains(name) }).await;
    }
    assert!(node.status().await.is_some());
    assert_eq!(node.sigterm().await.code(), Some(0));
}

#[tokio::test]
async fn an_orderly_end_is_quiet_and_every_line_about_a_connection_names_its_peer() {
    let upstream = Upstream::start().await;
    upstream.put_file("f", "content", "text/plain");
    let mut cluster = Cluster::start_with(3, QUICK, &["--files", &upstream.files_url()], |node| {
        node.with_variable("DATAD_LOG", "info,datad_gossip::access=debug");
    })
    .await;
    get(cluster.nodes[0].http, "/f?").await.unwrap();
    cluster.until_held("f", 2).await;
    for node in &mut cluster.nodes {
        assert_eq!(node.sigterm().await.code(), Some(0));
    }
    for node in &cluster.nodes {
        let log = node.log();
        for line in log.lines() {
            assert!(!line.contains(" WARN ") && !line.contains(" ERROR ") && !line.contains("Actor{"), "{line}");
            let is_named = !line.contains("connected") || line.contains("peer=n");
            assert!(is_named, "{line}");
        }
        assert!(log.contains("connected"), "{log}");
    }
    let answered = cluster.nodes[0].log();
    let line = answered.lines().find(|line| line.contains("datad_gossip::access") && line.contains("path=\"/f\""));
    let line = line.expect("a line for the request");
    assert!(line.contains("method=GET") && line.contains("status=200") && line.contains("peer=127.0.0.1"), "{line}");
}
