//! The settings that are the library's own: each field of [`NodeConfig`] is a flag and a variable of the same name.
//!
//! Nothing here is read one by one. What was said is written as a table, and [`NodeConfig`] is read from that, so a
//! field that has a flag cannot be forgotten on the way.
//!
//! [`NodeConfig`]: datad_gossip::config::NodeConfig

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use clap::Args;
use datad_gossip::config::{LastCopies, ProfileName, RefreshPolicy, UpstreamLimit};
use serde::{Deserialize, Serialize, Serializer, de::IntoDeserializer};

#[derive(Args, Clone, Default, Serialize)]
pub(crate) struct NodeOptions {
    /// UDP address for the other nodes. Port 8400 of all interfaces, if not given
    #[arg(long, env = "DATAD_LISTEN", value_name = "UDP")]
    listen: Option<SocketAddr>,
    /// UDP address that the other nodes use, where it is not the one listened on. Where that is every interface, the address
    /// of this machine that leads to the seeds, if not given
    #[arg(long, env = "DATAD_ADVERTISE", value_name = "UDP")]
    advertise: Option<SocketAddr>,
    /// `host:port` of another node; give it several times, or with commas. None: the first node of a cluster
    #[arg(long = "seed", env = "DATAD_SEED", value_name = "ADDR", value_delimiter = ',')]
    seeds: Option<Vec<String>>,
    /// Live members, this node included, that a started node waits for before it says that it is ready. None, if not given
    #[arg(long, env = "DATAD_EXPECT_MEMBERS", value_name = "N")]
    expect_members: Option<usize>,

