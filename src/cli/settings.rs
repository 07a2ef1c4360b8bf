//! The settings of a node: a file, overruled by variables, overruled by flags. All three use the same names.
//!
//! Flags and variables are merged by clap. What they say is laid over the file's table, and the result is read as one,
//! so that no setting can be forgotten on the way.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Command};
use datad_gossip::{
    ClusterKey, Credentials,
    config::{NodeConfig, Profile, ProfileName, RefreshPolicy, UpstreamLimit},
    key::NodeName,
};
use serde::{Deserialize, Serialize, de::IntoDeserializer};

use super::{
    Failure,
    provider::{Origin, ProviderOptions},
};

/// Settings that exclude or complete one another: who gives one of them overrules all of them in the file.
const TOGETHER: [&[&str]; 2] =
    [&["git", "files", "key_depth"], &["cluster_key", "cluster_key_file", "tls_cert", "tls_key", "tls_ca"]];

#[derive(Args, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// Name of the node: lower-case letters, digits, `-`, `.`, `_`; no other node of the cluster may have it. The name
    /// of the machine, if not given
    #[arg(long, env = "DATAD_NAME", value_name = "N")]
    pub(crate) name: Option<String>,
    /// UDP address for the other nodes. Port 8400 of all interfaces, if not given
    #[arg(long, env = "DATAD_LISTEN", value_name = "UDP")]
    pub(crate) listen: Option<SocketAddr>,
    /// TCP address for clients. 127.0.0.1:8400, if not given: this machine only
    #[arg(long, env = "DATAD_HTTP", value_name = "TCP")]
    pub(crate) http: Option<SocketAddr>,
    /// Folder for everything the node keeps; made if needed, used by one process at a time
    #[arg(long, env = "DATAD_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// UDP address that the other nodes use, where it is not the one listened on
    #[arg(long, env = "DATAD_ADVERTISE", value_name = "UDP")]
    pub(crate) advertise: Option<SocketAddr>,
    /// URL under which people reach the node's HTTP side, shown in the list of members
    #[arg(long, env = "DATAD_ADVERTISE_HTTP", value_name = "URL")]
    pub(crate) advertise_http: Option<String>,
    /// `host:port` of another node; give it several times, or with commas. None: the first node of a cluster
    #[arg(long = "seed", env = "DATAD_SEED", value_name = "ADDR", value_delimiter = ',')]
    #[serde(alias = "seed")]
    pub(crate) seeds: Option<Vec<String>>,

    /// File with the cluster key, the secret that makes a machine a member (see keygen)
    #[arg(
        long,
        env = "DATAD_CLUSTER_KEY_FILE",
        value_name = "F",
        help_heading = "Membership (a key, or all of --tls-*)"
    )]
    pub(crate) cluster_key_file: Option<PathBuf>,
    /// The cluster key itself; meant for the variable, as everybody on the machine can read flags
    #[arg(long, env = "DATAD_CLUSTER_KEY", value_name = "KEY", hide = true, hide_env_values = true)]
    pub(crate) cluster_key: Option<String>,
    /// The node's certificate, PEM, valid for its name as server and as client
    #[arg(long, env = "DATAD_TLS_CERT", value_name = "C", help_heading = "Membership (a key, or all of --tls-*)")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "DATAD_TLS_KEY", value_name = "K", help_heading = "Membership (a key, or all of --tls-*)")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The authorities whose certificates are members, PEM
    #[arg(long, env = "DATAD_TLS_CA", value_name = "A", help_heading = "Membership (a key, or all of --tls-*)")]
    pub(crate) tls_ca: Option<PathBuf>,

    #[cfg(feature = "etcd")]
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) etcd: super::etcd::EtcdOptions,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) provider: ProviderOptions,

    /// How many nodes keep each key, 1 to 8; the same on all nodes. 2, if not given
    #[arg(long, env = "DATAD_REPLICAS", value_name = "R", help_heading = "Tuning")]
    pub(crate) replicas: Option<usize>,
    /// `PREFIX=R`: how many nodes keep the keys that begin so, where it is not --replicas; the same on all nodes. Give it
    /// several times, or with commas; in a file, a table
    #[arg(long = "prefix-replicas", env = "DATAD_PREFIX_REPLICAS", value_name = "PREFIX=R", value_delimiter = ',')]
    #[arg(value_parser = parse_prefix, help_heading = "Tuning")]
    #[serde(with = "as_table")]
    pub(crate) prefix_replicas: Option<Vec<(String, usize)>>,
    /// Share of the keys, relative to the other nodes, 0 to 1000. 100, if not given
    #[arg(long, env = "DATAD_WEIGHT", value_name = "N", help_heading = "Tuning")]
    pub(crate) weight: Option<u32>,
    /// Updates that run at once, 1 to 1024. 4, if not given
    #[arg(long, env = "DATAD_UPDATERS", value_name = "U", help_heading = "Tuning")]
    pub(crate) updaters: Option<usize>,
    /// Of the updates, how many restore or move replicas at once, 1 to 1024. 3, if not given; one is left to requests
    #[arg(long, env = "DATAD_REPAIRS", value_name = "N", help_heading = "Tuning")]
    pub(crate) repairs: Option<usize>,
    /// Bytes per second that are copied from other nodes to restore or move replicas. No limit, if not given or 0
    #[arg(long, env = "DATAD_REPAIR_BYTES_PER_SECOND", value_name = "N", help_heading = "Tuning")]
    pub(crate) repair_bytes_per_second: Option<u64>,
    /// Updates that wait. 10000, if not given
    #[arg(long, env = "DATAD_UPDATE_QUEUE", value_name = "N", help_heading = "Tuning")]
    pub(crate) update_queue: Option<usize>,
    /// Longest run of one update. 10m, if not given
    #[arg(long, env = "DATAD_UPDATE_TIMEOUT", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) update_timeout: Option<Duration>,
    /// How long a request waits for a key that is being fetched. 60s, if not given
    #[arg(long, env = "DATAD_REQUEST_PATIENCE", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) request_patience: Option<Duration>,
    /// How long a fetch that no request waits for any more may stand still. 30s, if not given
    #[arg(long, env = "DATAD_STALLED_FETCH_PATIENCE", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) stalled_fetch_patience: Option<Duration>,
    /// How long it is remembered that the origin has no such key. 30s, if not given
    #[arg(long, env = "DATAD_NOT_FOUND_TTL", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) not_found_ttl: Option<Duration>,
    /// How long a node has to be dead before its keys are copied to others. 60s, if not given
    #[arg(long, env = "DATAD_REPAIR_DELAY", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) repair_delay: Option<Duration>,
    /// When more than this share of the members is lost at once, nothing is copied on account of it, 0.0 to 1.0. 0.5, if
    /// not given
    #[arg(long, env = "DATAD_MASS_FAILURE_SHARE", value_name = "SHARE", help_heading = "Tuning")]
    pub(crate) mass_failure_share: Option<f64>,
    /// How long a loss counts towards that share, and repairs hold back at most. 30m, if not given
    #[arg(long, env = "DATAD_MASS_FAILURE_PAUSE", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) mass_failure_pause: Option<Duration>,
    /// `PREFIX=TIME`: how often the origin of held keys that begin so is asked for news; without a prefix, of all keys; the
    /// same on all nodes. `1h:5m..1d` goes down to 5m for keys that change, and up to 1d for others. Give it several times,
    /// or with commas; in a file, a table. Never, if not given
    #[arg(long, env = "DATAD_REFRESH", value_name = "PREFIX=TIME", value_delimiter = ',')]
    #[arg(value_parser = parse_refresh, help_heading = "Tuning")]
    #[serde(with = "as_table")]
    pub(crate) refresh: Option<Vec<(String, RefreshPolicy)>>,
    /// `PREFIX=N`, `PREFIX=N@RATE`, `PREFIX=@RATE`: how many updates of this node ask the origin of keys that begin so at
    /// once, and how many begin to in a second. Give it several times, or with commas; in a file, a table. No limit, if not
    /// given
    #[arg(long, env = "DATAD_UPSTREAMS", value_name = "PREFIX=LIMIT", value_delimiter = ',')]
    #[arg(value_parser = parse_upstream, help_heading = "Tuning")]
    #[serde(with = "as_table")]
    pub(crate) upstreams: Option<Vec<(String, UpstreamLimit)>>,
    /// How often a node goes through all keys. 5m, if not given
    #[arg(long, env = "DATAD_BALANCE_INTERVAL", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) balance_interval: Option<Duration>,
    /// How long a surplus replica is kept. 60s, if not given
    #[arg(long, env = "DATAD_TRIM_DELAY", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) trim_delay: Option<Duration>,
    /// How long a node that is asked to stop hands over what only it holds. 10s, if not given; 0s hands over nothing
    #[arg(long, env = "DATAD_DRAIN_TIMEOUT", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) drain_timeout: Option<Duration>,
    /// Share of the disk above which the node takes no new keys and gives up copies that others have too. 0.9, if not given
    #[arg(long, env = "DATAD_DISK_HIGH", value_name = "SHARE", help_heading = "Tuning")]
    pub(crate) disk_high: Option<f64>,
    /// Share of the disk below which it takes new keys again. 0.8, if not given
    #[arg(long, env = "DATAD_DISK_LOW", value_name = "SHARE", help_heading = "Tuning")]
    pub(crate) disk_low: Option<f64>,
    /// Requests a second for a key at one holder that make it hot: more nodes keep it for a while. 100, if not given; 0: never
    #[arg(long, env = "DATAD_HOT_RATE", value_name = "N", help_heading = "Tuning")]
    pub(crate) hot_rate: Option<u32>,
    /// How many nodes more than usual keep a hot key, 0 to 7. 2, if not given
    #[arg(long, env = "DATAD_HOT_REPLICAS", value_name = "N", help_heading = "Tuning")]
    pub(crate) hot_replicas: Option<usize>,
    /// How long a key stays hot when it is not asked for often any more. 60s, if not given
    #[arg(long, env = "DATAD_HOT_HOLD", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) hot_hold: Option<Duration>,
    /// Attempts of one request at different nodes, 1 to 8. 3, if not given
    #[arg(long, env = "DATAD_ATTEMPTS", value_name = "N", help_heading = "Tuning")]
    pub(crate) attempts: Option<usize>,
    /// Pace of gossip: `local` (one machine), `lan` (one data centre) or `wan`. lan, if not given
    #[arg(long, env = "DATAD_PROFILE", value_name = "NAME", value_parser = parse_profile, help_heading = "Tuning")]
    pub(crate) profile: Option<ProfileName>,
    /// Requests for data that are answered at once; more get 503. 4096, if not given
    #[arg(long, env = "DATAD_REQUESTS_MAX", value_name = "N", help_heading = "Tuning")]
    pub(crate) requests_max: Option<usize>,
    /// File with a token that changes then need (`Authorization: Bearer`), and that lets other machines make them
    #[arg(long, env = "DATAD_ADMIN_TOKEN_FILE", value_name = "F")]
    pub(crate) admin_token_file: Option<PathBuf>,
}

