//! What happens in a run, as data: the cluster, its network and keys, the requests, and everything that goes wrong.
//!
//! ```text
//!   a seed -- draw --> Script <-- TOML file -- a person, or the shrinker
//!                        |
//!                      run: does what it says
//! ```
//!
//! A script is complete: a run draws nothing that changes *what* is done, only how long a datagram takes and the like. So
//! a script that fails can be written down, read, made smaller, and kept.

pub mod draw;
pub mod scenarios;
pub mod shrink;

use std::{collections::BTreeSet, time::Duration};

use datad_gossip::config::NodeConfig;
use serde::{Deserialize, Serialize};

use crate::model::Link;
pub use crate::model::{Left, MACHINES_MAX, Name, RequestKind};

/// Most keys of one run.
pub const KEYS_MAX: usize = 100_000;
/// Longest time with faults.
pub const LASTS_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Everything that is to happen in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// What it is called.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// The seed that it is meant for, if it needs a certain one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How long requests and faults go on before the end is put to the faults.
    #[serde(with = "humantime_serde")]
    pub lasts: Duration,
    /// The machines.
    pub cluster: Cluster,
    /// Settings of all nodes, as in the configuration of a real one.
    pub node: NodeConfig,
    /// How links behave while nothing is wrong with them.
    pub network: Link,
    /// What the upstream has.
    pub data: Data,
    /// Requests that are drawn, besides those that are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// What else must hold at the end.
    #[serde(skip_serializing_if = "Expect::is_empty")]
    pub expect: Expect,
    /// What goes wrong.
    #[serde(rename = "fault")]
    pub faults: Vec<Fault>,
    /// Requests, by time.
    #[serde(rename = "request", skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            seed: None,
            lasts: Duration::from_secs(60),
            cluster: Cluster::default(),
            node: NodeConfig::default(),
            network: Link { latency: Duration::from_millis(1), ..Link::default() },
            data: Data::default(),
            traffic: None,
            expect: Expect::default(),
            faults: Vec::new(),
            requests: Vec::new(),
        }
    }
}

/// The machines of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Machines with a provider.
    pub nodes: usize,
    /// Machines that only consume.
    pub clients: usize,
    /// Of the nodes, the last so many have no power until a fault of the kind `join` gives it to them.
    pub later: usize,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { nodes: 5, clients: 0, later: 0 }
    }
}

/// What the upstream has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Keys that exist: `key/0`, `key/1`, ...
    pub keys: usize,
    /// Keys that are asked for and do not exist: `missing/0`, ...
    pub missing: usize,
    /// Longest value, in bytes.
    pub value_bytes_max: usize,
    /// Whether every key is on its owners' disks from the beginning, or nowhere.
    pub placed: bool,
    /// Room for values on each disk, in bytes. Without it there is no end to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Longest time that the upstream takes for an answer.
    #[serde(with = "humantime_serde")]
    pub fetch_max: Duration,
    /// Whether nodes can ask the upstream which keys it has, so that they may give up the only copies of some.
    pub vouches: bool,
}

impl Default for Data {
    fn default() -> Self {
        let fetch_max = Duration::from_millis(1_500);
        Self {
            keys: 20,
            missing: 2,
            value_bytes_max: 4_000,
            placed: false,
            disk_bytes: None,
            fetch_max,
            vouches: false,
        }
    }
}

/// Requests that are drawn from the seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// Requests a second, all machines together.
    pub per_second: f64,
    /// Exponent of Zipf's law by which keys are chosen; 0 takes all alike.
    pub skew: f64,
    /// Share of requests that every machine gets at once.
    pub herds: f64,
    /// Share that asks for an update instead of the data.
    pub updates: f64,
    /// Share that is a pin, an unpin or a forget.
    pub intents: f64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { per_second: 5.0, skew: 0.9, herds: 0.1, updates: 0.0, intents: 0.0 }
    }
}

/// What must hold besides the properties that always do. What is not given is not demanded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// At most so many requests for keys that exist end without data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_max: Option<u64>,
    /// The upstream is asked at most so often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetches_max: Option<u64>,
    /// At most so many copies are made from node to node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_max: Option<u64>,
}

impl Expect {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// When.
    #[serde(with = "humantime_serde")]
    pub at: Duration,
    /// At which machine.
    pub node: Name,
    /// About which key.
    pub key: String,
    /// What is asked.
    #[serde(default)]
    pub what: RequestKind,
}

