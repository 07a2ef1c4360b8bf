//! `dev`: a cluster on this machine, one process per node, to try things out.
//!
//! Nodes start one after the other, as each needs the UDP address of those before it as a seed; they join side by side.
//! If one cannot start, nothing is left running. Later deaths are only reported: what the cluster makes of them is what
//! one wants to see.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::Args;
use datad_gossip::ClusterKey;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    admin,
    child::{self, Said, Stop},
    failure::Failure,
    hints,
    log::{LogFormat, LogOptions},
    output,
    provider::ProviderOptions,
    running::{Entry, Running},
    serve,
    signals::Signals,
};

/// Lines of all children that wait to be read.
const SAID_MAX: usize = 64;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevOptions {
    /// How many nodes, 1 to 64
    #[arg(long, env = "DATAD_NODES", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// TCP address of the first node's HTTP side; the others count up from its port. Port 0: any free ports
    #[arg(long, env = "DATAD_HTTP", value_name = "TCP", default_value = "127.0.0.1:8400")]
    http: SocketAddr,
    /// Folder for what the nodes keep. A temporary one that is removed at the end, if not given
    #[arg(long, env = "DATAD_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// How many nodes keep each key, 1 to 8
    #[arg(long, env = "DATAD_REPLICAS", value_name = "R", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    replicas: u8,
    #[command(flatten)]
    provider: ProviderOptions,
}

const EXAMPLES: &str = "\
Without --git and --files the current folder is served.

Examples:
  datad-gossip dev
  datad-gossip dev --files ~/pictures --key-depth 1
  datad-gossip dev --nodes 5 --replicas 3 --git 'https://{key}.git'

Prints `ready NAME http://ADDR pid PID` for each node once it serves. Kill one and see that nobody notices:
  kill -9 PID; datad-gossip members --at http://127.0.0.1:8401
Ctrl-C stops all of them.";

/// Runs the cluster until it is told to stop, or all nodes have ended.
pub(crate) async fn run(mut options: DevOptions, log: &LogOptions) -> Result<(), Failure> {
    if options.provider.git.is_none() && options.provider.files.is_none() {
        options.provider.files = Some(".".to_owned());
    }
    let origin = options.provider.origin()?;
    let last = options.http.port().checked_add(options.nodes - 1);
    if options.http.port() != 0 && last.is_none() {
        return Err(Failure::Usage(format!("{} nodes need as many ports from {} on", options.nodes, options.http)));
    }
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let (folder, _temporary) = folder(options.data.as_deref())?;
    // Before anything is written: it may belong to another one that runs.
    let _lock = serve::lock(&folder)?;
    let key_file = write_key(&folder)?;
    let token_file = admin::token_file(&folder, None)?;
    let token_file = token_file.canonicalize().context("the admin token is gone")?;
    let (said, heard) = mpsc::channel(SAID_MAX);
    let mut cluster = Cluster {
        options: &options,
        log,
        folder,
        key_file,
        entry: Entry::new(),
        running: Running { nodes: Vec::new(), token_file },
        stop: Stop::default(),
        said,
        heard,
        seeds: Vec::new(),
        children: Vec::new(),
        ready: Vec::new(),
        living: 0,
    };
    let ended = tokio::select! {
        ended = cluster.live(|first| hints::show(&origin, first)) => ended,
        () = signals.next() => Ok(()),
    };
    tokio::select! {
        () = cluster.end() => {}
        () = signals.next() => {
            cluster.stop.now.cancel();
            cluster.end().await;
        }
    }
    ended.map_err(Failure::Failed)
}

/// The folder, and what removes it if it is only for now.
fn folder(wanted: Option<&Path>) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let Some(wanted) = wanted else {
        let made =
            tempfile::Builder::new().prefix("datad-gossip-").tempdir().context("cannot make a temporary folder")?;
        return Ok((made.path().to_owned(), Some(made)));
    };
    fs::create_dir_all(wanted).with_context(|| format!("cannot make the folder {}", wanted.display()))?;
    Ok((wanted.to_owned(), None))
}

/// Writes a fresh cluster key that only this user can read.
fn write_key(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("cluster.key");
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        writeln!(file, "{}", ClusterKey::generate().to_text())
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

struct Cluster<'a> {
    options: &'a DevOptions,
    log: &'a LogOptions,
    folder: PathBuf,
    key_file: PathBuf,
    /// Where commands of this user find the token.
    entry: Entry,
    running: Running,
    stop: Stop,
    said: mpsc::Sender<(usize, Said)>,
    heard: mpsc::Receiver<(usize, Said)>,
    seeds: Vec<SocketAddr>,
    children: Vec<JoinHandle<()>>,
    ready: Vec<usize>,
    living: usize,
}

