//! 12: once healed, the core sees the same members, the nodes of the core alive and on the ring and no others, and the same
//! holders of every key. An observer sees itself besides, and no other node lists it.

use std::collections::BTreeSet;

use datad_gossip::key::NodeName;

use crate::model::{CoreSeen, Violation};

/// Compares what the nodes see.
///
/// # Errors
/// They do not agree yet.
pub fn check(core: &CoreSeen) -> Result<(), Violation> {
    let behind = |detail: String| Err(Violation::liveness(12, detail));
    let (nodes, keys) = (&core.nodes, &core.keys);
    let mut first = None;
    for node in core.all()? {
        let (name, view) = (&node.name, &node.view);
        if view.ring().nodes() != *nodes {
            return behind(format!("the ring of {name} is {:?}, the core is {nodes:?}", view.ring().nodes()));
        }
        let alive: BTreeSet<&NodeName> = view.alive().map(|member| &member.name).collect();
        let expected: BTreeSet<&NodeName> = nodes.iter().chain([name]).collect();
        if alive != expected {
            return behind(format!("{name} sees {alive:?} alive, the core is {nodes:?}"));
        }
        let others = view.alive().filter(|member| !member.observer);
        let members: Vec<_> = others.map(|member| (member.name.clone(), member.incarnation)).collect();
        let holders: Vec<_> = node.located.iter().map(|located| &located.holders).collect();
        let (members_of_first, holders_of_first) = first.get_or_insert_with(|| (members.clone(), holders.clone()));
        if *members_of_first != members {
            return behind(format!("{name} sees {members:?}, another {members_of_first:?}"));
        }
        if let Some(at) = (0..keys.len()).find(|&at| holders_of_first[at] != holders[at]) {
            let (key, here, there) = (&keys[at], &holders[at], &holders_of_first[at]);
            return behind(format!("{name} sees {here:?} of {key}, another {there:?}"));
        }
    }
    Ok(())
}
