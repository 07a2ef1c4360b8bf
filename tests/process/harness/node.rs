//! One node: a child process that can be killed, frozen, stopped and started again with the same disk and ports.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{eventually, get, port};

/// How much of a log is shown when a test fails.
const LOG_LINES_SHOWN: usize = 40;

/// The program under test.
pub(crate) fn command() -> &'static str {
    env!("CARGO_BIN_EXE_datad-gossip")
}

/// A `datad-gossip serve`, running or not.
pub(crate) struct Serve {
    pub(crate) name: String,
    /// For QUIC (UDP).
    pub(crate) port: u16,
    /// For clients (TCP).
    pub(crate) http: u16,
    pub(crate) data: PathBuf,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    out: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    open_files: Option<u32>,
    /// A program, with its arguments, that starts the node.
    wrapper: Vec<String>,
}

impl Serve {
    pub(crate) fn new(
        name: &str,
        dir: &Path,
        key_file: &Path,
        config_file: &Path,
        coordination: &[String],
        provider: &[String],
    ) -> Self {
        let (udp, http, data) = (port(), port(), dir.join(name));
        let mut args = vec!["serve".to_owned()];
        let mut option = |name: &str, value: String| args.extend([format!("--{name}"), value]);
        option("name", name.to_owned());
        option("listen", format!("127.0.0.1:{udp}"));
        option("http", format!("127.0.0.1:{http}"));
        option("data", data.display().to_string());
        option("cluster-key-file", key_file.display().to_string());
        option("config", config_file.display().to_string());
        args.extend_from_slice(coordination);
        args.extend_from_slice(provider);
        let file = |end: &str| dir.join(format!("{name}-{udp}.{end}"));
        let variables = vec![("DATAD_LOG".to_owned(), "datad_gossip=debug,info".to_owned())];
        let (name, out, log) = (name.to_owned(), file("out"), file("log"));
        Self {
            name,
            port: udp,
            http,
            data,
            args,
            variables,
            out,
            log,
            child: None,
            open_files: None,
            wrapper: Vec::new(),
        }
    }

    /// Makes it belong to another cluster.
    pub(crate) fn use_key(&mut self, path: &Path) {
        self.replace("--cluster-key-file", path);
    }

    pub(crate) fn use_data(&mut self, path: &Path) {
        self.replace("--data", path);
        self.data = path.to_owned();
    }

    /// Gives it these nodes as further seeds.
    pub(crate) fn add_seeds(&mut self, ports: &[u16]) {
        self.args.extend(ports.iter().flat_map(|port| ["--seed".to_owned(), format!("127.0.0.1:{port}")]));
    }

    /// Leaves out an option and its value from the next start on.
    #[allow(dead_code, reason = "not all test programs need it")]
    pub(crate) fn without(&mut self, option: &str) {
        let at = self.args.iter().position(|arg| arg == option).expect("it is among them");
        self.args.drain(at..at + 2);
    }

    /// Leaves out all seeds from the next start on.
    #[allow(dead_code, reason = "not all test programs need it")]
    pub(crate) fn without_seeds(&mut self) {
        while self.args.iter().any(|arg| arg == "--seed") {
            self.without("--seed");
        }
    }

    /// Adds an option and its value from the next start on.
    pub(crate) fn with(&mut self, option: &str, value: &str) {
        self.args.extend([option.to_owned(), value.to_owned()]);
    }

    /// Lets it have so many open files from the next start on, and no more.
    pub(crate) fn limit_open_files(&mut self, limit: u32) {
        self.open_files = Some(limit);
    }