impl Cluster<'_> {
    /// Starts all nodes, and returns when none is left or one could not start. Calls `welcome` with the first node's URL
    /// once all are ready.
    async fn live(&mut self, welcome: impl Fn(&str)) -> anyhow::Result<()> {
        let wanted = usize::from(self.options.nodes);
        let mut first = String::new();
        self.start_next()?;
        while let Some((index, said)) = self.heard.recv().await {
            match said {
                Said::Udp(address) => {
                    self.seeds.push(address);
                    if self.children.len() < wanted {
                        self.start_next()?;
                    }
                }
                Said::Ready(line) => {
                    self.write_down(&line);
                    output::line(&line)?;
                    if index == 0 {
                        line.split(' ').nth(2).unwrap_or_default().clone_into(&mut first);
                    }
                    self.ready.push(index);
                    if self.ready.len() == wanted {
                        welcome(&first);
                    }
                }
                Said::Ended(status) => {
                    self.living -= 1;
                    let (name, how) = (name(index), child::describe(status));
                    if !self.ready.contains(&index) {
                        return Err(anyhow!("{name} did not start ({how}); see above. All nodes are stopped"));
                    }
                    output::complain(&format!("{name} ended ({how})"));
                    if self.living == 0 {
                        return Err(anyhow!("all nodes have ended"));
                    }
                }
            }
        }
        unreachable!("this side keeps a sender")
    }

    /// Lets commands find the node that has said `line`. They can still be given its token if that fails.
    fn write_down(&mut self, line: &str) {
        let address =
            line.split(' ').nth(2).and_then(|url| url.strip_prefix("http://")).and_then(|text| text.parse().ok());
        self.running.nodes.extend::<Option<SocketAddr>>(address);
        if let Err(error) = self.entry.write(&self.running) {
            let token = self.running.token_file.display();
            output::complain(&format!(
                "commands need --admin-token-file {token}, as it cannot be written down: {error}"
            ));
        }
    }

    fn start_next(&mut self) -> anyhow::Result<()> {
        let index = self.children.len();
        let prefix = match self.log.log_format {
            LogFormat::Text => format!("{} | ", name(index)),
            LogFormat::Json => String::new(),
        };
        let variables = self.options.provider.to_variables();
        let started =
            child::start(index, &self.arguments(index)?, &variables, prefix, self.said.clone(), self.stop.clone())?;
        self.children.push(started);
        self.living += 1;
        Ok(())
    }

    fn arguments(&self, index: usize) -> anyhow::Result<Vec<String>> {
        let path = |path: &Path| path.to_str().map(str::to_owned).context("the data folder's name is not UTF-8");
        let mut http = self.options.http;
        if http.port() != 0 {
            http.set_port(http.port() + u16::try_from(index).expect("64 nodes at most"));
        }
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--name={}", name(index)),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--http={http}"),
            format!("--data={}", path(&self.folder.join(name(index)))?),
            format!("--except={}", path(&self.folder)?),
            format!("--cluster-key-file={}", path(&self.key_file)?),
            format!("--admin-token-file={}", path(&self.running.token_file)?),
            format!("--replicas={}", self.options.replicas),
            format!("--log={}", self.log.log.as_deref().unwrap_or("warn")),
            format!("--log-format={}", self.log.log_format.name()),
            "--exit-with-stdin".to_owned(),
        ];
        // Made for one machine and impatient people, unless they say otherwise.
        for (option, value) in [("profile", "local"), ("repair-delay", "10s")] {
            let variable = format!("DATAD_{}", option.to_uppercase().replace('-', "_"));
            if !is_set(&variable) {
                arguments.push(format!("--{option}={value}"));
            }
        }
        // They share one disk, the user's: no node could free space on it by leaving keys to the
        // others.
        if !["DATAD_DISK_HIGH", "DATAD_DISK_LOW"].into_iter().any(is_set) {
            arguments.extend(["--disk-high=1".to_owned(), "--disk-low=0.99".to_owned()]);
        }
        arguments.extend(self.seeds.iter().map(|seed| format!("--seed={seed}")));
        Ok(arguments)
    }

    /// Stops what still runs, and waits until it has ended.
    async fn end(&mut self) {
        self.stop.gently.cancel();
        // The children may have something left to say.
        self.heard.close();
        while let Some(child) = self.children.last_mut() {
            let _ = child.await;
            self.children.pop();
        }
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn name(index: usize) -> String {
    format!("node-{}", index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_for_this_user_alone_whatever_was_there_before() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cluster.key"), "x".repeat(100)).unwrap();
        let path = write_key(folder.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(ClusterKey::parse(&fs::read_to_string(path).unwrap()).is_ok());
    }
}
