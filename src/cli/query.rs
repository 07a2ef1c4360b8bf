//! The commands that ask a running node, for people or, with `--json`, for programs.

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use datad_gossip::key::{Key, NodeName};
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Failure,
    api::{Admin, Endpoint, in_path},
    output,
    table::{Table, bytes_text, yes_no},
};

/// Keys that are asked for at a time.
const PAGE: usize = 10_000;

#[derive(Args)]
#[command(after_help = "Example:\n  datad-gossip status --at http://10.0.0.1:8400 --json")]
pub(crate) struct Ask {
    #[command(flatten)]
    pub(super) endpoint: Endpoint,
    /// Print one JSON document
    #[arg(long, env = "DATAD_JSON")]
    pub(super) json: bool,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  datad-gossip keys github.com/my-org/\n  datad-gossip keys --under-replicated")]
pub(crate) struct Keys {
    /// Only keys that begin so
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Only keys that fewer nodes have than should, for how long that has been so, and why; 10,000 at most
    #[arg(long)]
    under_replicated: bool,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Deserialize)]
struct ShortageDocument {
    key: String,
    replicas: u64,
    ready: u64,
    seconds: u64,
    reason: Option<String>,
}

impl ShortageDocument {
    fn age(&self) -> String {
        humantime::format_duration(Duration::from_secs(self.seconds)).to_string()
    }

    fn why(&self) -> String {
        self.reason.clone().unwrap_or_else(|| format!("not known here: locate {} --explain", self.key))
    }

    fn line(&self) -> String {
        format!("{}: {} of {} for {}: {}", self.key, self.ready, self.replicas, self.age(), self.why())
    }
}