    /// Has another program start it from the next start on, and be what is killed.
    #[allow(dead_code, reason = "not all test programs need it")]
    pub(crate) fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|part| (*part).to_owned()).collect();
    }

    /// Sets a variable from the next start on.
    pub(crate) fn with_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    fn replace(&mut self, option: &str, path: &Path) {
        let at = self.args.iter().position(|arg| arg == option).expect("it is among them");
        self.args[at + 1] = path.display().to_string();
    }

    /// Starts it; what it prints and logs is added to what it printed and logged before.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        // Readiness is read from the output, so each run begins with an empty one.
        let out = File::create(&self.out).unwrap();
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = match self.open_files {
            Some(limit) => {
                let mut limited = Command::new("sh");
                limited.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]).arg(command());
                limited
            }
            None => match self.wrapper.split_first() {
                Some((wrapper, arguments)) => {
                    let mut wrapped = Command::new(wrapper);
                    wrapped.args(arguments).arg(command());
                    wrapped
                }
                None => Command::new(command()),
            },
        };
        command.args(&self.args).envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(out).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits for the line that says it serves.
    pub(crate) async fn until_ready(&self) {
        let expected = format!("ready {} http://127.0.0.1:{} pid {}", self.name, self.http, self.pid());
        eventually(&format!("{expected:?} is printed"), || async {
            self.output().lines().any(|line| line == expected)
        })
        .await;
    }

    pub(crate) async fn restart(&mut self) {
        self.start();
        self.until_ready().await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL: no goodbye.
    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and the status it ends with.
    pub(crate) async fn sigterm(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.until_exit().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn until_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let mut ended = None;
        let waited = tokio::time::timeout(super::DEADLINE, async {
            while ended.is_none() {
                tokio::time::sleep(super::STEP).await;
                ended = child.try_wait().unwrap();
            }
        });
        assert!(waited.await.is_ok(), "{} does not end", self.name);
        self.child = None;
        ended.expect("waited for")
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The document `/-/status`, if it answers.
    pub(crate) async fn status(&self) -> Option<Value> {
        self.document("/-/status").await
    }

    /// The document `/-/locate/KEY`.
    pub(crate) async fn locate(&self, key: &str) -> Value {
        self.document(&format!("/-/locate/{key}")).await.expect("locating is answered from memory")
    }

    /// The live members that hold `key` ready, by name.
    pub(crate) async fn ready_holders(&self, key: &str) -> Vec<String> {
        let located = self.locate(key).await;
        let holders = located["holders"].as_array().unwrap().iter();
        holders.filter(|holder| holder["state"] == "ready").map(|h| h["node"].as_str().unwrap().to_owned()).collect()
    }

    /// What it says of each member: `serving`, `left` and so on.
    pub(crate) async fn states(&self) -> BTreeMap<String, String> {
        let members = self.document("/-/members").await.expect("members are known locally");
        let text = |value: &Value| value.as_str().expect("a name or state is text").to_owned();
        members.as_array().unwrap().iter().map(|member| (text(&member["name"]), text(&member["state"]))).collect()
    }

    /// What it says of the member `name`; empty if it does not know it.
    pub(crate) async fn state_of(&self, name: &str) -> String {
        self.states().await.remove(name).unwrap_or_default()
    }

    async fn document(&self, path: &str) -> Option<Value> {
        let answer = get(self.http, path).await.ok().filter(|answer| answer.status.is_success())?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// What a request carries that changes something.
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", std::fs::read_to_string(self.data.join("admin.token")).unwrap().trim())
    }

    /// Runs another command of the program against this node; what it printed, or what it complained about.
    pub(crate) async fn ask(&self, args: &[&str]) -> Result<String, String> {
        let at = format!("http://127.0.0.1:{}", self.http);
        let mut asked = tokio::process::Command::new(command());
        asked
            .args(args)
            .args(["--at", &at])
            .env("DATAD_ADMIN_TOKEN_FILE", self.data.join("admin.token"))
            .kill_on_drop(true);
        let output = tokio::time::timeout(super::DEADLINE, asked.output()).await.expect("an answer in time").unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Every file it keeps for the keys it holds, with what would change if it were written again.
    pub(crate) fn kept(&self) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
        use std::os::unix::fs::MetadataExt;
        let (mut found, mut folders) = (Vec::new(), vec![self.data.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, about) = (entry.path(), entry.metadata().unwrap());
                if about.is_dir() {
                    folders.push(path);
                } else if path.components().any(|part| part.as_os_str() == "held") {
                    found.push((path, about.ino(), about.modified().unwrap()));
                }
            }
        }
        found.sort();
        found
    }

    /// The most memory it has had so far, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        self.mib("VmHWM:")
    }

    /// The memory that it has now, in MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.mib("VmRSS:")
    }

    fn mib(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            eprintln!("--- {} (quic {}, http {}) ---\n{shown}\n", self.name, self.port, self.http);
        }
    }
}
