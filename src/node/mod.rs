//! A node: its actors under a supervisor, one endpoint, one provider. This is what a program embeds.
//!
//! Life of a node: `builder` -> `start` (bind, take an incarnation, join, catch up) -> serve -> `shutdown` (say goodbye,
//! finish what is being answered, stop). A node that is dropped without `shutdown` stops at once; peers take it for
//! dead. Either way no task of it is left.

mod builder;
mod waiting;

use std::{net::SocketAddr, time::Duration};

use async_trait::async_trait;
use tracing::{debug, info};

pub use self::builder::NodeBuilder;
use crate::{
    client::{Client, Observer},
    key::NodeName,
    operations::drain,
    runtime::lifecycle::ActorKind,
    wiring::{Running, StopReason},
};

/// How long a stopping node waits for the requests that it is answering, and for its connections.
const DRAIN: Duration = Duration::from_secs(10);
/// Time between two checks whether these have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
const CLOSE: Duration = Duration::from_secs(2);

/// A running member of the cluster.
pub struct Node(Running);

impl Node {
    fn of(running: Running) -> Self {
        Self(running)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.0.shared.context.name
    }

    /// The address at which other nodes reach this node, and which they name as a seed.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.shared.peers.net.advertise()
    }

    /// A handle for asking the cluster. Cheap; it does not keep the node running.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.0.shared.clone())
    }

    /// A client that is this node. Dropping its last clone ends the node.
    fn into_client(self) -> Client {
        Client::of_observer(self.0.shared.clone(), Box::new(self))
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &std::sync::Arc<crate::runtime::Shared> {
        &self.0.shared
    }

    /// Waits until the node ends by itself, and says why. Pending for ever on a healthy node. Cancel safe.
    pub async fn failed(&self) -> StopReason {
        let mut ended = self.0.ended.clone();
        let reason = ended.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Announces that this node is about to stop and will be back soon, and has others copy what only it holds, for at most
    /// `patience` (none: nothing is copied). It keeps its place on the ring for `repair_delay`, so that its return costs
    /// nothing, and goes on answering until [`Node::shutdown`]. To take a node away for good, drain it
    /// ([`Client::drain`]).
    ///
    /// Cancelling leaves the node announced as leaving.
    pub async fn retire(&self, patience: Duration) {
        drain::retire(&self.0.shared, patience).await;
    }

    /// Says goodbye until soon (for good, if the node was drained), finishes the requests that it
    /// is answering within limits, and stops. The local data stays where it is.
    pub async fn shutdown(mut self) {
        info!(node = %self.0.shared.context.name, "stopping");
        drain::say_goodbye(&self.0.shared).await;
        self.finish_requests().await;
        self.0.shared.context.stop.cancel();
        self.0.supervisor.stop(None);
        if let Some(supervising) = self.0.supervising.take() {
            let _ = tokio::time::timeout(CLOSE, supervising).await;
        }
        self.0.shared.context.tasks.close();
        let _ = tokio::time::timeout(CLOSE, self.0.shared.context.tasks.wait()).await;
        self.0.shared.peers.net.close(CLOSE).await;
        debug!(node = %self.0.shared.context.name, "stopped");
    }

    async fn finish_requests(&self) {
        let busy = || self.0.shared.admission.taken();
        if busy() > 0 {
            debug!(busy = busy(), "finishing requests of peers");
        }
        let idle = async {
            while busy() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(DRAIN, idle).await;
    }

    /// Makes an actor panic, for tests of recovery.
    #[doc(hidden)]
    pub fn inject_panic(&self, kind: ActorKind) {
        let ports = &self.0.shared.ports;
        let _ = match kind {
            ActorKind::Membership => ports.membership.panic(),
            ActorKind::Registry => ports.registry.panic(),
            ActorKind::Balancer => ports.balancer.panic(),
            ActorKind::Updater => ports.updater.panic(),
            ActorKind::Router => ports.router.panic(),
            ActorKind::Refresher => ports.refresher.panic(),
            ActorKind::Catalog => ports.catalog.panic(),
        };
    }
}

#[async_trait]
impl Observer for Node {
    async fn leave(self: Box<Self>) {
        self.shutdown().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.0.supervisor.kill();
        self.0.shared.context.stop.cancel();
        self.0.shared.peers.net.abort();
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.0.shared.context.name)
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}