    /// How many nodes keep each key, 1 to 8; the same on all nodes. 2, if not given
    #[arg(long, env = "DATAD_REPLICAS", value_name = "R", help_heading = "Tuning")]
    replicas: Option<usize>,
    /// `PREFIX=R`: how many nodes keep the keys that begin so, where it is not --replicas; the same on all nodes. Give it
    /// several times, or with commas; in a file, a table
    #[arg(long = "prefix-replicas", env = "DATAD_PREFIX_REPLICAS", value_name = "PREFIX=R", value_delimiter = ',')]
    #[arg(value_parser = parse_prefix, help_heading = "Tuning")]
    #[serde(serialize_with = "as_table")]
    prefix_replicas: Option<Vec<(String, usize)>>,
    /// Share of the keys, relative to the other nodes, 0 to 1000. 100, if not given
    #[arg(long, env = "DATAD_WEIGHT", value_name = "N", help_heading = "Tuning")]
    weight: Option<u32>,
    /// Updates that run at once, 1 to 1024. 4, if not given
    #[arg(long, env = "DATAD_UPDATERS", value_name = "U", help_heading = "Tuning")]
    updaters: Option<usize>,
    /// Of the updates, how many restore or move replicas at once, 1 to 1024. 3, if not given; one is left to requests
    #[arg(long, env = "DATAD_REPAIRS", value_name = "N", help_heading = "Tuning")]
    repairs: Option<usize>,
    /// Bytes per second that are copied from other nodes to restore or move replicas. No limit, if not given or 0
    #[arg(long, env = "DATAD_REPAIR_BYTES_PER_SECOND", value_name = "N", help_heading = "Tuning")]
    repair_bytes_per_second: Option<u64>,
    /// Updates that wait. 10000, if not given
    #[arg(long, env = "DATAD_UPDATE_QUEUE", value_name = "N", help_heading = "Tuning")]
    update_queue: Option<usize>,
    /// How long an update may run without any progress. 10m, if not given
    #[arg(long, env = "DATAD_UPDATE_TIMEOUT", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    update_timeout: Option<Duration>,
    /// How long a request waits for a key that is being fetched. 60s, if not given
    #[arg(long, env = "DATAD_REQUEST_PATIENCE", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    request_patience: Option<Duration>,
    /// How long a fetch that no request waits for any more may stand still. 30s, if not given
    #[arg(long, env = "DATAD_STALLED_FETCH_PATIENCE", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    stalled_fetch_patience: Option<Duration>,
    /// How long it is remembered that the origin has no such key, or refuses it. 30s, if not given
    #[arg(long, env = "DATAD_NOT_FOUND_TTL", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    not_found_ttl: Option<Duration>,
    /// How long a node has to be dead before its keys are copied to others. 60s, if not given
    #[arg(long, env = "DATAD_REPAIR_DELAY", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    repair_delay: Option<Duration>,
    /// How long a member that died stays on the list, longer if only it has some key. 7days, if not given
    #[arg(long, env = "DATAD_DEAD_KEPT", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    dead_kept: Option<Duration>,
    /// When more than this share of the members is lost at once, nothing is copied on account of it, 0.0 to 1.0. 0.5, if
    /// not given
    #[arg(long, env = "DATAD_MASS_FAILURE_SHARE", value_name = "SHARE", help_heading = "Tuning")]
    mass_failure_share: Option<f64>,
    /// How long a loss counts towards that share, and repairs hold back at most. 30m, if not given
    #[arg(long, env = "DATAD_MASS_FAILURE_PAUSE", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    mass_failure_pause: Option<Duration>,
    /// `PREFIX=TIME`: how often the origin of held keys that begin so is asked for news; without a prefix, of all keys; the
    /// same on all nodes. `1h:5m..1d` goes down to 5m for keys that change, and up to 1d for others. Give it several times,
    /// or with commas; in a file, a table. If not given, `5m:1m..1h` with --git, and never with --files; `0s` is never
    #[arg(long, env = "DATAD_REFRESH", value_name = "PREFIX=TIME", value_delimiter = ',')]
    #[arg(value_parser = parse_refresh, help_heading = "Tuning")]
    #[serde(serialize_with = "as_table")]
    refresh: Option<Vec<(String, RefreshPolicy)>>,
    /// `PREFIX=N`, `PREFIX=N@RATE`, `PREFIX=@RATE`: how many updates of this node ask the origin of keys that begin so at
    /// once, and how many begin to in a second. Give it several times, or with commas; in a file, a table. No limit, if not
    /// given
    #[arg(long, env = "DATAD_UPSTREAMS", value_name = "PREFIX=LIMIT", value_delimiter = ',')]
    #[arg(value_parser = parse_upstream, help_heading = "Tuning")]
    #[serde(serialize_with = "as_table")]
    upstreams: Option<Vec<(String, UpstreamLimit)>>,
    /// How often a node goes through all keys. 5m, if not given
    #[arg(long, env = "DATAD_BALANCE_INTERVAL", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    balance_interval: Option<Duration>,
    /// How long a surplus replica is kept. 60s, if not given
    #[arg(long, env = "DATAD_TRIM_DELAY", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    trim_delay: Option<Duration>,
    /// How long a node that is asked to stop hands over what only it holds. 10s, if not given; 0s hands over nothing
    #[arg(long, env = "DATAD_DRAIN_TIMEOUT", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    drain_timeout: Option<Duration>,
    /// Share of the disk above which the node takes no new keys and gives up copies that others have too. 0.9, if not given
    #[arg(long, env = "DATAD_DISK_HIGH", value_name = "SHARE", help_heading = "Tuning")]
    disk_high: Option<f64>,
    /// Share of the disk below which it takes new keys again. 0.8, if not given
    #[arg(long, env = "DATAD_DISK_LOW", value_name = "SHARE", help_heading = "Tuning")]
    disk_low: Option<f64>,
    /// What becomes of the only copy of a key that is not pinned when all nodes are full: `evict` gives up what was not used for
    /// longest, if its origin still has it, `keep` refuses new keys. evict, if not given
    #[arg(long, env = "DATAD_LAST_COPIES", value_name = "WHAT", value_parser = parse_last_copies)]
    #[arg(help_heading = "Tuning")]
    last_copies: Option<LastCopies>,
    /// Requests a second for a key at one holder that make it hot: more nodes keep it for a while. 100, if not given; 0: never
    #[arg(long, env = "DATAD_HOT_RATE", value_name = "N", help_heading = "Tuning")]
    hot_rate: Option<u32>,
    /// How many nodes more than usual keep a hot key, 0 to 7. 2, if not given
    #[arg(long, env = "DATAD_HOT_REPLICAS", value_name = "N", help_heading = "Tuning")]
    hot_replicas: Option<usize>,
    /// How long a key stays hot when it is not asked for often any more. 60s, if not given
    #[arg(long, env = "DATAD_HOT_HOLD", value_name = "TIME", help_heading = "Tuning")]
    #[arg(value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    hot_hold: Option<Duration>,
    /// Attempts of one request at different nodes, 1 to 8. 3, if not given
    #[arg(long, env = "DATAD_ATTEMPTS", value_name = "N", help_heading = "Tuning")]
    attempts: Option<usize>,
    /// Pace of gossip: `local` (one machine), `lan` (one data centre) or `wan`. lan, if not given
    #[arg(long, env = "DATAD_PROFILE", value_name = "NAME", value_parser = parse_profile, help_heading = "Tuning")]
    profile: Option<ProfileName>,
}

/// Pairs on the command line are a table in a file.
fn as_table<T: Serialize, S: Serializer>(pairs: &Option<Vec<(String, T)>>, to: S) -> Result<S::Ok, S::Error> {
    let table: Option<BTreeMap<_, _>> =
        pairs.as_ref().map(|pairs| pairs.iter().map(|(prefix, value)| (prefix, value)).collect());
    table.serialize(to)
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

fn parse_last_copies(text: &str) -> Result<LastCopies, String> {
    let parsed: Result<_, serde::de::value::Error> = LastCopies::deserialize(text.into_deserializer());
    parsed.map_err(|_| "it is evict or keep".to_owned())
}

fn parse_profile(text: &str) -> Result<ProfileName, String> {
    let parsed: Result<_, serde::de::value::Error> = ProfileName::deserialize(text.into_deserializer());
    parsed.map_err(|_| "it is local, lan or wan".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_wrong_is_refused_where_it_is_said() {
        for wrong in ["soon", "a=1h:5m", "a=1h:5m..soon"] {
            assert!(parse_refresh(wrong).is_err(), "{wrong}");
        }
        for wrong in ["a=many", "a=1@often"] {
            assert!(parse_upstream(wrong).is_err(), "{wrong}");
        }
        assert!(parse_prefix("a=many").is_err() && parse_profile("moon").is_err());
        assert!(parse_last_copies("lose").is_err());
    }
}