fn parse_prefix(text: &str) -> Result<(String, usize), String> {
    let pair = text.rsplit_once('=').and_then(|(prefix, count)| Some((prefix.to_owned(), count.parse().ok()?)));
    pair.ok_or_else(|| "it looks like github.com/my-org/=3".to_owned())
}

fn parse_refresh(text: &str) -> Result<(String, RefreshPolicy), String> {
    let (prefix, times) = text.rsplit_once('=').unwrap_or(("", text));
    let time = |text: &str| {
        humantime::parse_duration(text).map_err(|error| format!("{error}; it looks like github.com/=10m or 1h:5m..1d"))
    };
    let (interval, bounds) = times.split_once(':').map_or((times, None), |(interval, bounds)| (interval, Some(bounds)));
    let mut policy = RefreshPolicy::every(time(interval)?);
    if let Some(bounds) = bounds {
        let (min, max) = bounds.split_once("..").ok_or("the bounds look like 5m..1d")?;
        (policy.min, policy.max) = (Some(time(min)?), Some(time(max)?));
    }
    Ok((prefix.to_owned(), policy))
}

fn parse_upstream(text: &str) -> Result<(String, UpstreamLimit), String> {
    fn number<N: std::str::FromStr>(text: &str) -> Result<Option<N>, String> {
        let wrong = |_| "it looks like github.com/=4, github.com/=4@0.5 or github.com/=@2".to_owned();
        (!text.is_empty()).then(|| text.parse().map_err(wrong)).transpose()
    }
    let (prefix, limits) = text.rsplit_once('=').unwrap_or(("", text));
    let (concurrency, per_second) = limits.split_once('@').unwrap_or((limits, ""));
    let mut limit = UpstreamLimit::default();
    (limit.concurrency, limit.per_second) = (number(concurrency)?, number(per_second)?);
    Ok((prefix.to_owned(), limit))
}