#[derive(Args)]
#[command(after_help = "Example:\n  datad-gossip update github.com/octocat/Hello-World --wait")]
pub(crate) struct Update {
    /// The key
    #[arg(value_name = "KEY", value_parser = parse_key)]
    key: Key,
    /// Wait until it is done, and show what each node said
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  datad-gossip pin github.com/octocat/Hello-World --replicas 3
  datad-gossip pin 'github.com/my-org/*'           every repository of it that anybody has asked for")]
pub(crate) struct PinKey {
    /// The key, or a pattern: `*` is any run of characters, slashes included, `?` any single one
    #[arg(value_name = "KEY", value_parser = parse_key)]
    key: Key,
    /// How many nodes keep it, 1 to 8. As many as the settings say, if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    replicas: Option<u8>,
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Args)]
#[command(after_help = "Example:\n  datad-gossip unpin 'github.com/my-org/*'")]
pub(crate) struct UnpinKey {
    /// The key or pattern, as it was pinned
    #[arg(value_name = "KEY", value_parser = parse_key)]
    key: Key,
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Args)]
#[command(after_help = "Example:\n  datad-gossip forget github.com/octocat/Hello-World")]
pub(crate) struct ForgetKey {
    /// The key
    #[arg(value_name = "KEY", value_parser = parse_key)]
    key: Key,
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  datad-gossip plan --without node-2              what is copied if node-2 goes for good
  datad-gossip plan --with node-4=200             what a new machine of twice the usual size takes over")]
pub(crate) struct Plan {
    /// A member that goes; give it several times, or with commas
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    without: Vec<NodeName>,
    /// A member that comes, and its weight, 100 being usual; or a member that is there, with another weight
    #[arg(long, value_name = "NODE=WEIGHT", value_delimiter = ',', value_parser = parse_weight)]
    with: Vec<(NodeName, u32)>,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  datad-gossip drain --at http://10.0.0.1:8400        the node that is asked
  datad-gossip drain node-2 --timeout 10m

Afterwards the node has left the cluster; stop it, or start it again to take it back.
Exit status 1 if it is the last live holder of some keys, which are named; it then goes on draining.")]
pub(crate) struct Drain {
    /// The node; the one that is asked, if not given
    #[arg(value_name = "NODE")]
    node: Option<NodeName>,
    /// Let it leave even as the last holder of some keys, which are then not to be had until it returns
    #[arg(long)]
    force: bool,
    /// How long it hands over what only it holds. As long as its settings say, if not given
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    admin: Admin,
}

/// A key as people write it, perhaps copied from a URL: slashes at its ends do not count. The node that is asked makes the
/// rest of it what its provider knows.
pub(super) fn parse_key(text: &str) -> Result<Key, String> {
    let bare = text.strip_prefix('/').unwrap_or(text);
    Key::new(bare.trim_end_matches('/')).map_err(|error| error.to_string())
}

fn parse_weight(text: &str) -> Result<(NodeName, u32), String> {
    let pair = text.split_once('=').ok_or("it looks like node-4=100")?;
    let name = NodeName::new(pair.0).map_err(|error| error.to_string())?;
    let weight = pair.1.parse().ok().filter(|weight| *weight <= 1_000).ok_or("a weight is 0 to 1000")?;
    Ok((name, weight))
}

#[derive(Deserialize)]
struct ForecastDocument {
    keys: u64,
    keys_moved: u64,
    copies: u64,
    #[serde(default)]
    sampled: u64,
    bytes: Option<u64>,
    nodes: Vec<NodeForecastDocument>,
}

#[derive(Deserialize)]
struct NodeForecastDocument {
    node: String,
    owned_now: u64,
    owned_then: u64,
    gained: u64,
    bytes_gained: Option<u64>,
    lost: u64,
}

#[derive(Deserialize)]
struct StatusDocument {
    node: String,
    members: u64,
    keys: u64,
    under_replicated: u64,
    #[serde(default)]
    lacking: Vec<ShortageDocument>,
    #[serde(default)]
    hot: u64,
    fetching: u64,
    #[serde(default)]
    observers: u64,
    #[serde(default)]
    repairs_waiting: u64,
    #[serde(default)]
    repairs_running: u64,
    repairs_paused: Option<String>,
    scanning: Option<u64>,
    converged: bool,
    disk: Option<DiskDocument>,
    #[serde(default)]
    full: bool,
    trouble: Option<String>,
    #[serde(default)]
    seeds: Vec<SeedDocument>,
    #[serde(default)]
    clocks_apart: Vec<ClockDocument>,
    #[serde(default)]
    waiting_for: Vec<String>,
}

#[derive(Deserialize)]
struct ClockDocument {
    node: String,
    ahead_seconds: i64,
}

impl ClockDocument {
    fn text(&self) -> String {
        let far = humantime::format_duration(Duration::from_secs(self.ahead_seconds.unsigned_abs()));
        let way = if self.ahead_seconds < 0 { "behind" } else { "ahead of" };
        format!("that of {} is {far} {way} this node's", self.node)
    }
}

#[derive(Deserialize)]
struct SeedDocument {
    address: String,
    answers: bool,
    reason: Option<String>,
}

/// How many seeds answer, and a line for each that does not.
fn seed_lines(seeds: &[SeedDocument]) -> Vec<(&'static str, String)> {
    let answering = seeds.iter().filter(|seed| seed.answers).count();
    let count = (!seeds.is_empty()).then(|| ("seeds", format!("{answering} of {} answer", seeds.len())));
    let silent = seeds.iter().filter(|seed| !seed.answers);
    let silent = silent.map(|seed| ("seed", format!("{}: {}", seed.address, seed.reason.as_deref().unwrap_or("?"))));
    count.into_iter().chain(silent).collect()
}

#[derive(Deserialize)]
struct DiskDocument {
    used: u64,
    total: u64,
}

impl DiskDocument {
    fn text(&self) -> String {
        let percent = 100.0 * self.used as f64 / self.total.max(1) as f64;
        format!("{} of {} used ({percent:.0} %)", bytes_text(self.used), bytes_text(self.total))
    }
}

#[derive(Deserialize)]
struct PinDocument {
    key: String,
    replicas: u64,
}

#[derive(Deserialize)]
struct RecordedDocument {
    confirmed: Vec<String>,
    lacking: Vec<LackingDocument>,
}

#[derive(Deserialize)]
struct LackingDocument {
    node: String,
    reason: String,
}

#[derive(Deserialize)]
struct DrainedDocument {
    node: String,
    remaining: u64,
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct UpdateDocument {
    replicas: Vec<ReplicaDocument>,
}

#[derive(Deserialize)]
struct ReplicaDocument {
    node: String,
    error: Option<String>,
}

/// Prints `document`: as it is, or as `shown`.
pub(super) fn print<T: DeserializeOwned>(
    document: Value,
    json: bool,
    shown: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    if json {
        return Ok(output::line(&document.to_string())?);
    }
    let typed =
        serde_json::from_value(document).context("the node answered in a way that this version does not know")?;
    Ok(output::line(&shown(&typed))?)
}

pub(super) async fn status(ask: &Ask) -> Result<(), Failure> {
    let document = ask.endpoint.get("status", &[]).await?;
    print(document, ask.json, |status: &StatusDocument| {
        let mut pairs = vec![
            ("node", status.node.clone()),
            ("members", status.members.to_string()),
            ("keys", status.keys.to_string()),
            ("under replicated", status.under_replicated.to_string()),
            ("hot", status.hot.to_string()),
            ("fetching", status.fetching.to_string()),
            ("repairs", format!("{} running, {} waiting", status.repairs_running, status.repairs_waiting)),
            ("converged", yes_no(status.converged)),
        ];
        pairs.extend(status.lacking.iter().map(|shortage| ("lacks replicas", shortage.line())));
        pairs.extend(status.scanning.map(|found| ("reading its disk", format!("{found} keys so far"))));
        pairs.extend((status.observers > 0).then(|| ("observers", status.observers.to_string())));
        pairs.extend(status.repairs_paused.clone().map(|why| ("repairs paused", why)));
        pairs.extend(status.disk.as_ref().map(|disk| ("disk", disk.text())));
        pairs.extend(status.full.then(|| ("full", "yes: no new keys are taken here".into())));
        pairs.extend(seed_lines(&status.seeds));
        pairs.extend(status.clocks_apart.iter().map(|clock| ("clock", clock.text())));
        pairs.extend(status.waiting_for.iter().map(|what| ("waiting for", what.clone())));
        pairs.extend(status.trouble.clone().map(|trouble| ("trouble", trouble)));
        Table::of_pairs(pairs).text()
    })
}

pub(super) async fn keys(keys: &Keys) -> Result<(), Failure> {
    if keys.under_replicated {
        return shortages(keys).await;
    }
    let mut all: Vec<Value> = Vec::new();
    each_page(&keys.ask.endpoint, &keys.prefix, |page| {
        if keys.ask.json {
            all.extend(page.into_iter().map(Value::String));
        } else if !page.is_empty() {
            output::line(&page.join("\n"))?;
        }
        Ok(())
    })
    .await?;
    if keys.ask.json {
        output::line(&Value::Array(all).to_string())?;
    }
    Ok(())
}

async fn shortages(keys: &Keys) -> Result<(), Failure> {
    let limit = PAGE.to_string();
    let query = [("under_replicated", "true"), ("prefix", &keys.prefix), ("limit", &limit)];
    let document = keys.ask.endpoint.get("keys", &query).await?;
    print(document, keys.ask.json, |shortages: &Vec<ShortageDocument>| {
        let mut table = Table::new(&["key", "nodes", "should be", "for", "why"]);
        for shortage in shortages {
            let (ready, replicas) = (shortage.ready.to_string(), shortage.replicas.to_string());
            table.row([shortage.key.clone(), ready, replicas, shortage.age(), shortage.why()]);
        }
        table.text()
    })
}

/// Hands over all known keys that begin with `prefix`, page by page.
pub(super) async fn each_page(
    endpoint: &Endpoint,
    prefix: &str,
    mut take: impl FnMut(Vec<String>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let limit = PAGE.to_string();
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("prefix", prefix), ("limit", &limit)];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page: Vec<String> = serde_json::from_value(endpoint.get("keys", &query).await?)
            .context("the node answered with something that is no list of keys")?;
        after = page.last().cloned();
        let full = page.len() == PAGE;
        take(page)?;
        if !full {
            return Ok(());
        }
    }
}

pub(super) async fn update(update: &Update) -> Result<(), Failure> {
    let path = format!("update/{}", in_path(&update.key));
    let query: &[_] = if update.wait { &[("wait", "true")] } else { &[] };
    let document = update.ask.endpoint.change(Method::POST, &path, query, &update.admin).await?;
    if !update.wait {
        return print(document, update.ask.json, |_: &Value| {
            format!("started; see `datad-gossip locate {}`", update.key)
        });
    }
    let result: UpdateDocument =
        serde_json::from_value(document.clone()).context("the node's answer is not understood")?;
    print(document, update.ask.json, |updated: &UpdateDocument| {
        let mut table = Table::new(&["node", "result"]);
        for replica in &updated.replicas {
            table.row([replica.node.clone(), replica.error.clone().unwrap_or_else(|| "up to date".to_owned())]);
        }
        table.text()
    })?;
    match result.replicas.iter().filter(|replica| replica.error.is_some()).count() {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} of {} replicas could not be updated", result.replicas.len()).into()),
    }
}

pub(super) async fn pin(pin: &PinKey) -> Result<(), Failure> {
    let replicas = pin.replicas.map(|replicas| replicas.to_string());
    let query: Vec<(&str, &str)> = replicas.as_deref().map(|replicas| ("replicas", replicas)).into_iter().collect();
    let path = format!("pins/{}", in_path(&pin.key));
    recorded(&pin.ask, pin.ask.endpoint.change(Method::PUT, &path, &query, &pin.admin).await?)
}

pub(super) async fn unpin(unpin: &UnpinKey) -> Result<(), Failure> {
    let path = format!("pins/{}", in_path(&unpin.key));
    recorded(&unpin.ask, unpin.ask.endpoint.change(Method::DELETE, &path, &[], &unpin.admin).await?)
}

pub(super) async fn forget(forget: &ForgetKey) -> Result<(), Failure> {
    let path = format!("keys/{}", in_path(&forget.key));
    recorded(&forget.ask, forget.ask.endpoint.change(Method::DELETE, &path, &[], &forget.admin).await?)
}

/// Shows who has written it down. That somebody has not is no failure: it is durable, and gets there.
fn recorded(ask: &Ask, document: Value) -> Result<(), Failure> {
    print(document, ask.json, |recorded: &RecordedDocument| {
        let mut lines = vec![format!("recorded by {}", recorded.confirmed.join(" "))];
        lines.extend(recorded.lacking.iter().map(|lacking| format!("not yet by {}: {}", lacking.node, lacking.reason)));
        lines.join("\n")
    })
}

pub(super) async fn pins(ask: &Ask) -> Result<(), Failure> {
    let document = ask.endpoint.get("pins", &[]).await?;
    print(document, ask.json, |pins: &Vec<PinDocument>| {
        let mut table = Table::new(&["key", "replicas"]);
        for pin in pins {
            table.row([pin.key.clone(), pin.replicas.to_string()]);
        }
        table.text()
    })
}

pub(super) async fn plan(plan: &Plan) -> Result<(), Failure> {
    if plan.without.is_empty() && plan.with.is_empty() {
        return Err(Failure::Usage("say who goes (--without) or who comes (--with)".into()));
    }
    let without = plan.without.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let with = plan.with.iter().map(|(node, weight)| format!("{node}={weight}")).collect::<Vec<_>>().join(",");
    let document = plan.ask.endpoint.get("plan", &[("without", &without), ("with", &with)]).await?;
    print(document, plan.ask.json, |forecast: &ForecastDocument| {
        let about = |bytes: Option<u64>| bytes.map_or_else(|| "?".into(), bytes_text);
        let mut table = Table::new(&["node", "keys now", "keys then", "copied to it", "about", "let go"]);
        for node in &forecast.nodes {
            let numbers = [node.owned_now, node.owned_then, node.gained, node.lost].map(|number| number.to_string());
            let [now, then, gained, lost] = numbers;
            table.row([node.node.clone(), now, then, gained, about(node.bytes_gained), lost]);
        }
        let ForecastDocument { keys, keys_moved, copies, sampled, bytes, .. } = forecast;
        let bytes = about(*bytes);
        format!(
            "{keys_moved} of {keys} keys would be copied, {copies} copies in all, about {bytes} (by the sizes of {sampled} keys)\n\n{}",
            table.text()
        )
    })
}

pub(super) async fn drain(drain: &Drain) -> Result<(), Failure> {
    let node = match &drain.node {
        Some(node) => node.to_string(),
        None => {
            let status = drain.ask.endpoint.get("status", &[]).await?;
            let status: StatusDocument =
                serde_json::from_value(status).context("the node's answer is not understood")?;
            status.node
        }
    };
    let timeout = drain.timeout.map(|timeout| humantime::format_duration(timeout).to_string());
    let mut query: Vec<(&str, &str)> = timeout.as_deref().map(|timeout| ("timeout", timeout)).into_iter().collect();
    if drain.force {
        query.push(("force", "true"));
    }
    let path = format!("members/{node}/drain");
    let document = drain.ask.endpoint.change(Method::POST, &path, &query, &drain.admin).await?;
    print(document, drain.ask.json, |drained: &DrainedDocument| match drained.remaining {
        0 => format!("{} has left; nothing was on it alone", drained.node),
        keys => format!("{} has left; {keys} keys are not to be had now: {}", drained.node, drained.keys.join(" ")),
    })
}
