//! The command `plan`: what would move if members went or came.

use clap::Args;
use datad_gossip::{api, key::NodeName};

use super::{
    ask::{Ask, print},
    failure::Failure,
    table::{Table, bytes_text},
};

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

fn parse_weight(text: &str) -> Result<(NodeName, u32), String> {
    let pair = text.split_once('=').ok_or("it looks like node-4=100")?;
    let name = NodeName::new(pair.0).map_err(|error| error.to_string())?;
    let weight = pair.1.parse().ok().filter(|weight| *weight <= 1_000).ok_or("a weight is 0 to 1000")?;
    Ok((name, weight))
}

pub(super) async fn plan(plan: &Plan) -> Result<(), Failure> {
    if plan.without.is_empty() && plan.with.is_empty() {
        return Err(Failure::Usage("say who goes (--without) or who comes (--with)".into()));
    }
    let without = plan.without.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let with = plan.with.iter().map(|(node, weight)| format!("{node}={weight}")).collect::<Vec<_>>().join(",");
    let document = plan.ask.endpoint.get("plan", &[("without", &without), ("with", &with)]).await?;
    print(document, plan.ask.json, |forecast: &api::Plan| {
        let about = |bytes: Option<u64>| bytes.map_or_else(|| "?".into(), bytes_text);
        let mut table = Table::new(&["node", "keys now", "keys then", "copied to it", "about", "let go"]);
        for node in &forecast.nodes {
            let numbers = [node.owned_now, node.owned_then, node.gained, node.lost].map(|number| number.to_string());
            let [now, then, gained, lost] = numbers;
            table.row([node.node.clone(), now, then, gained, about(node.bytes_gained), lost]);
        }
        let api::Plan { keys, keys_moved, copies, sampled, bytes, .. } = forecast;
        let bytes = about(*bytes);
        format!(
            "{keys_moved} of {keys} keys would be copied, {copies} copies in all, about {bytes} (by the sizes of {sampled} keys)\n\n{}",
            table.text()
        )
    })
}
