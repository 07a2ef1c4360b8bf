//! The command `drain`: taking a node out of service.

use std::time::Duration;

use clap::Args;
use datad_gossip::{
    api::{Drained, Status},
    key::{Key, NodeName},
};
use reqwest::Method;

use super::{
    ask::{Ask, print, typed},
    endpoint::Admin,
    failure::Failure,
};

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

pub(super) async fn drain(drain: &Drain) -> Result<(), Failure> {
    let node = match &drain.node {
        Some(node) => node.clone(),
        None => typed::<Status>(drain.ask.endpoint.get("status", &[]).await?)?.node,
    };
    let timeout = drain.timeout.map(|timeout| humantime::format_duration(timeout).to_string());
    let mut query: Vec<(&str, &str)> = timeout.as_deref().map(|timeout| ("timeout", timeout)).into_iter().collect();
    if drain.force {
        query.push(("force", "true"));
    }
    let path = format!("members/{node}/drain");
    let document = drain.ask.endpoint.change(Method::POST, &path, &query, &drain.admin).await?;
    print(document, drain.ask.json, |drained: &Drained| match drained.remaining {
        0 => format!("{} has left; nothing was on it alone", drained.node),
        keys => {
            let some = drained.keys.iter().map(Key::as_str).collect::<Vec<_>>().join(" ");
            format!("{} has left; {keys} keys are not to be had now: {some}", drained.node)
        }
    })
}
