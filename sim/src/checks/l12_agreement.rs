//! 12: once healed, all nodes see the same members, all of them alive and on the ring, and the same holders of every key.

use datad_gossip::key::NodeName;

use super::Violation;
use crate::cluster::Cluster;

/// Compares what the nodes see.
///
/// # Errors
/// They do not agree yet.
pub async fn check(cluster: &Cluster) -> Result<(), Violation> {
    let behind = |detail: String| Err(Violation::liveness(12, detail));
    let names: Vec<NodeName> = cluster.machines.iter().map(|machine| machine.name.clone()).collect();
    let keys = cluster.origin.keys();
    let mut first = None;
    for machine in &cluster.machines {
        let Some(client) = machine.client() else { return behind(format!("{} is down", machine.name)) };
        let view = client.view();
        if view.ring().nodes() != names {
            return behind(format!("the ring of {} is {:?}", machine.name, view.ring().nodes()));
        }
        let members: Vec<_> = view.members().map(|member| (member.name.clone(), member.incarnation)).collect();
        let holders: Vec<Vec<_>> = keys.iter().map(|key| client.locate(key).holders).collect();
        let (members_of_first, holders_of_first) = first.get_or_insert_with(|| (members.clone(), holders.clone()));
        if *members_of_first != members {
            return behind(format!("{} sees {members:?}, another {members_of_first:?}", machine.name));
        }
        if let Some(at) = (0..keys.len()).find(|&at| holders_of_first[at] != holders[at]) {
            let (key, here, there) = (&keys[at], &holders[at], &holders_of_first[at]);
            return behind(format!("{} sees {here:?} of {key}, another {there:?}", machine.name));
        }
        let status = client.status().await;
        if !status.converged {
            return behind(format!("not converged: {status:?}"));
        }
    }
    Ok(())
}
