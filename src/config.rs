//! Every setting of a node: its meaning, unit, range, default and how to choose it.
//!
//! [`NodeConfig`] is a plain struct. A program starts from its `Default`, changes what it needs,
//! and hands it to the builder, which checks it once. Code behind that check relies on it.

mod policy;
mod profile;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use self::policy::YEAR;
pub(crate) use self::policy::of_prefix;
pub use self::{
    policy::{RefreshPolicy, UpstreamLimit},
    profile::{Profile, ProfileName},
};
use crate::key::Key;

/// Most replicas a key may have; preference lists are precomputed to about this depth.
pub const REPLICAS_MAX: usize = 8;

/// Settings of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NodeConfig {
    /// UDP address of the endpoint. Default `0.0.0.0:0`: the system chooses a port, which is fine
    /// for tests. A member that other nodes use as a seed needs a fixed port.
    pub listen: SocketAddr,
    /// The address that other nodes use, where it differs from `listen` (behind a port mapping, or when `listen` is
    /// `0.0.0.0`). Default: the bound address; where that is `0.0.0.0`, this machine's address that leads
    /// to the first seed on another machine. A node that listens on `0.0.0.0` and names no seed must set it.
    pub advertise: Option<SocketAddr>,
    /// Addresses of other members, `host:port`. The node resolves names again every minute. One
    /// seed that is up is enough; three seeds, or all members, are safer. Empty: this is the first
    /// node of a cluster.
    pub seeds: Vec<String>,
    /// Live members, this node included, below which a node that has just started does not call
    /// itself ready: `/-/readyz` and the program's `ready` line wait for them. Default 0: the node
    /// waits for no other member. Half of the cluster or more keeps a load balancer from nodes that
    /// were started with a wrong key or address. Losses after the start do not count.
    pub expect_members: usize,
    /// How many nodes keep each key: 1 to 8, default 2. All nodes must have the same value. A
    /// cluster with fewer members keeps each key on all of them.
    pub replicas: usize,
    /// How many nodes keep the keys that begin with a prefix, where that differs from `replicas`: 1
    /// to 8 each. The longest prefix of a key counts. All nodes must have the same table. Default
    /// none. To set single keys, and without a restart, pin them.
    pub prefix_replicas: BTreeMap<String, usize>,
    /// Share of the keys this node takes, relative to the others: 0 to 1,000, default 100. For
    /// example, a machine with twice the disk takes 200. A node with 0 keeps no keys of its own
    /// accord.
    pub weight: u32,
    /// Updates that run at once: 1 to 1,024, default 4. A higher number helps when the origin is
    /// slow, not when the disk is.
    pub updaters: usize,
    /// Of the updates that run at once, those that restore or move replicas: 1 to 1,024, default 3.
    /// If there are two or more updaters, one is always left to requests.
    pub repairs: usize,
    /// Bytes per second that this node copies from others to restore or move replicas, all
    /// together. Default 0: no limit. Choose less than the network carries, so that requests have
    /// bandwidth, and enough to copy a lost machine's share in time.
    pub repair_bytes_per_second: u64,
    /// Updates that wait: 1 to 1,000,000, default 10,000. The node answers requests beyond that
    /// with 503.
    pub update_queue: usize,
    /// How long an update may run without progress, as its provider notes it. Default 10 minutes.
    /// An update that makes progress has a day. A provider that notes nothing must finish within
    /// `update_timeout`.
    #[serde(with = "humantime_serde")]
    pub update_timeout: Duration,
    /// How long a request waits for a key that is being fetched. Default 60 s. A request that waits
    /// longer gets 504. The fetch continues while a request waits for it or it makes progress.
    #[serde(with = "humantime_serde")]
    pub request_patience: Duration,
    /// How long a fetch that no request waits for any more may stand still before the node cancels
    /// it. Default 30 s: longer than a slow origin takes to answer. Pins, repairs, refreshes and
    /// explicit updates continue until `update_timeout`.
    #[serde(with = "humantime_serde")]
    pub stalled_fetch_patience: Duration,
    /// How long the node remembers that the origin has no such key, or refuses it without saying
    /// when to ask again. Default 30 s. With 0 the node asks the origin every time.
    #[serde(with = "humantime_serde")]
    pub not_found_ttl: Duration,
    /// How long a member has to be dead before other nodes copy its keys. Default 60 s: longer than
    /// a restart, so that a restart moves nothing. Each node waits up to a quarter longer, so that
    /// not all of them begin at once.
    #[serde(with = "humantime_serde")]
    pub repair_delay: Duration,
    /// How long a dead member stays on the list, with the keys it had: 1 s to a year, default a
    /// week. The member stays longer while only dead members have some key. Choose longer than
    /// machines are usually away: a member that returns later joins as a new one, and may bring
    /// back keys that were forgotten meanwhile. Has no effect where etcd coordinates.
    #[serde(with = "humantime_serde")]
    pub dead_kept: Duration,
    /// When the cluster loses more than this share of its members within `mass_failure_pause`,
    /// nodes copy nothing on account of it: 0.0 to 1.0, default 0.5; 1.0 never holds back. For
    /// example, when 6 of 10 machines vanish together, a switch is the likelier cause.
    pub mass_failure_share: f64,
    /// For how long a loss counts towards `mass_failure_share`, and so for how long nodes hold
    /// repairs back at most if no member returns. Default 30 min: enough for an operator to look.
    #[serde(with = "humantime_serde")]
    pub mass_failure_pause: Duration,
    /// How often a node asks the origin for news of held keys that begin with a prefix. The longest
    /// prefix of a key counts; the empty prefix covers all keys. All nodes must have the same
    /// table. Default none: nodes refresh a held key when a client asks for it (`update`).
    pub refresh: BTreeMap<String, RefreshPolicy>,
    /// What this node may ask of the origin of keys that begin with a prefix. The longest prefix of
    /// a key counts. Default none: `updaters` is the only limit. End a host with a slash.
    pub upstreams: BTreeMap<String, UpstreamLimit>,
    /// How often a node goes through all keys to see what it should hold. Default 5 min. The node
    /// also acts on each change at once, so this only catches changes that it missed.
    #[serde(with = "humantime_serde")]
    pub balance_interval: Duration,
    /// How long a node keeps a surplus replica after it became surplus. Default 60 s: members that
    /// come and go quickly then cost no copies.
    #[serde(with = "humantime_serde")]
    pub trim_delay: Duration,
    /// How long a node that is asked to stop or to drain hands over the keys that only it holds.
    /// Default 10 s: enough for a few large keys, and below what service managers grant. A node
    /// with 0 hands over nothing when it stops.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// The share of its disk above which a node takes no new keys, and gives up copies that other
    /// nodes have too: more than `disk_low`, at most 1, default 0.90. Leave space for the fetches
    /// that run at once, `updaters` times the largest key.
    pub disk_high: f64,
    /// The share of its disk below which such a node takes new keys again: more than 0, default
    /// 0.80. Above it, the node does not copy a key that has enough replicas elsewhere only because
    /// the key belongs here. The further this is below `disk_high`, the more the node gives up at a
    /// time, and the more rarely.
    pub disk_low: f64,
    /// What becomes of the only copy of an unpinned key when no node takes new keys and such copies
    /// are all that could go. `evict`, the default, gives up the least recently used copy, once its
    /// origin says that it has the key; so a cluster of caches continues to take keys. With `keep`,
    /// nodes refuse new keys until an operator frees disk space. All nodes must have the same
    /// value.
    pub last_copies: LastCopies,
    /// Requests a second for one key at one holder that make the key hot, if they last for some
    /// seconds. More nodes then keep the key, one after the other. Default 100; with 0 no key
    /// becomes hot.
    pub hot_rate: u32,
    /// How many nodes more than usual keep a hot key: 0 to 7, default 2. At most 8 nodes keep a key
    /// in all.
    pub hot_replicas: usize,
    /// How long a key stays hot after its requests have fallen below a quarter of `hot_rate`.
    /// Default 60 s. After that, one replica goes at a time.
    #[serde(with = "humantime_serde")]
    pub hot_hold: Duration,
    /// Attempts at different holders that may fail before the request fails: 1 to 8, default 3.
    pub attempts: usize,
    /// Pace of gossip and failure detection.
    pub profile: Profile,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            advertise: None,
            seeds: Vec::new(),
            expect_members: 0,
            replicas: 2,
            prefix_replicas: BTreeMap::new(),
            weight: 100,
            updaters: 4,
            repairs: 3,
            repair_bytes_per_second: 0,
            update_queue: 10_000,
            update_timeout: Duration::from_secs(600),
            request_patience: Duration::from_secs(60),
            stalled_fetch_patience: Duration::from_secs(30),
            not_found_ttl: Duration::from_secs(30),
            repair_delay: Duration::from_secs(60),
            dead_kept: Duration::from_secs(7 * 24 * 3600),
            mass_failure_share: 0.5,
            mass_failure_pause: Duration::from_secs(1800),
            refresh: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            balance_interval: Duration::from_secs(300),
            trim_delay: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            disk_high: 0.90,
            disk_low: 0.80,
            last_copies: LastCopies::Evict,
            hot_rate: 100,
            hot_replicas: 2,
            hot_hold: Duration::from_secs(60),
            attempts: 3,
            profile: Profile::lan(),
        }
    }
}