/// Pairs on the command line are a table in a file.
mod as_table {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Pairs<T> = Option<Vec<(String, T)>>;

    pub(super) fn serialize<T: Serialize, S: Serializer>(pairs: &Pairs<T>, to: S) -> Result<S::Ok, S::Error> {
        let table: Option<BTreeMap<_, _>> =
            pairs.as_ref().map(|pairs| pairs.iter().map(|(prefix, value)| (prefix, value)).collect());
        table.serialize(to)
    }

    pub(super) fn deserialize<'a, T: Deserialize<'a>, D: Deserializer<'a>>(from: D) -> Result<Pairs<T>, D::Error> {
        let table = Option::<BTreeMap<String, T>>::deserialize(from)?;
        Ok(table.map(|table| table.into_iter().collect()))
    }
}

fn parse_profile(text: &str) -> Result<ProfileName, String> {
    let parsed: Result<_, serde::de::value::Error> = ProfileName::deserialize(text.into_deserializer());
    parsed.map_err(|_| "it is local, lan or wan".to_owned())
}

impl Settings {
    /// These settings, laid over those of the file that reads `text`.
    pub(crate) fn over_file(&self, text: &str) -> anyhow::Result<Self> {
        let table: toml::Table = text.parse()?;
        let known = names();
        let mut merged = toml::Table::new();
        for (name, value) in table {
            let name = name.replace('-', "_");
            anyhow::ensure!(
                known.contains(&name) || matches!(name.as_str(), "seed" | "git_allow"),
                "there is no setting `{name}`; these are: {}",
                known.join(", ")
            );
            merged.insert(name, value);
        }
        let said = toml::Table::try_from(self)?;
        for together in TOGETHER {
            if together.iter().any(|name| said.contains_key(*name)) {
                merged.retain(|name, _| !together.contains(&name));
            }
        }
        for (name, other) in [("seeds", "seed"), ("allow", "git_allow")] {
            if said.contains_key(name) {
                merged.remove(other);
            }
        }
        merged.extend(said);
        Ok(merged.try_into()?)
    }

