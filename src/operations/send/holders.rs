//! The holders of a key, and which of them can be reached again.

use crate::{
    key::{Key, NodeName},
    operations::ensure::RETRY,
    runtime::Shared,
};

/// Live nodes that have `key`, or are presumed to.
pub(super) fn holders(shared: &Shared, key: &Key) -> Vec<NodeName> {
    shared.lookup.live_holders(key).into_iter().filter(|(_, state)| state.has_it()).map(|(name, _)| name).collect()
}

/// Waits until this node has a connection to a holder of `key` that is among `unanswered`: a fetch may take much longer than
/// a link stays cut.
pub(super) async fn until_reachable(shared: &Shared, key: &Key, unanswered: &[NodeName]) -> Vec<NodeName> {
    loop {
        tokio::time::sleep(RETRY).await;
        let view = shared.lookup.view.load();
        let is_connected = |name: &NodeName| {
            view.member(name).is_some_and(|member| shared.peers.net.is_connected(member.address))
                || *name == shared.context.name
        };
        let mut found = holders(shared, key);
        found.retain(|name| unanswered.contains(name) && is_connected(name));
        if !found.is_empty() {
            return found;
        }
    }
}
