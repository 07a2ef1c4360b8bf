//! The keys that only gone members have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    core::{membership::View, registry::HolderState},
    key::{Key, NodeName},
    runtime::Shared,
};

/// Keys that are looked at between two yields to other tasks.
const PAGE_KEYS: usize = 512;

/// How many keys only these members have, by member, none of which is alive; members without such keys are left out.
/// Walks over all known keys, in parts. `None` if the registry is gone.
pub(crate) async fn keys_only_with(shared: &Arc<Shared>, dead: &BTreeSet<NodeName>) -> Option<BTreeMap<NodeName, u64>> {
    let (mut counts, mut after): (BTreeMap<NodeName, u64>, Option<Key>) = (BTreeMap::new(), None);
    loop {
        let page = shared.ports.registry.keys(after, "", PAGE_KEYS).await.ok()?;
        let view = shared.lookup.view.snapshot();
        for key in page.iter().filter(|key| !shared.lookup.policy.standing(key).forgotten) {
            for name in only_with(&view, &shared.lookup.holders(key)).filter(|name| dead.contains(*name)) {
                *counts.entry(name.clone()).or_default() += 1;
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE_KEYS => after = Some(last.clone()),
            _ => return Some(counts),
        }
    }
}

/// The members that have this key, if no live member has it.
fn only_with<'a>(view: &View, claims: &'a [(NodeName, HolderState)]) -> impl Iterator<Item = &'a NodeName> + use<'a> {
    let alive = claims.iter().any(|(name, state)| *state == HolderState::Ready && view.is_alive(name));
    claims.iter().filter(move |(_, state)| !alive && state.has_it()).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::core::{
        membership::{Member, MemberState},
        placement::{Ring, RingOptions},
    };

    fn name(number: usize) -> NodeName {
        NodeName::new(format!("n{number}")).unwrap()
    }

    fn view(alive: &[bool]) -> View {
        let member = |(number, alive): (usize, &bool)| Member {
            name: name(number),
            incarnation: 1,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            http: None,
            state: if *alive { MemberState::Serving } else { MemberState::Dead },
            weight: 100,
            accepting: true,
            observer: false,
            serves_other: false,
        };
        let members = alive.iter().enumerate().map(|one| (name(one.0), member(one))).collect();
        View::new(name(0), members, Arc::new(Ring::build([], RingOptions::default())), Duration::ZERO)
    }

    proptest! {
        /// A key keeps on the list the dead members that have it, and no others; unless a live
        /// member has it, and says so itself.
        #[test]
        fn the_dead_are_missed_for_what_no_live_member_has(
            claims in proptest::collection::vec(0..5usize, 6),
            alive in proptest::collection::vec(any::<bool>(), 6),
        ) {
            use HolderState::{Failed, Fetching, Presumed, Ready};
            let states = [None, Some(Fetching), Some(Ready), Some(Failed), Some(Presumed)];
            let claims = claims.into_iter().enumerate().filter_map(|(node, claim)| Some((name(node), states[claim]?)));
            let claims: Vec<_> = claims.collect();
            let missed: Vec<NodeName> = only_with(&view(&alive), &claims).cloned().collect();
            let lives = |node: &NodeName| (0..6).any(|number| name(number) == *node && alive[number]);
            let replaced = claims.iter().any(|(node, state)| lives(node) && *state == Ready);
            for (node, state) in &claims {
                let has = matches!(state, Ready | Presumed);
                prop_assert_eq!(missed.contains(node), has && !replaced, "{} {:?}", node, state);
            }
        }
    }
}
