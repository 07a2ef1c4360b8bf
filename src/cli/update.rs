//! The command `update`: bringing every replica of a key up to date.

use anyhow::anyhow;
use clap::Args;
use datad_gossip::{api::UpdatedKey, key::Key};
use reqwest::Method;
use serde_json::Value;

use super::{
    ask::{Ask, parse_key, print, typed},
    endpoint::{Admin, in_path},
    failure::Failure,
    table::Table,
};

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

pub(super) async fn update(update: &Update) -> Result<(), Failure> {
    let path = format!("update/{}", in_path(&update.key));
    let query: &[_] = if update.wait { &[("wait", "true")] } else { &[] };
    let document = update.ask.endpoint.change(Method::POST, &path, query, &update.admin).await?;
    if !update.wait {
        return print(document, update.ask.json, |_: &Value| {
            format!("started; see `datad-gossip locate {}`", update.key)
        });
    }
    let result: UpdatedKey = typed(document.clone())?;
    print(document, update.ask.json, |updated: &UpdatedKey| {
        let mut table = Table::new(&["node", "result"]);
        for replica in &updated.replicas {
            table.row([replica.node.to_string(), replica.error.clone().unwrap_or_else(|| "up to date".to_owned())]);
        }
        table.text()
    })?;
    match result.replicas.iter().filter(|replica| replica.error.is_some()).count() {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} of {} replicas could not be updated", result.replicas.len()).into()),
    }
}
