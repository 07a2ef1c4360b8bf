//! Who may change something: with the admin token, over the Unix socket, or as the user of a `dev`; and nobody because
//! a request comes from this machine, which a proxy on it would also do.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
};

use rustix::process::Signal;

use super::{Dev, PATIENCE, eventually, folder_with, get, program, run, text};

/// A `serve` of this folder's file, killed at the end.
pub(super) struct Node {
    process: Child,
    pub(super) url: String,
    pub(super) data: PathBuf,
    _folder: tempfile::TempDir,
}

impl Node {
    pub(super) fn start(files: &Path, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Longer than a socket's address may be.
        let data = folder.path().join("data".repeat(30));
        let key = run(&["keygen"]).stdout;
        let mut process = program(&["serve", "--name", "n1", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args([Path::new("--data"), &data, Path::new("--files"), files])
            .args(["--profile", "local", "--disk-high", "1", "--disk-low", "0.99"])
            .args(more)
            .env("DATAD_CLUSTER_KEY", text(&key).trim())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(' ').nth(2).unwrap_or_else(|| panic!("unexpected: {line:?}")).to_owned();
        Self { process, url, data, _folder: folder }
    }

    fn path(&self, name: &str) -> String {
        self.data.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn said(output: &Output) -> String {
    format!("{:?} {} {}", output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The status of the answer to a request without a body.
fn status(stream: &mut (impl Read + Write), method: &str, path: &str, host: &str, more: &str) -> u16 {
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer).split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

#[test]
fn what_a_proxy_on_this_machine_passes_on_changes_nothing_without_the_token() {
    let files = folder_with("a", "content");
    let node = Node::start(files.path(), &[]);
    let address = node.url.strip_prefix("http://").unwrap();
    let ask = |method: &str, path: &str, host: &str, more: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        status(&mut stream, method, path, host, more)
    };
    // nginx with nothing but `proxy_pass` sends its upstream's address as host, and says nothing of its client.
    for (method, path) in [
        ("PUT", "/-/pins/a"),
        ("DELETE", "/-/pins/a"),
        ("DELETE", "/-/keys/a"),
        ("POST", "/-/update/a"),
        ("POST", "/-/members/n1/drain"),
    ] {
        assert_eq!(ask(method, path, address, ""), 401, "{method} {path}");
        assert_eq!(ask(method, path, address, "authorization: Bearer nonsense\r\n"), 401, "{method} {path}");
    }
    let token = fs::read_to_string(node.data.join("admin.token")).unwrap();
    let bearer = format!("authorization: Bearer {}\r\n", token.trim());
    assert_eq!(ask("PUT", "/-/pins/a", address, &bearer), 200);
    assert_eq!(ask("PUT", "/-/pins/a", "evil.example", &bearer), 421);
    for path in ["/a", "/-/status", "/-/pins"] {
        assert_eq!(ask("GET", path, "evil.example", ""), 421, "{path}");
        assert_eq!(ask("GET", path, "localhost", ""), 200, "{path}");
    }
    // The path itself is too long for a socket's address.
    let link = files.path().join("link");
    std::os::unix::fs::symlink(&node.data, &link).unwrap();
    let mut socket = UnixStream::connect(link.join("admin.sock")).unwrap();
    assert_eq!(status(&mut socket, "DELETE", "/-/pins/a", "anything", ""), 200);
    assert!(get(&node.url, "/-/pins").ends_with("[]"));
}

#[test]
fn commands_change_something_with_the_token_or_over_the_socket_and_say_what_is_missing() {
    let files = folder_with("a", "content");
    let node = Node::start(files.path(), &["--host-name", "node.example"]);
    for name in ["admin.token", "admin.sock"] {
        assert_eq!(fs::metadata(node.data.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let refused = run(&["pin", "a", "--at", &node.url]);
    assert_eq!(refused.status.code(), Some(1));
    let complaint = text(&refused.stderr);
    assert!(complaint.contains("--admin-token-file") && complaint.contains("--at unix:"), "{complaint}");

    let token = node.path("admin.token");
    let pinned = run(&["pin", "a", "--at", &node.url, "--admin-token-file", &token]);
    assert_eq!(pinned.status.code(), Some(0), "{}", said(&pinned));
    let wrong = node.data.join("wrong");
    fs::write(&wrong, "wrong").unwrap();
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = run(&["pin", "a", "--at", &node.url, "--admin-token-file", wrong.to_str().unwrap()]);
    assert!(text(&refused.stderr).contains("another admin token"), "{}", said(&refused));

    let socket = format!("unix:{}", node.path("admin.sock"));
    for command in [
        &["pins"][..],
        &["status"],
        &["unpin", "a"],
        &["update", "a", "--wait"],
        &["forget", "a"],
        &["drain", "--force"],
    ] {
        let done = run(&[command, &["--at", &socket]].concat());
        assert_eq!(done.status.code(), Some(0), "{command:?}: {}", said(&done));
    }
}

#[test]
fn the_token_that_the_operator_gives_is_the_one_that_counts() {
    let files = folder_with("a", "content");
    let given = files.path().join("given");
    fs::write(&given, "given\n").unwrap();
    fs::set_permissions(&given, fs::Permissions::from_mode(0o600)).unwrap();
    let given = given.to_str().unwrap();
    let node = Node::start(files.path(), &["--admin-token-file", given]);
    assert!(!node.data.join("admin.token").exists());
    let pinned = run(&["pin", "a", "--at", &node.url, "--admin-token-file", given]);
    assert_eq!(pinned.status.code(), Some(0), "{}", said(&pinned));
    assert!(get(&node.url, "/given").starts_with("HTTP/1.1 404"), "the token is not part of the data");
}

#[test]
fn commands_find_the_token_of_each_dev_that_runs_and_nothing_of_one_that_was_killed() {
    let (files, runtime) = (folder_with("a", "content"), tempfile::tempdir().unwrap());
    let command = |arguments: &[&str]| program(arguments).env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap();
    let start = || Dev::start_with(1, files.path(), &[("XDG_RUNTIME_DIR", runtime.path())]);
    let (mut first, mut second) = (start(), start());
    for dev in [&first, &second] {
        let pinned = command(&["pin", "a", "--at", dev.url()]);
        assert_eq!(pinned.status.code(), Some(0), "{}", said(&pinned));
        let by_name = dev.url().replace("127.0.0.1", "localhost");
        assert_eq!(command(&["unpin", "a", "--at", &by_name]).status.code(), Some(0));
    }
    let unknown = program(&["pin", "a", "--at", first.url()]).env("XDG_RUNTIME_DIR", "/").output().unwrap();
    assert_eq!(unknown.status.code(), Some(1), "another user's: {}", said(&unknown));

    second.signal(Signal::KILL);
    second.wait();
    let (_, pid) = second.nodes[0].clone();
    eventually("its node ends", || !super::lives(pid));
    assert_eq!(command(&["pin", "a", "--at", first.url()]).status.code(), Some(0));
    let state = runtime.path().join("datad-gossip");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "what it left is deleted");
    first.signal(Signal::TERM);
    first.wait();
    assert!(!state.exists());
}
