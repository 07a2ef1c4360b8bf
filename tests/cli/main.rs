//! The real program: its processes, its exit status, and what it leaves behind.

#![allow(clippy::disallowed_methods, reason = "tests run on the real machine")]

mod access;
mod private;
mod settings;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_datad-gossip"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DATAD_")) {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A `dev` that is told to stop at the end, whatever happens in between.
struct Dev {
    process: Child,
    lines: mpsc::Receiver<String>,
    nodes: Vec<(String, u32)>,
    /// Where its temporary folder is made.
    temporary: tempfile::TempDir,
}

impl Dev {
    fn start(nodes: usize, files: &Path) -> Self {
        Self::start_with(nodes, files, &[])
    }

    fn start_with(nodes: usize, files: &Path, variables: &[(&str, &Path)]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let (count, files) = (nodes.to_string(), files.to_str().unwrap());
        let mut process = program(&["dev", "--nodes", &count, "--http", "127.0.0.1:0", "--files", files])
            .env("TMPDIR", temporary.path())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let (stdout, stderr) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut dev = Self { process, lines, nodes: Vec::new(), temporary };
        for _ in 0..nodes {
            let line = dev.lines.recv_timeout(PATIENCE).expect("a node becomes ready");
            let words: Vec<&str> = line.split(' ').collect();
            let ["ready", name, url, "pid", pid] = words[..] else { panic!("unexpected: {line}") };
            assert!(name.starts_with("node-"), "{line}");
            dev.nodes.push((url.to_owned(), pid.parse().unwrap()));
        }
        dev
    }

