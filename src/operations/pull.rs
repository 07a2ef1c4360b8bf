//! Reads the ledgers of other members, and serves this node's.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use tracing::debug;

use crate::{
    core::registry::{Delta, Position, Version},
    key::NodeName,
    net::{CallError, wire::calls::Pull},
    runtime::Shared,
};

const PULL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a member has to tell all that it has published, when all are asked.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
/// How long changes of this node's ledger are gathered before followers are told.
const FEED_DELAY: Duration = Duration::from_millis(5);

/// Takes in all that `relay` knows of `name`'s ledger beyond what is known here. If it ends early,
/// the claims that came stay.
pub(crate) async fn pull_through(shared: &Arc<Shared>, name: &NodeName, relay: &NodeName) -> Result<(), CallError> {
    let gone = |_| CallError::Broken("the registry is gone".into());
    let peer = shared.peers.peer(relay).await?;
    loop {
        let position = shared.ports.ledgers.position_of(name.clone()).await.map_err(gone)?;
        let request = Pull { node: name.clone(), position };
        let Some(delta) = peer.call(request, PULL_TIMEOUT).await? else { return Ok(()) };
        debug!(member = %name, %relay, changes = delta.changes.len(), "a part of its ledger was pulled");
        if !shared.ports.ledgers.received(name.clone(), delta).await.map_err(gone)? {
            return Err(CallError::Broken("it does not continue what is known".into()));
        }
    }
}

/// Takes in what every live member has published up to now.
pub(crate) async fn sync(shared: &Arc<Shared>) {
    let view = shared.lookup.view.snapshot();
    let others = view.alive().filter(|member| member.name != shared.context.name && !member.observer);
    let syncs = others.map(|member| async {
        let _ = tokio::time::timeout(SYNC_TIMEOUT, pull_through(shared, &member.name, &member.name)).await;
    });
    futures::future::join_all(syncs).await;
}

/// This node's ledger from `position` on, for a follower: first the present claims, then every
/// change.
pub(crate) fn feed(shared: Arc<Shared>, position: Position) -> BoxStream<'static, Delta> {
    let versions = shared.gossip.ledger_version.subscribe();
    let steps =
        futures::stream::unfold((shared, position, versions), |(shared, mut position, mut versions)| async move {
            loop {
                versions.borrow_and_update();
                if let Some(delta) = shared.ports.ledgers.delta_since(None, position).await.ok()? {
                    position = after(position, &delta);
                    return Some((delta, (shared, position, versions)));
                }
                versions.changed().await.ok()?;
                tokio::time::sleep(FEED_DELAY).await;
            }
        });
    steps.boxed()
}

/// Where a follower at `position` is once it has applied `delta`.
fn after(position: Position, delta: &Delta) -> Position {
    let anew = delta.incarnation != position.incarnation || delta.from == Version(0);
    Position { incarnation: delta.incarnation, version: delta.to, base: if anew { delta.reach } else { position.base } }
}
