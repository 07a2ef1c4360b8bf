//! A new view of the members becomes the one that this node goes by.

use std::{collections::BTreeSet, sync::Arc};

use tracing::{info, warn};

use crate::{
    core::membership::{MemberState, View},
    key::Key,
    runtime::Shared,
};

/// Makes `view` the one that the node goes by, and tells the actors that have to act on it.
pub(crate) fn publish(shared: &Shared, view: View) {
    let old = shared.lookup.view.snapshot();
    log_changes(&old, &view);
    shared.lifecycle.note_members(&view);
    let moves_keys = (old.since(), old.brake()) != (view.since(), view.brake());
    shared.lookup.view.publish(Arc::new(view));
    shared.ports.registry.members_changed();
    if moves_keys {
        shared.ports.balancer.sweep();
    }
    tell_of_heat(shared, &old);
}

/// The balancer looks at keys that have become hot, or are not any more.
fn tell_of_heat(shared: &Shared, old: &View) {
    let view = shared.lookup.view.load();
    let differs = |key: &&Key| old.extra(key) != view.extra(key);
    let keys: BTreeSet<Key> =
        old.extra_replicas().keys().chain(view.extra_replicas().keys()).filter(differs).cloned().collect();
    for key in &keys {
        info!(%key, extra = view.extra(key), "a hot key has another number of extra replicas");
    }
    if !keys.is_empty() {
        shared.ports.balancer.keys_changed(keys.into_iter().collect());
    }
}

fn log_changes(old: &View, new: &View) {
    match (old.brake(), new.brake()) {
        // All these members have announced that they will be back.
        (None, Some(brake)) if new.members().all(|member| member.state != MemberState::Dead) => info!(
            "{} of {} members have stopped; nothing is copied on account of it until some return",
            brake.lost, brake.members
        ),
        (None, Some(brake)) => warn!(
            "{} of {} members were lost at once; nothing is copied on account of it until some return",
            brake.lost, brake.members
        ),
        (Some(_), None) => info!("so many members are not missing any more; repairs go on"),
        _ => {}
    }
    for member in new.members() {
        let before = old.member(&member.name);
        if member.serves_other && !before.is_some_and(|before| before.serves_other) {
            warn!(member = %member.name, "it serves another kind of data; neither node keeps keys of the other");
        }
        if before.map(|before| (before.state, before.incarnation)) != Some((member.state, member.incarnation)) {
            let was = before.map(|before| before.state);
            match member.state {
                MemberState::Dead => warn!(member = %member.name, "member is dead"),
                state => info!(member = %member.name, ?state, ?was, incarnation = member.incarnation, "member changed"),
            }
        } else if before.is_some_and(|before| before.accepting != member.accepting) {
            info!(member = %member.name, accepting = member.accepting, "member changed its mind about new keys");
        }
    }
}