/// Something that goes wrong, from a moment on, for a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins.
    #[serde(with = "humantime_serde")]
    pub at: Duration,
    /// How long it lasts; without it, for good: not even the end of the run heals it, and the machines concerned are not
    /// part of the core that has to recover.
    #[serde(with = "humantime_serde", default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Duration>,
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// The kinds of faults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FaultKind {
    /// The machines lose their power at the same moment, and get it back at the end.
    Crash {
        /// Which.
        nodes: Vec<Name>,
        /// What is left on their disks.
        #[serde(default)]
        disk: Left,
    },
    /// The nodes say goodbye and stop, and start again at the end.
    Leave {
        /// Which.
        nodes: Vec<Name>,
    },
    /// The nodes hand over what only they hold, then say goodbye and stop, and start again at the end.
    Drain {
        /// Which.
        nodes: Vec<Name>,
    },
    /// All nodes are stopped and started one after the other, each when the former serves again. Ends by itself.
    Roll {
        /// In this order.
        nodes: Vec<Name>,
    },
    /// Machines that had no power so far get it. Ends at once.
    Join {
        /// Which.
        nodes: Vec<Name>,
    },
    /// The process stands still and does not know it (a stopped process, a migrated virtual machine).
    Pause {
        /// Whose.
        node: Name,
    },
    /// The process runs only now and then.
    Slow {
        /// Whose.
        node: Name,
        /// Between two moments at which it runs.
        #[serde(with = "humantime_serde")]
        every: Duration,
    },
    /// An actor of the node panics. Ends at once.
    Panic {
        /// Whose.
        node: Name,
        /// Which.
        actor: Actor,
    },
    /// A node that is gone is taken off the list of members, at some other node. Ends at once.
    Remove {
        /// Which.
        node: Name,
    },
    /// No datagram passes between the two groups.
    Cut {
        /// One group.
        from: Vec<Name>,
        /// The other. Partitions that are not transitive leave somebody out of both.
        to: Vec<Name>,
        /// Only this way, not back.
        #[serde(default)]
        one_way: bool,
    },
    /// As a cut that comes and goes.
    Flap {
        /// One group.
        from: Vec<Name>,
        /// The other.
        to: Vec<Name>,
        /// How long it is cut, and then not.
        #[serde(with = "humantime_serde")]
        every: Duration,
    },
    /// Links are worse than usual.
    #[serde(rename = "weather")]
    DegradedLinks {
        /// Ways from these machines; empty for all.
        #[serde(default)]
        from: Vec<Name>,
        /// Ways to these machines; empty for all.
        #[serde(default)]
        to: Vec<Name>,
        /// What is added.
        link: Link,
    },
    /// The wall clock jumps, and back at the end.
    Clock {
        /// Whose.
        node: Name,
        /// Forward, or back if negative, in milliseconds.
        jump_ms: i64,
    },
    /// Nothing more fits on the disk.
    DiskFull {
        /// Of which machine.
        node: Name,
    },
    /// The disk takes its time.
    DiskSlow {
        /// Of which machine.
        node: Name,
        /// For one write.
        #[serde(with = "humantime_serde")]
        delay: Duration,
    },
    /// Writes to the disk fail.
    DiskFails {
        /// Of which machine.
        node: Name,
    },
    /// Keys vanish from the disk, and the node is not told. Ends at once.
    Vanish {
        /// From which machine.
        node: Name,
        /// Which.
        keys: Vec<String>,
    },
    /// Keys are put on the disk, and the node is not told before it starts again. Ends at once.
    Appear {
        /// On which machine.
        node: Name,
        /// Which.
        keys: Vec<String>,
    },
    /// The upstream takes its time.
    UpstreamSlow {
        /// Besides what it usually takes.
        #[serde(with = "humantime_serde")]
        delay: Duration,
    },
    /// The upstream cannot be reached.
    UpstreamDown {},
    /// The upstream says that there are no such keys.
    UpstreamLacks {
        /// Which.
        keys: Vec<String>,
    },
    /// The upstream has new values. Ends at once.
    Change {
        /// Of these keys.
        keys: Vec<String>,
    },
    /// A machine that does not belong here tries to join and sends rubbish.
    Stranger {
        /// The name it goes by, which may be that of a member.
        name: Name,
        /// Whether it has a certificate at all, if only of another cluster.
        certificate: bool,
    },
}

/// An actor of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Actor {
    Membership,
    Registry,
    Balancer,
    Updater,
    Router,
}

