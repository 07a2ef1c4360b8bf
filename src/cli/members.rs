//! The command `members`: who is in the cluster, and taking one off the list that is gone for good.

use clap::Args;
use datad_gossip::{
    api::{Member, RemovedMember},
    key::NodeName,
};
use reqwest::Method;

use super::{
    ask::{Ask, print},
    endpoint::Admin,
    failure::Failure,
    table::{Table, yes_no},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  datad-gossip members --at http://10.0.0.1:8400
  datad-gossip members --remove node-3            a machine that will not come back; one that is alive: see drain

A member that died goes off the list by itself after --dead-kept (a week), if the others have all that it had.")]
pub(crate) struct Members {
    /// Take this member off the list, which is gone for good. What only it had is lost to the cluster, unless the origin has
    /// it; how many keys these are is said. Started again, it joins as any other
    #[arg(long, value_name = "NODE")]
    remove: Option<NodeName>,
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    admin: Admin,
}

/// Why a member is still listed, if it has been dead for long.
fn kept(member: &Member) -> Option<String> {
    let Member { name, only_there, .. } = member;
    let keys = (*only_there)?;
    Some(format!("{name} stays listed: {keys} keys are only there; give them up with `members --remove {name}`"))
}

pub(super) async fn members(members: &Members) -> Result<(), Failure> {
    if let Some(name) = &members.remove {
        return remove(members, name).await;
    }
    let document = members.ask.endpoint.get("members", &[]).await?;
    print(document, members.ask.json, |listed: &Vec<Member>| {
        let mut table = Table::new(&["name", "state", "accepting", "keys", "address", "http"]);
        for member in listed {
            table.row([
                member.name.to_string(),
                member.state.to_string(),
                yes_no(member.accepting),
                member.keys.to_string(),
                member.address.to_string(),
                member.http.clone().unwrap_or_default(),
            ]);
        }
        let lines = std::iter::once(table.text()).chain(listed.iter().filter_map(kept));
        lines.collect::<Vec<_>>().join("\n")
    })
}

async fn remove(members: &Members, name: &NodeName) -> Result<(), Failure> {
    let path = format!("members/{name}");
    let document = members.ask.endpoint.change(Method::DELETE, &path, &[], &members.admin).await?;
    print(document, members.ask.json, |removed: &RemovedMember| match removed.only_there {
        0 => format!("{} is off the list; nothing was on it alone", removed.node),
        keys => format!(
            "{} is off the list; {keys} keys were on it alone: the origin is asked for them when somebody wants them",
            removed.node
        ),
    })
}
