//! Where a key is, and why.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use clap::Args;
use datad_gossip::key::Key;
use serde::Deserialize;

use super::{
    Failure,
    api::in_path,
    query::{Ask, parse_key, print},
    table::{Table, bytes_text, yes_no},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  datad-gossip locate github.com/octocat/Hello-World
  datad-gossip locate github.com/octocat/Hello-World --explain")]
pub(crate) struct Locate {
    /// The key: for git the repository's path without .git, for files the file's path
    #[arg(value_name = "KEY", value_parser = parse_key)]
    key: Key,
    /// Ask the nodes concerned, and show why they own it, what they have, and what they are about to do
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Deserialize)]
struct LocationDocument {
    key: String,
    owners: Vec<String>,
    holders: Vec<HoldingDocument>,
    pinned: bool,
}

#[derive(Deserialize)]
struct HoldingDocument {
    node: String,
    state: String,
}

#[derive(Deserialize)]
struct ExplanationDocument {
    key: String,
    replicas: u64,
    replicas_from: String,
    #[serde(default)]
    extra: u64,
    places: Vec<PlaceDocument>,
    nodes: Vec<InsightDocument>,
    silent: Vec<SilentDocument>,
}

#[derive(Deserialize)]
struct PlaceDocument {
    node: String,
    owner: bool,
    why: String,
}

#[derive(Deserialize)]
struct SilentDocument {
    node: String,
    reason: String,
}

#[derive(Deserialize)]
struct InsightDocument {
    node: String,
    state: Option<String>,
    data: Option<DescriptionDocument>,
    refresh_in_ms: Option<u64>,
    intention: IntentionDocument,
    ring: u64,
}

#[derive(Deserialize, Default)]
struct DescriptionDocument {
    version: Option<String>,
    bytes: Option<u64>,
    updated_ms: Option<u64>,
}

#[derive(Deserialize)]
struct IntentionDocument {
    action: String,
    waits_for: Option<String>,
}

impl InsightDocument {
    fn row(&self) -> [String; 7] {
        let none = DescriptionDocument::default();
        let data = self.data.as_ref().unwrap_or(&none);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let seconds = |ms: u64| humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
        let updated = data.updated_ms.map(|ms| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
            humantime::format_rfc3339_seconds(at).to_string()
        });
        let intends = match (&self.intention.waits_for, self.intention.action.as_str()) {
            (_, "nothing") => "nothing".to_owned(),
            (None, action) => action.to_owned(),
            (Some(why), action) => format!("{action}, but waits: {why}"),
        };
        [
            self.node.clone(),
            or_dash(self.state.clone()),
            or_dash(data.version.clone()),
            or_dash(data.bytes.map(bytes_text)),
            or_dash(updated),
            or_dash(self.refresh_in_ms.map(|ms| format!("in {}", seconds(ms)))),
            intends,
        ]
    }
}

async fn explain(locate: &Locate) -> Result<(), Failure> {
    let path = format!("locate/{}", in_path(&locate.key));
    let document = locate.ask.endpoint.get(&path, &[("explain", "true")]).await?;
    print(document, locate.ask.json, |found: &ExplanationDocument| {
        let hot = if found.extra > 0 { format!(", {} of them because it is hot", found.extra) } else { String::new() };
        let wanted = format!("{} ({}{hot})", found.replicas, found.replicas_from);
        let mut parts = vec![Table::of_pairs([("key", found.key.clone()), ("replicas", wanted)]).text()];
        let mut ring = Table::new(&["ring", "owner", "why"]);
        for place in &found.places {
            ring.row([place.node.clone(), yes_no(place.owner), place.why.clone()]);
        }
        parts.push(ring.text());
        let mut nodes = Table::new(&["node", "state", "version", "size", "updated", "refresh", "intends to"]);
        for node in &found.nodes {
            nodes.row(node.row());
        }
        parts.push(nodes.text());
        parts.extend(found.silent.iter().map(|silent| format!("{} did not answer: {}", silent.node, silent.reason)));
        let rings: BTreeSet<u64> = found.nodes.iter().map(|node| node.ring).collect();
        if rings.len() > 1 {
            parts.push("These nodes do not know of the same members at the moment; ask again shortly.".into());
        }
        parts.join("\n\n")
    })
}

pub(super) async fn locate(locate: &Locate) -> Result<(), Failure> {
    if locate.explain {
        return explain(locate).await;
    }
    let document = locate.ask.endpoint.get(&format!("locate/{}", in_path(&locate.key)), &[]).await?;
    print(document, locate.ask.json, |location: &LocationDocument| {
        let pairs =
            [("key", location.key.clone()), ("owners", location.owners.join(" ")), ("pinned", yes_no(location.pinned))];
        let head = Table::of_pairs(pairs).text();
        if location.holders.is_empty() {
            return format!("{head}\n\nNobody has it; the first request for it fetches it.");
        }
        let mut table = Table::new(&["node", "state"]);
        for holding in &location.holders {
            table.row([holding.node.clone(), holding.state.clone()]);
        }
        format!("{head}\n\n{}", table.text())
    })
}
