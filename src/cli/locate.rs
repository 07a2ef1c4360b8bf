//! Where a key is, and why.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use clap::Args;
use datad_gossip::{
    api::{Data, Explanation, Location, NodeReport},
    key::{Key, NodeName},
};

use super::{
    ask::{Ask, parse_key, print},
    endpoint::in_path,
    failure::Failure,
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

/// What a node says of itself, as a row.
fn row(report: &NodeReport) -> [String; 7] {
    let none = Data::default();
    let data = report.data.as_ref().unwrap_or(&none);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let seconds = |ms: u64| humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    let updated = data.updated_ms.map(|ms| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        humantime::format_rfc3339_seconds(at).to_string()
    });
    let intends = match (&report.intention.waits_for, &*report.intention.action) {
        (_, "nothing") => "nothing".to_owned(),
        (None, action) => action.to_owned(),
        (Some(why), action) => format!("{action}, but waits: {why}"),
    };
    [
        report.node.to_string(),
        or_dash(report.state.as_ref().map(ToString::to_string)),
        or_dash(data.version.clone()),
        or_dash(data.bytes.map(bytes_text)),
        or_dash(updated),
        or_dash(report.refresh_in_ms.map(|ms| format!("in {}", seconds(ms)))),
        intends,
    ]
}

async fn explain(locate: &Locate) -> Result<(), Failure> {
    let path = format!("locate/{}", in_path(&locate.key));
    let document = locate.ask.endpoint.get(&path, &[("explain", "true")]).await?;
    print(document, locate.ask.json, |found: &Explanation| {
        let hot = if found.extra > 0 { format!(", {} of them because it is hot", found.extra) } else { String::new() };
        let wanted = format!("{} ({}{hot})", found.replicas, found.replicas_from);
        let mut parts = vec![Table::of_pairs([("key", found.key.to_string()), ("replicas", wanted)]).text()];
        let mut ring = Table::new(&["ring", "owner", "why"]);
        for place in &found.places {
            ring.row([place.node.to_string(), yes_no(place.owner), place.why.clone()]);
        }
        parts.push(ring.text());
        let mut nodes = Table::new(&["node", "state", "version", "size", "updated", "refresh", "intends to"]);
        for node in &found.nodes {
            nodes.row(row(node));
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
    print(document, locate.ask.json, |location: &Location| {
        let pairs = [
            ("key", location.key.to_string()),
            ("owners", location.owners.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ")),
            ("pinned", yes_no(location.pinned)),
        ];
        let head = Table::of_pairs(pairs).text();
        if location.holders.is_empty() {
            return format!("{head}\n\nNobody has it; the first request for it fetches it.");
        }
        let mut table = Table::new(&["node", "state"]);
        for holding in &location.holders {
            table.row([holding.node.to_string(), holding.state.to_string()]);
        }
        format!("{head}\n\n{}", table.text())
    })
}