impl FaultKind {
    /// Its kind, as in a script.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash { disk: Left::Kept, .. } => "crash",
            Self::Crash { disk: Left::Synced, .. } => "crash, unsynced lost",
            Self::Crash { disk: Left::Nothing, .. } => "crash, disk lost",
            Self::Leave { .. } => "leave",
            Self::Drain { .. } => "drain",
            Self::Roll { .. } => "roll",
            Self::Join { .. } => "join",
            Self::Pause { .. } => "pause",
            Self::Slow { .. } => "slow",
            Self::Panic { .. } => "panic",
            Self::Remove { .. } => "remove",
            Self::Cut { one_way: false, .. } => "cut",
            Self::Cut { one_way: true, .. } => "cut, one way",
            Self::Flap { .. } => "flap",
            Self::DegradedLinks { .. } => "weather",
            Self::Clock { .. } => "clock",
            Self::DiskFull { .. } => "disk full",
            Self::DiskSlow { .. } => "disk slow",
            Self::DiskFails { .. } => "disk fails",
            Self::Vanish { .. } => "vanish",
            Self::Appear { .. } => "appear",
            Self::UpstreamSlow { .. } => "upstream slow",
            Self::UpstreamDown {} => "upstream down",
            Self::UpstreamLacks { .. } => "upstream lacks",
            Self::Change { .. } => "change",
            Self::Stranger { .. } => "stranger",
        }
    }

    /// Machines that it is about.
    #[must_use]
    pub fn machines(&self) -> Vec<&Name> {
        match self {
            Self::Crash { nodes, .. }
            | Self::Leave { nodes }
            | Self::Drain { nodes }
            | Self::Roll { nodes }
            | Self::Join { nodes } => nodes.iter().collect(),
            Self::Pause { node }
            | Self::Slow { node, .. }
            | Self::Panic { node, .. }
            | Self::Remove { node }
            | Self::Clock { node, .. }
            | Self::DiskFull { node }
            | Self::DiskSlow { node, .. }
            | Self::DiskFails { node }
            | Self::Vanish { node, .. }
            | Self::Appear { node, .. } => vec![node],
            Self::Cut { from, to, .. } | Self::Flap { from, to, .. } | Self::DegradedLinks { from, to, .. } => {
                from.iter().chain(to).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Machines that cannot be part of the core if this never ends.
    #[must_use]
    pub fn victims(&self) -> Vec<&Name> {
        match self {
            Self::Cut { from, .. } | Self::Flap { from, .. } => from.iter().collect(),
            _ => self.machines(),
        }
    }

    /// Whether it is over as soon as it has happened.
    #[must_use]
    pub fn is_momentary(&self) -> bool {
        matches!(
            self,
            Self::Join { .. }
                | Self::Roll { .. }
                | Self::Panic { .. }
                | Self::Remove { .. }
                | Self::Vanish { .. }
                | Self::Appear { .. }
                | Self::Change { .. }
        )
    }

    fn keys(&self) -> &[String] {
        match self {
            Self::Vanish { keys, .. }
            | Self::Appear { keys, .. }
            | Self::UpstreamLacks { keys }
            | Self::Change { keys } => keys,
            _ => &[],
        }
    }
}

/// Why a script cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ScriptError(String);

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// It is not one, or says what cannot be done; with the place and the reason.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let script: Self = toml::from_str(text).map_err(|error| ScriptError(error.to_string()))?;
        script.check()?;
        Ok(script)
    }

    /// The script as a file, which [`Script::parse`] reads.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a script has nothing that TOML has not")
    }

    /// Names of all machines, nodes first.
    #[must_use]
    pub fn machines(&self) -> Vec<Name> {
        let nodes = (1..=self.cluster.nodes).map(|number| format!("n{number}"));
        nodes.chain((1..=self.cluster.clients).map(|number| format!("c{number}"))).collect()
    }

    /// Machines that everything is well with in the end.
    #[must_use]
    pub fn core(&self) -> BTreeSet<Name> {
        let mut core: BTreeSet<Name> = self.machines().into_iter().collect();
        for fault in self.faults.iter().filter(|fault| fault.lasts.is_none() && !fault.kind.is_momentary()) {
            fault.kind.victims().into_iter().for_each(|name| _ = core.remove(name));
        }
        let joined: BTreeSet<&Name> = self
            .faults
            .iter()
            .flat_map(|fault| match &fault.kind {
                FaultKind::Join { nodes } => nodes.as_slice(),
                _ => &[],
            })
            .collect();
        core.retain(|name| joined.contains(name) || !self.is_later(name));
        core
    }

    /// Whether this machine has no power at first.
    #[must_use]
    pub fn is_later(&self, name: &str) -> bool {
        name.strip_prefix('n')
            .and_then(|number| number.parse::<usize>().ok())
            .is_some_and(|number| number > self.cluster.nodes - self.cluster.later)
    }

    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// What, and why.
    pub fn check(&self) -> Result<(), ScriptError> {
        let refuse = |reason: String| Err(ScriptError(reason));
        let Cluster { nodes, clients, later } = self.cluster;
        if nodes == 0 || later >= nodes || nodes + clients > MACHINES_MAX {
            return refuse(format!(
                "cluster: 1 to {MACHINES_MAX} machines, one of them a node with power from the beginning"
            ));
        }
        if self.lasts > LASTS_MAX {
            return refuse("lasts: at most seven days".into());
        }
        if self.data.keys == 0 || self.data.keys > KEYS_MAX {
            return refuse(format!("data.keys: 1 to {KEYS_MAX}"));
        }
        if self.data.value_bytes_max == 0 || self.data.value_bytes_max > 64 << 20 {
            return refuse("data.value_bytes_max: 1 byte to 64 MiB".into());
        }
        if self.network.latency < Duration::from_millis(1) {
            return refuse("network.latency: 1ms at least, the grain of time here".into());
        }
        if let Some(traffic) = self.traffic {
            let Traffic { per_second, skew, herds, updates, intents } = traffic;
            let shares = [herds, updates, intents].iter().all(|share| (0.0..=1.0).contains(share));
            if !(0.001..=100_000.0).contains(&per_second) || !(0.0..=10.0).contains(&skew) || !shares {
                return refuse(
                    "traffic: per_second 0.001 to 100000, skew 0 to 10, herds, updates and intents 0 to 1".into(),
                );
            }
        }
        self.node.check().map_err(|error| ScriptError(format!("node: {error}")))?;
        self.network.check().map_err(|reason| ScriptError(format!("network: {reason}")))?;
        let machines: BTreeSet<Name> = self.machines().into_iter().collect();
        for fault in &self.faults {
            self.check_fault(fault, &machines)?;
        }
        if let Some(request) = self.requests.iter().find(|request| !machines.contains(&request.node)) {
            return refuse(format!("request at {:?}: there is no machine {}", request.at, request.node));
        }
        if self.core().is_empty() {
            return refuse("no machine is left for the core: some have to be well in the end".into());
        }
        Ok(())
    }

    fn check_fault(&self, fault: &Fault, machines: &BTreeSet<Name>) -> Result<(), ScriptError> {
        let kind = fault.kind.name();
        let refuse = |reason: String| Err(ScriptError(format!("fault `{kind}` at {:?}: {reason}", fault.at)));
        if let Some(name) = fault.kind.machines().into_iter().find(|name| !machines.contains(*name)) {
            return refuse(format!("there is no machine {name}"));
        }
        if let Some(key) = fault.kind.keys().iter().find(|key| datad_gossip::key::Key::new(key.as_str()).is_err()) {
            return refuse(format!("`{key}` is no key"));
        }
        match &fault.kind {
            FaultKind::DegradedLinks { link, .. } => link.check().or_else(refuse),
            FaultKind::Slow { every, .. } | FaultKind::Flap { every, .. } if every.is_zero() => {
                refuse("every: 1ms at least".into())
            }
            FaultKind::Stranger { name, .. } if datad_gossip::key::NodeName::new(name.as_str()).is_err() => {
                refuse(format!("`{name}` is no name"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_survives_being_written_and_read() {
        for seed in 0..50 {
            let script = draw::draw(seed, &draw::Shape::default());
            let text = script.to_toml();
            let read = Script::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(read, script);
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_reason() {
        let refused = |text: &str| Script::parse(text).expect_err(text).to_string();
        assert!(refused("[cluster]\nnodes = 0").contains("machines"));
        assert!(refused("[[fault]]\nat = \"1s\"\nfor = \"1s\"\nkind = \"pause\"\nnode = \"n9\"").contains("n9"));
        assert!(refused("[[fault]]\nat = \"1s\"\nkind = \"earthquake\"").contains("earthquake"));
        assert!(refused("[network]\nlatency = \"0s\"").contains("1ms"));
        assert!(refused("[network]\nloss = 2.0\nlatency = \"1ms\"").contains("loss"));
        assert!(refused("[node]\nreplicas = 99").contains("replicas"));
        assert!(
            refused("[[fault]]\nat = \"1s\"\nkind = \"crash\"\nnodes = [\"n1\",\"n2\",\"n3\",\"n4\",\"n5\"]")
                .contains("core")
        );
        assert!(refused("typo = 1").contains("typo"));
    }

    #[test]
    fn who_is_hurt_for_good_is_not_part_of_the_core() {
        let script = Script::parse(
            "[[fault]]\nat = \"1s\"\nkind = \"crash\"\nnodes = [\"n1\"]\n\
             [[fault]]\nat = \"2s\"\nkind = \"cut\"\nfrom = [\"n2\"]\nto = [\"n3\", \"n4\", \"n5\"]\n\
             [[fault]]\nat = \"2s\"\nfor = \"1s\"\nkind = \"pause\"\nnode = \"n5\"",
        )
        .unwrap();
        assert_eq!(script.core(), ["n3", "n4", "n5"].map(String::from).into());
    }
}
