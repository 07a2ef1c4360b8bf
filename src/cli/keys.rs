//! The command `keys`: which keys there are, and which lack replicas.

use clap::Args;
use datad_gossip::{api::Shortage, key::Key};
use serde_json::Value;

use super::{
    ask::{Ask, print, typed},
    endpoint::Endpoint,
    failure::Failure,
    output,
    status::{age, why},
    table::Table,
};

/// Keys that are asked for at a time.
const PAGE: usize = 10_000;

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

pub(super) async fn keys(keys: &Keys) -> Result<(), Failure> {
    if keys.under_replicated {
        return shortages(keys).await;
    }
    let mut all: Vec<Value> = Vec::new();
    each_page(&keys.ask.endpoint, &keys.prefix, |page| {
        if keys.ask.json {
            all.extend(page.iter().map(|key| Value::String(key.to_string())));
        } else if !page.is_empty() {
            output::line(&page.iter().map(Key::as_str).collect::<Vec<_>>().join("\n"))?;
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
    print(document, keys.ask.json, |shortages: &Vec<Shortage>| {
        let mut table = Table::new(&["key", "nodes", "should be", "for", "why"]);
        for shortage in shortages {
            let (ready, replicas) = (shortage.ready.to_string(), shortage.replicas.to_string());
            table.row([shortage.key.to_string(), ready, replicas, age(shortage), why(shortage)]);
        }
        table.text()
    })
}

/// Hands over all known keys that begin with `prefix`, page by page.
pub(super) async fn each_page(
    endpoint: &Endpoint,
    prefix: &str,
    mut take: impl FnMut(Vec<Key>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let limit = PAGE.to_string();
    let mut after: Option<Key> = None;
    loop {
        let mut query = vec![("prefix", prefix), ("limit", &limit)];
        query.extend(after.as_ref().map(|after| ("after", after.as_str())));
        let page: Vec<Key> = typed(endpoint.get("keys", &query).await?)?;
        after = page.last().cloned();
        let full = page.len() == PAGE;
        take(page)?;
        if !full {
            return Ok(());
        }
    }
}
