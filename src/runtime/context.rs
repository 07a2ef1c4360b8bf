//! What never changes about one node, and its tasks.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::NodeConfig,
    key::NodeName,
    provider::Provider,
    world::{World, rng},
};

/// Name, settings and surroundings of one node.
pub(crate) struct Context {
    pub(crate) name: NodeName,
    pub(crate) config: NodeConfig,
    pub(crate) world: Arc<dyn World>,
    /// Absent on an observer.
    pub(crate) provider: Option<Arc<dyn Provider>>,
    /// Cancelled when the node ends.
    pub(crate) stop: CancellationToken,
    /// The tasks that end with the node.
    pub(crate) tasks: TaskTracker,
    began: Instant,
}

impl Context {
    pub(crate) fn new(
        name: NodeName,
        config: NodeConfig,
        world: Arc<dyn World>,
        provider: Option<Arc<dyn Provider>>,
    ) -> Self {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { name, config, world, provider, stop, tasks, began: Instant::now() }
    }

    /// When the node was made.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Monotonic time since the node was made.
    pub(crate) fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    /// A generator whose numbers follow from the seed of the node's world.
    pub(crate) fn rng(&self) -> rand::rngs::StdRng {
        rng(&*self.world)
    }

    /// Spawns a task that ends when the node does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }
}