/// What becomes of the only copy of a key when no node has free disk space; see
/// [`NodeConfig::last_copies`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LastCopies {
    /// The copy goes, if its origin has the key.
    Evict,
    /// The copy stays.
    Keep,
}

/// A setting out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {value}, but has to be {range}")]
pub struct ConfigError {
    /// Its name.
    pub field: &'static str,
    /// The value that was given.
    pub value: String,
    /// The range that is allowed.
    pub range: &'static str,
}

impl NodeConfig {
    /// How nodes keep `key` fresh, if they do.
    pub(crate) fn refresh_policy(&self, key: &Key) -> Option<&RefreshPolicy> {
        of_prefix(&self.refresh, key).map(|(_, policy)| policy).filter(|policy| !policy.interval.is_zero())
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let within = |ok: bool, field, value: String, range| {
            if ok { Ok(()) } else { Err(ConfigError { field, value, range }) }
        };
        let positive = |field, value: Duration| within(!value.is_zero(), field, format!("{value:?}"), "more than 0");
        within((1..=REPLICAS_MAX).contains(&self.replicas), "replicas", self.replicas.to_string(), "1 to 8")?;
        for (prefix, replicas) in &self.prefix_replicas {
            let value = format!("{replicas} for {prefix:?}");
            within((1..=REPLICAS_MAX).contains(replicas), "prefix_replicas", value, "1 to 8")?;
        }
        for (prefix, policy) in &self.refresh {
            let range = "0, or an interval between `min` and `max`, of at most a year, and a jitter of 0 to 1";
            within(policy.is_valid(), "refresh", format!("{policy:?} for {prefix:?}"), range)?;
        }
        for (prefix, limit) in &self.upstreams {
            let range = "a concurrency of 1 or more, and 0.001 to 1,000 per second";
            within(limit.is_valid(), "upstreams", format!("{limit:?} for {prefix:?}"), range)?;
        }
        within(self.weight <= 1_000, "weight", self.weight.to_string(), "0 to 1,000")?;
        within((1..=1024).contains(&self.updaters), "updaters", self.updaters.to_string(), "1 to 1,024")?;
        within((1..=1024).contains(&self.repairs), "repairs", self.repairs.to_string(), "1 to 1,024")?;
        let share = self.mass_failure_share;
        within((0.0..=1.0).contains(&share), "mass_failure_share", share.to_string(), "0.0 to 1.0")?;
        within(
            (1..=1_000_000).contains(&self.update_queue),
            "update_queue",
            self.update_queue.to_string(),
            "1 to 1,000,000",
        )?;
        let (high, low) = (self.disk_high, self.disk_low);
        within(high > 0.0 && high <= 1.0, "disk_high", high.to_string(), "more than 0, at most 1")?;
        within(low > 0.0 && low < high, "disk_low", low.to_string(), "more than 0, less than disk_high")?;
        within(self.hot_replicas < REPLICAS_MAX, "hot_replicas", self.hot_replicas.to_string(), "0 to 7")?;
        within((1..=8).contains(&self.attempts), "attempts", self.attempts.to_string(), "1 to 8")?;
        positive("update_timeout", self.update_timeout)?;
        positive("request_patience", self.request_patience)?;
        positive("balance_interval", self.balance_interval)?;
        let kept = self.dead_kept;
        within(kept >= Duration::from_secs(1), "dead_kept", format!("{kept:?}"), "1 s to a year")?;
        // Times are added to the clock, which has an end.
        for (field, value) in [
            ("update_timeout", self.update_timeout),
            ("request_patience", self.request_patience),
            ("stalled_fetch_patience", self.stalled_fetch_patience),
            ("not_found_ttl", self.not_found_ttl),
            ("repair_delay", self.repair_delay),
            ("dead_kept", self.dead_kept),
            ("mass_failure_pause", self.mass_failure_pause),
            ("balance_interval", self.balance_interval),
            ("trim_delay", self.trim_delay),
            ("drain_timeout", self.drain_timeout),
            ("hot_hold", self.hot_hold),
        ] {
            within(value <= YEAR, field, format!("{value:?}"), "at most a year")?;
        }
        for seed in &self.seeds {
            let valid =
                seed.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            within(valid, "seeds", seed.clone(), "host:port")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        NodeConfig::default().check().unwrap();
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_range() {
        let config = NodeConfig { replicas: 0, ..NodeConfig::default() };
        assert_eq!(config.check().unwrap_err().to_string(), "`replicas` is 0, but has to be 1 to 8");
        let config = NodeConfig { repair_delay: Duration::MAX, ..NodeConfig::default() };
        assert_eq!(config.check().unwrap_err().field, "repair_delay");
        let config = NodeConfig { seeds: vec!["nowhere".into()], ..NodeConfig::default() };
        assert_eq!(config.check().unwrap_err().field, "seeds");
        for (disk_low, disk_high, wrong) in [
            (0.0, 0.9, "disk_low"),
            (0.9, 0.9, "disk_low"),
            (f64::NAN, 0.9, "disk_low"),
            (0.8, 1.01, "disk_high"),
            (0.8, f64::NAN, "disk_high"),
        ] {
            let config = NodeConfig { disk_low, disk_high, ..NodeConfig::default() };
            assert_eq!(config.check().unwrap_err().field, wrong, "{disk_low} {disk_high}");
        }
    }

    #[test]
    fn a_file_may_name_only_settings_that_exist() {
        let config: NodeConfig = toml::from_str("replicas = 3\nrepair_delay = \"2s\"\nprofile = \"local\"").unwrap();
        assert_eq!((config.replicas, config.repair_delay), (3, Duration::from_secs(2)));
        assert_eq!(config.profile.name(), ProfileName::Local);
        assert!(toml::from_str::<NodeConfig>("replica = 3").is_err());
    }

    #[test]
    fn freshness_and_limits_are_set_by_prefix() {
        let text = r#"
            [refresh]
            "" = { interval = "1h" }
            "github.com/" = { interval = "10m", min = "1m", max = "1d", jitter = 0.2 }
            "github.com/old/" = { interval = "0s" }
            [upstreams]
            "github.com/" = { concurrency = 4, per_second = 0.5 }
        "#;
        let config: NodeConfig = toml::from_str(text).unwrap();
        config.check().unwrap();
        assert_eq!(toml::from_str::<NodeConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
        let policy = |text: &str| config.refresh_policy(&Key::new(text).unwrap()).copied();
        assert_eq!(policy("x"), Some(RefreshPolicy::every(Duration::from_secs(3_600))));
        assert_eq!(policy("github.com/new").unwrap().shortest(), Duration::from_secs(60));
        assert_eq!(policy("github.com/old/x"), None);
        for wrong in [
            r#"refresh = { "" = { interval = "1m", min = "2m" } }"#,
            r#"refresh = { "" = { interval = "1m", max = "1s" } }"#,
            r#"refresh = { "" = { interval = "1m", min = "0s" } }"#,
            r#"refresh = { "" = { interval = "1m", jitter = 1.5 } }"#,
            r#"refresh = { "" = { interval = "500years" } }"#,
            r#"upstreams = { "" = { concurrency = 0 } }"#,
            r#"upstreams = { "" = { per_second = 0.0 } }"#,
        ] {
            assert!(toml::from_str::<NodeConfig>(wrong).unwrap().check().is_err(), "{wrong}");
        }
    }
}