    fn url(&self) -> &str {
        &self.nodes[0].0
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("dev ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn lives(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // A process whose parent is gone and that nobody has waited for yet is as good as gone.
    !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

/// The whole answer to a GET.
fn get(url: &str, path: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer)
}

fn folder_with(name: &str, content: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), content).unwrap();
    folder
}

#[test]
fn keygen_prints_a_fresh_key() {
    let keys: Vec<String> = (0..2).map(|_| text(&run(&["keygen"]).stdout)).collect();
    for key in &keys {
        let digits = key.strip_suffix('\n').unwrap();
        assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    }
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, "replica = 2").unwrap();
    for arguments in [
        &["no-such-command"][..],
        &["dev", "--nodes", "0"],
        &["dev", "--git", "https://{key}.git", "--files", "."],
        &["dev", "--files", ".", "--log", "=nonsense="],
        &["serve", "--data", data, "--name", "n1", "--files", "."],
        &["serve", "--data", data, "--name", "n1", "--cluster-key", &"0".repeat(64)],
        &["serve", "--config", config.to_str().unwrap()],
        &["locate", "a/../b"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("error: "), "{arguments:?}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = run(&["status", "--at", &format!("http://{nobody}")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--at"), "{}", text(&output.stderr));
}

#[test]
fn a_local_cluster_serves_answers_questions_and_leaves_nothing_behind() {
    let folder = folder_with("hello.txt", "hello, world\n");
    let mut dev = Dev::start(1, folder.path());
    let url = dev.url().to_owned();
    let answer = get(&url, "/hello.txt");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello, world\n"), "{answer}");
    assert!(answer.to_lowercase().contains("x-datad-node: node-1\r\n"), "{answer}");
    assert!(get(&url, "/-/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(&url, "/nothing").starts_with("HTTP/1.1 404"));

    let asked = |arguments: &[&str]| -> Value {
        let output = run(&[arguments, &["--json", "--at", &url]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let status = asked(&["status"]);
    assert_eq!((status["node"].as_str(), status["keys"].as_u64()), (Some("node-1"), Some(1)));
    assert_eq!(asked(&["members"])[0]["state"], "serving");
    assert_eq!(asked(&["keys", "hel"]), serde_json::json!(["hello.txt"]));
    assert_eq!(asked(&["locate", "hello.txt"])["holders"][0]["state"], "ready");
    assert_eq!(asked(&["update", "hello.txt", "--wait"])["replicas"][0]["node"], "node-1");
    let shown = text(&run(&["locate", "hello.txt", "--at", &url]).stdout);
    assert!(shown.contains("node-1  ready"), "{shown}");
    let explained = asked(&["locate", "hello.txt", "--explain"]);
    assert_eq!(explained["nodes"][0]["data"]["bytes"], 13);
    let shown = text(&run(&["locate", "hello.txt", "--explain", "--at", &url]).stdout);
    for part in ["replicas  ", "node-1  yes    next on the ring", "ready  ", "13 B", "nothing"] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    let planned = asked(&["plan", "--with", "node-9=100"]);
    assert_eq!((planned["keys"].as_u64(), planned["nodes"][1]["node"].as_str()), (Some(1), Some("node-9")));
    let shown = text(&run(&["plan", "--with", "node-9=100", "--at", &url]).stdout);
    assert!(shown.contains("COPIED TO IT") && shown.contains("node-9"), "{shown}");
    assert_eq!(run(&["plan", "--at", &url]).status.code(), Some(2));
    assert_eq!(run(&["update", "nothing", "--wait", "--at", &url]).status.code(), Some(1));

    dev.signal(Signal::TERM);
    assert_eq!(dev.wait().code(), Some(0));
    assert!(!lives(dev.nodes[0].1), "the node outlived its parent");
    assert_eq!(fs::read_dir(dev.temporary.path()).unwrap().count(), 0, "its folder is still there");
}

#[test]
fn the_death_of_a_node_is_not_the_end_of_the_others() {
    let folder = folder_with("a", "content");
    let mut dev = Dev::start(2, folder.path());
    let (url, pid) = dev.nodes[1].clone();
    assert!(get(&url, "/a").ends_with("content"));
    let doomed = dev.nodes[0].1;
    kill_process(Pid::from_raw(i32::try_from(doomed).unwrap()).unwrap(), Signal::KILL).unwrap();
    eventually("the survivor notices", || get(&url, "/-/members").contains("\"dead\""));
    assert!(get(&url, "/a").ends_with("content"));
    dev.signal(Signal::INT);
    assert_eq!(dev.wait().code(), Some(0));
    assert!(!lives(pid));
}

#[test]
fn nodes_die_with_a_parent_that_is_killed() {
    let folder = folder_with("a", "");
    let mut dev = Dev::start(1, folder.path());
    dev.signal(Signal::KILL);
    dev.wait();
    eventually("the node ends", || !lives(dev.nodes[0].1));
}

#[test]
fn a_node_on_its_own_says_once_that_it_is_ready_and_ends_in_order() {
    let (source, folder) = (folder_with("a", "content"), tempfile::tempdir().unwrap());
    let data = folder.path().join("data");
    // Among the data, where it must not be served from.
    let config = source.path().join("node.toml");
    let key = source.path().join("cluster.key");
    assert!(run(&["keygen", "--out", key.to_str().unwrap()]).status.success());
    fs::write(
        &config,
        format!("name = 'n1'\nlisten = '127.0.0.1:0'\nhttp = '127.0.0.1:1'\nprofile = 'local'\nfiles = {source:?}\ncluster_key_file = {key:?}\ndata = {data:?}",
            source = source.path()),
    )
    .unwrap();
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    let mut node = program(&arguments)
        .env("DATAD_HTTP", "127.0.0.1:0")
        .env("DATAD_DISK_HIGH", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(node.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["ready", "n1", url, "pid", pid] = words[..] else { panic!("unexpected: {line}") };
    assert_eq!(pid, node.id().to_string());
    assert!(get(url, "/a").ends_with("content"));
    for private in ["/cluster.key", "/node.toml"] {
        assert!(get(url, private).starts_with("HTTP/1.1 404"), "{private}");
    }

    let second = program(&arguments).env("DATAD_HTTP", "127.0.0.1:0").output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("in use by another process"), "{}", text(&second.stderr));

    kill_process(Pid::from_child(&node), Signal::TERM).unwrap();
    assert_eq!(node.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn a_port_that_is_taken_is_named_and_everything_stops() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = folder_with("a", "");
    let output = run(&["dev", "--nodes", "1", "--http", &address, "--files", folder.path().to_str().unwrap()]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    let complaint = text(&output.stderr);
    assert!(complaint.contains(&address) && complaint.contains("--http"), "{complaint}");
}
