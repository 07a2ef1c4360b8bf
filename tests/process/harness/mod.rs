//! What the tests stand on: an upstream, nodes as child processes, a git client, an HTTP client, and waiting.

#[cfg(feature = "etcd")]
#[path = "../../common/etcd.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests of etcd itself use the rest")]
pub(crate) mod etcd;
mod git;
mod http;
mod load;
mod node;
mod ports;
mod upstream;

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use self::{
    git::{Checkout, Cloning, git},
    http::{Answer, get, raw, send},
    load::Load,
    node::{Serve, command},
    ports::port,
    upstream::Upstream,
};

/// How long anything may take before a test gives up on it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(25);

/// Settings with which a test need not wait long, and need not care how full this machine's disk is. Nothing is refreshed
/// unless the test says so: what a node finds on its disk would be, at some time.
pub(crate) const QUICK: &str = "profile = \"local\"\nrepair_delay = \"3s\"\ntrim_delay = \"1s\"\n\
    request_patience = \"25s\"\ndisk_high = 1.0\ndisk_low = 0.999\n\
    refresh = { \"\" = { interval = \"0s\" } }\n";

/// Waits until `condition` holds.
pub(crate) async fn eventually<F, T>(what: &str, mut condition: F)
where
    F: FnMut() -> T,
    T: Future<Output = bool>,
{
    let waited = tokio::time::timeout(DEADLINE, async {
        while !condition().await {
            tokio::time::sleep(STEP).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {DEADLINE:?}: {what}");
}

/// Nodes that know each other, with a folder that goes with them.
pub(crate) struct Cluster {
    // Nodes are dropped, and with that killed, before their folder is deleted.
    pub(crate) nodes: Vec<Serve>,
    key_file: PathBuf,
    config_file: PathBuf,
    provider: Vec<String>,
    dir: tempfile::TempDir,
    #[cfg(feature = "etcd")]
    etcd: Option<etcd::Etcd>,
}

impl Cluster {
    /// `count` nodes, `n1` and so on, that serve and see each other. `provider` are the command line's last arguments.
    pub(crate) async fn start(count: usize, config: &str, provider: &[&str]) -> Self {
        Self::start_with(count, config, provider, |_| {}).await
    }

    /// As [`Cluster::start`], with nodes to which something is done before.
    pub(crate) async fn start_with(count: usize, config: &str, provider: &[&str], change: impl Fn(&mut Serve)) -> Self {
        let mut cluster = Self::prepare(config, provider);
        // In the test program of that name, all clusters are coordinated by a private etcd.
        #[cfg(feature = "etcd")]
        if matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"etcd") {
            cluster.etcd = Some(etcd::Etcd::start(1).await);
        }
        for number in 1..=count {
            let node = cluster.node(&format!("n{number}"));
            cluster.nodes.push(node);
        }
        for node in &mut cluster.nodes {
            change(node);
            node.start();
        }
        for node in &cluster.nodes {
            node.until_ready().await;
        }
        cluster.until_members_are(count).await;
        cluster
    }

    fn prepare(config: &str, provider: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (key_file, config_file) = (dir.path().join("cluster.key"), dir.path().join("config.toml"));
        write_key(&key_file);
        std::fs::write(&config_file, config).unwrap();
        let provider = provider.iter().map(|&arg| arg.to_owned()).collect();
        Self {
            nodes: Vec::new(),
            key_file,
            config_file,
            provider,
            dir,
            #[cfg(feature = "etcd")]
            etcd: None,
        }
    }

    /// A node that is not started and not part of the cluster yet, with the others as its seeds.
    pub(crate) fn node(&self, name: &str) -> Serve {
        Serve::new(name, self.dir.path(), &self.key_file, &self.config_file, &self.coordination(), &self.provider)
    }

    /// How a node finds the others: through etcd, or with the nodes so far as its seeds.
    fn coordination(&self) -> Vec<String> {
        #[cfg(feature = "etcd")]
        if let Some(etcd) = &self.etcd {
            return ["--etcd", &etcd.url(0), "--etcd-ttl", "2s"].map(str::to_owned).into();
        }
        self.nodes.iter().flat_map(|node| ["--seed".into(), format!("127.0.0.1:{}", node.port)]).collect()
    }

    /// The private etcd, in the test program that has one.
    #[cfg(feature = "etcd")]
    #[allow(dead_code, reason = "the other test program has none")]
    pub(crate) fn etcd(&self) -> &etcd::Etcd {
        self.etcd.as_ref().expect("this test program has one")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn by_name(&self, name: &str) -> &Serve {
        self.nodes.iter().find(|node| node.name == name).unwrap()
    }

    pub(crate) fn by_name_mut(&mut self, name: &str) -> &mut Serve {
        self.nodes.iter_mut().find(|node| node.name == name).unwrap()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Serve> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    /// A running node that is not among `names`.
    pub(crate) fn other_than(&self, names: &[String]) -> &Serve {
        self.running().find(|node| !names.contains(&node.name)).expect("some node is not among them")
    }

    /// Waits until every running node sees `count` members that serve, itself among them, and no others alive.
    pub(crate) async fn until_members_are(&self, count: usize) {
        for node in self.running() {
            eventually(&format!("{} sees {count} members serve", node.name), || async {
                let states = node.states().await;
                let are = |wanted: &str| states.values().filter(|state| *state == wanted).count();
                are("serving") == count && are("joining") + are("draining") == 0
            })
            .await;
        }
    }

    /// Waits until every running node says that `key` has exactly `count` ready holders, and returns their names.
    pub(crate) async fn until_held(&self, key: &str, count: usize) -> Vec<String> {
        for node in self.running() {
            eventually(&format!("{} sees {count} ready holders of {key}", node.name), || async {
                node.ready_holders(key).await.len() == count
            })
            .await;
        }
        self.running().next().expect("a node is running").ready_holders(key).await
    }

    /// Waits until every running node has nothing left to do.
    pub(crate) async fn until_converged(&self) {
        for node in self.running() {
            eventually(&format!("{} has converged", node.name), || async {
                node.status().await.is_some_and(|status| status["converged"] == true && status["under_replicated"] == 0)
            })
            .await;
        }
    }
}

/// A fresh cluster key, made by the program itself.
pub(crate) fn write_key(path: &Path) {
    let made = std::process::Command::new(command()).args(["keygen", "--out"]).arg(path).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
