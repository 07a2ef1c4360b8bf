//! The commands that say what the cluster is to keep: `pin`, `unpin`, `forget`, and `pins`, which lists them.

use clap::Args;
use datad_gossip::{
    api::{IntentAck, Pin},
    key::{Key, NodeName},
};
use reqwest::Method;
use serde_json::Value;

use super::{
    ask::{Ask, parse_key, print},
    endpoint::{Admin, in_path},
    failure::Failure,
    table::Table,
};

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

/// Shows which members have written it down. A member that has not is not a failure: the intent is
/// durable, and gets there.
fn recorded(ask: &Ask, document: Value) -> Result<(), Failure> {
    print(document, ask.json, |recorded: &IntentAck| {
        let mut lines = vec![format!(
            "recorded by {}",
            recorded.confirmed.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ")
        )];
        lines.extend(recorded.lacking.iter().map(|lacking| format!("not yet by {}: {}", lacking.node, lacking.reason)));
        lines.join("\n")
    })
}

pub(super) async fn pins(ask: &Ask) -> Result<(), Failure> {
    let document = ask.endpoint.get("pins", &[]).await?;
    print(document, ask.json, |pins: &Vec<Pin>| {
        let mut table = Table::new(&["key", "replicas"]);
        for pin in pins {
            table.row([pin.key.to_string(), pin.replicas.to_string()]);
        }
        table.text()
    })
}