    /// The library's part of the settings, checked.
    pub(crate) fn node_config(&self) -> Result<NodeConfig, Failure> {
        fn set<T: Clone>(target: &mut T, value: Option<&T>) {
            target.clone_from(value.unwrap_or(&target.clone()));
        }
        let mut config = NodeConfig::default();
        config.listen = SocketAddr::from(([0, 0, 0, 0], super::serve::PORT));
        config.advertise = self.advertise;
        set(&mut config.listen, self.listen.as_ref());
        set(&mut config.seeds, self.seeds.as_ref());
        set(&mut config.replicas, self.replicas.as_ref());
        config.prefix_replicas = self.prefix_replicas.iter().flatten().cloned().collect();
        config.refresh = self.refresh.iter().flatten().cloned().collect();
        config.upstreams = self.upstreams.iter().flatten().cloned().collect();
        set(&mut config.weight, self.weight.as_ref());
        set(&mut config.updaters, self.updaters.as_ref());
        set(&mut config.update_queue, self.update_queue.as_ref());
        set(&mut config.update_timeout, self.update_timeout.as_ref());
        set(&mut config.request_patience, self.request_patience.as_ref());
        set(&mut config.stalled_fetch_patience, self.stalled_fetch_patience.as_ref());
        set(&mut config.not_found_ttl, self.not_found_ttl.as_ref());
        set(&mut config.repair_delay, self.repair_delay.as_ref());
        set(&mut config.balance_interval, self.balance_interval.as_ref());
        set(&mut config.trim_delay, self.trim_delay.as_ref());
        set(&mut config.drain_timeout, self.drain_timeout.as_ref());
        set(&mut config.disk_high, self.disk_high.as_ref());
        set(&mut config.disk_low, self.disk_low.as_ref());
        set(&mut config.hot_rate, self.hot_rate.as_ref());
        set(&mut config.hot_replicas, self.hot_replicas.as_ref());
        set(&mut config.hot_hold, self.hot_hold.as_ref());
        set(&mut config.attempts, self.attempts.as_ref());
        set(&mut config.profile, self.profile.map(Profile::from).as_ref());
        config.check().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(config)
    }

