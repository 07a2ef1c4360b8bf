//! One child process of `dev`: started, listened to, told to stop, and never left behind.
//!
//! A child runs in a process group of its own, so that Ctrl-C in a terminal reaches the parent alone, which then ends
//! its children in order. It watches its standard input, which the parent keeps open: however the parent dies, even by
//! SIGKILL, that pipe closes and the child stops by itself.

use std::{
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::output;

/// How long a child that was told to stop may take. A little more than it needs to finish its requests.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How long the rest of its standard error is read after its end; another process may hold it open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Variables that describe one node: a child gets its own, as flags or variables, or must not have them.
const OF_ONE_NODE: [&str; 18] = [
    "CONFIG",
    "NAME",
    "LISTEN",
    "HTTP",
    "DATA",
    "ADVERTISE",
    "ADVERTISE_HTTP",
    "SEED",
    "CLUSTER_KEY",
    "CLUSTER_KEY_FILE",
    "TLS_CERT",
    "TLS_KEY",
    "TLS_CA",
    "GIT",
    "FILES",
    "KEY_DEPTH",
    "ALLOW",
    "REPLICAS",
];

/// What a child says.
pub(super) enum Said {
    /// Where the other nodes reach it.
    Udp(SocketAddr),
    /// The line that says that it serves.
    Ready(String),
    /// It is no more.
    Ended(ExitStatus),
}

/// Two ways to ask for the end.
#[derive(Clone, Default)]
pub(super) struct Stop {
    /// In order.
    pub(super) gently: CancellationToken,
    /// At once.
    pub(super) now: CancellationToken,
}

/// Starts this program once more with `arguments` and `variables`, and tells what it says, with its index, until it has ended.
pub(super) fn start(
    index: usize,
    arguments: &[String],
    variables: &[(String, String)],
    prefix: String,
    said: mpsc::Sender<(usize, Said)>,
    stop: Stop,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    for name in OF_ONE_NODE {
        command.env_remove(format!("DATAD_{name}"));
    }
    command
        .args(arguments)
        .envs(variables.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.process_group(0).kill_on_drop(true).spawn().context("cannot start a process")?;
    let complaints = child.stderr.take().map(|stderr| tokio::spawn(pass_on(stderr, prefix)));
    Ok(tokio::spawn(async move {
        let status = tend(index, &mut child, &said, stop).await;
        // What it said last comes before the news of its end.
        if let Some(complaints) = complaints {
            let _ = timeout(LAST_WORDS, complaints).await;
        }
        let _ = said.send((index, Said::Ended(status))).await;
    }))
}

async fn tend(index: usize, child: &mut Child, said: &mpsc::Sender<(usize, Said)>, stop: Stop) -> ExitStatus {
    // Taken out, because waiting for a child closes it.
    let stdin = child.stdin.take();
    let mut lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
    let mut deadline = None;
    let status = loop {
        tokio::select! {
            line = next_line(&mut lines) => match line.as_deref().and_then(parse) {
                Some(what) => drop(said.send((index, what)).await),
                None if line.is_none() => lines = None,
                None => {}
            },
            status = child.wait() => break status,
            () = stop.gently.cancelled(), if deadline.is_none() => {
                terminate(child);
                deadline = Some(Instant::now() + STOP_PATIENCE);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break kill(child).await,
            () = stop.now.cancelled() => break kill(child).await,
        }
    };
    drop(stdin);
    status.unwrap_or_else(|_| ExitStatus::from_raw(1 << 8))
}

async fn next_line(lines: &mut Option<Lines<BufReader<ChildStdout>>>) -> Option<String> {
    match lines {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

fn parse(line: &str) -> Option<Said> {
    if let Some(address) = line.strip_prefix("udp ") {
        return address.parse().ok().map(Said::Udp);
    }
    line.starts_with("ready ").then(|| Said::Ready(line.to_owned()))
}

/// The id cannot be another process's by now: that is impossible before the child was waited for.
fn terminate(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
}

async fn kill(child: &mut Child) -> std::io::Result<ExitStatus> {
    child.start_kill()?;
    child.wait().await
}

async fn pass_on(stderr: impl AsyncRead + Unpin, prefix: String) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        output::complain(&format!("{prefix}{line}"));
    }
}

/// How a child ended, for people: `signal 9`, `exit status 1`.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_lines_that_are_agreed_upon_mean_something() {
        assert!(matches!(parse("udp 127.0.0.1:5"), Some(Said::Udp(address)) if address.port() == 5));
        assert!(matches!(parse("ready n http://x pid 1"), Some(Said::Ready(line)) if line == "ready n http://x pid 1"));
        assert!(parse("udp nowhere").is_none() && parse("already").is_none());
    }

    #[test]
    fn an_end_is_told_as_people_know_it() {
        assert_eq!(describe(ExitStatus::from_raw(9)), "signal 9");
        assert_eq!(describe(ExitStatus::from_raw(1 << 8)), "exit status 1");
    }
}