    /// The name, or the machine's.
    pub(crate) fn node_name(&self) -> Result<NodeName, Failure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => rustix::system::uname().nodename().to_string_lossy().to_lowercase(),
        };
        NodeName::new(&name).map_err(|error| Failure::Usage(format!("{error}; choose one with --name")))
    }

    /// What the node proves its membership with.
    pub(crate) fn credentials(&self) -> Result<Credentials, Failure> {
        let wrong = |what: &str| Err(Failure::Usage(what.to_owned()));
        let key = (self.cluster_key.as_ref(), self.cluster_key_file.as_ref());
        match (key, (&self.tls_cert, &self.tls_key, &self.tls_ca)) {
            ((None, None), (Some(certificate), Some(key), Some(authority))) => Ok(Credentials::Pem {
                certificate: certificate.clone(),
                key: key.clone(),
                authority: authority.clone(),
            }),
            ((None, None), (None, None, None)) => wrong(
                "a node has to prove that it belongs to the cluster: give --cluster-key-file (make one with \
                 `datad-gossip keygen`), DATAD_CLUSTER_KEY, or --tls-cert, --tls-key and --tls-ca",
            ),
            ((None, None), _) => wrong("--tls-cert, --tls-key and --tls-ca belong together"),
            ((Some(_), Some(_)), _) => wrong("give a cluster key or a file with one, not both"),
            (_, (None, None, None)) => self.cluster_key(),
            _ => wrong("give a cluster key or --tls-cert, --tls-key and --tls-ca, not both"),
        }
    }

    fn cluster_key(&self) -> Result<Credentials, Failure> {
        let text = match &self.cluster_key_file {
            Some(path) => read_secret(path)?,
            None => self.cluster_key.clone().unwrap_or_default(),
        };
        Ok(Credentials::ClusterKey(ClusterKey::parse(&text).map_err(anyhow::Error::from)?))
    }

    pub(crate) fn origin(&self) -> Result<Origin, Failure> {
        self.provider.origin()
    }

    /// Files that must never be served, should they lie among the data.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &PathBuf> {
        let secrets = [&self.cluster_key_file, &self.tls_key, &self.admin_token_file].into_iter().flatten();
        #[cfg(feature = "etcd")]
        let secrets = secrets.chain(self.etcd.secrets());
        secrets
    }
}

/// Reads a file that holds a secret.
pub(crate) fn read_secret(path: &std::path::Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))
}

/// All names that a file may use.
fn names() -> Vec<String> {
    let options = Settings::augment_args(Command::new("names"));
    options.get_arguments().map(|option| option.get_id().as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(arguments: &[&str]) -> Settings {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            settings: Settings,
        }
        <Line as clap::Parser>::try_parse_from(std::iter::once(&"x").chain(arguments)).unwrap().settings
    }

    fn merged(arguments: &[&str], file: &str) -> Settings {
        said(arguments).over_file(file).unwrap()
    }

    #[test]
    fn flags_overrule_the_file_one_by_one() {
        let file = "name = \"a\"\nreplicas = 3\nrepair-delay = \"2s\"\nseeds = [\"x:1\"]\nfiles = \"/srv\"\n";
        let settings = merged(&["--replicas", "1", "--weight", "50"], file);
        let config = settings.node_config().unwrap();
        assert_eq!((config.replicas, config.weight, config.repair_delay), (1, 50, Duration::from_secs(2)));
        assert_eq!(config.seeds, ["x:1"]);
        assert_eq!(settings.node_name().unwrap().as_str(), "a");
        assert_eq!(settings.origin().unwrap(), Origin::Files { source: "/srv".into(), key_depth: None });
    }

    #[test]
    fn freshness_and_limits_read_the_same_in_a_file_and_on_the_command_line() {
        let file = r#"
            [refresh]
            "" = { interval = "1h", min = "5m", max = "1day" }
            "github.com/" = { interval = "10m" }
            [upstreams]
            "github.com/" = { concurrency = 4, per_second = 0.5 }
            "gitlab.com/" = { per_second = 2.0 }
        "#;
        let arguments = [
            "--refresh",
            "1h:5m..1d,github.com/=10m",
            "--upstreams",
            "github.com/=4@0.5",
            "--upstreams",
            "gitlab.com/=@2",
        ];
        let said = merged(&arguments, "").node_config().unwrap();
        assert_eq!(said, merged(&[], file).node_config().unwrap());
        assert_eq!((said.refresh.len(), said.upstreams.len()), (2, 2));
        assert_eq!(said, merged(&arguments, "refresh = { x = { interval = \"1s\" } }").node_config().unwrap());
        for wrong in ["soon", "a=1h:5m", "a=1h:5m..soon"] {
            assert!(parse_refresh(wrong).is_err(), "{wrong}");
        }
        for wrong in ["a=many", "a=1@often"] {
            assert!(parse_upstream(wrong).is_err(), "{wrong}");
        }
        let refused = merged(&["--refresh", "1h:2h..3h"], "").node_config();
        assert!(matches!(refused, Err(Failure::Usage(_))));
    }

    #[test]
    fn whoever_chooses_the_data_or_the_membership_overrules_all_of_it() {
        let file =
            "files = \"/srv\"\nkey_depth = 2\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_ca = \"a\"\nseed = [\"x:1\"]";
        let key = "0".repeat(64);
        let settings = merged(&["--git", "https://{key}.git", "--cluster-key", &key, "--seed", "y:2,z:3"], file);
        assert_eq!(settings.origin().unwrap(), Origin::Git { template: "https://{key}.git".into() });
        assert!(matches!(settings.credentials().unwrap(), Credentials::ClusterKey(_)));
        assert_eq!(settings.seeds.unwrap(), ["y:2", "z:3"]);
    }

    #[test]
    fn a_file_may_hold_every_setting_of_a_node() {
        let mut table = toml::Table::try_from(NodeConfig::default()).unwrap();
        table.insert("advertise".into(), "192.0.2.1:1".into());
        let settings = merged(&[], &table.to_string());
        let mut expected = NodeConfig::default();
        expected.advertise = Some("192.0.2.1:1".parse().unwrap());
        assert_eq!(settings.node_config().unwrap(), expected);
    }

    #[test]
    fn a_file_may_hold_nothing_else() {
        let error = said(&[]).over_file("replica = 3").err().unwrap().to_string();
        assert!(error.contains("`replica`") && error.contains("replicas"), "{error}");
        assert!(said(&[]).over_file("replicas = \"many\"").is_err());
        assert!(said(&[]).over_file("replicas").is_err());
    }

    #[test]
    fn what_is_missing_or_out_of_range_is_wrong_usage() {
        assert!(matches!(said(&[]).credentials(), Err(Failure::Usage(_))));
        assert!(matches!(said(&["--tls-cert", "c"]).credentials(), Err(Failure::Usage(_))));
        assert!(matches!(said(&["--replicas", "0"]).node_config(), Err(Failure::Usage(_))));
        assert!(matches!(said(&["--name", "Not A Name"]).node_name(), Err(Failure::Usage(_))));
        assert!(matches!(said(&["--cluster-key", "abc"]).credentials(), Err(Failure::Failed(_))));
    }
}
