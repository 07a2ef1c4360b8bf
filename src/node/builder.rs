//! From settings to a running node.

use std::{path::PathBuf, sync::Arc};

use super::Node;
use crate::{
    client::Client,
    config::NodeConfig,
    key::NodeName,
    net::identity::Credentials,
    provider::Provider,
    wiring::{Coordination, Plan, StartError},
    world::{Machine, World},
};

/// Settings of a node that is to start.
pub struct NodeBuilder {
    name: NodeName,
    config: NodeConfig,
    coordination: Coordination,
    credentials: Option<Credentials>,
    provider: Option<Arc<dyn Provider>>,
    world: Option<Arc<dyn World>>,
    folder: Option<PathBuf>,
    http: Option<String>,
}

impl NodeBuilder {
    fn new(name: NodeName) -> Self {
        Self {
            name,
            config: NodeConfig::default(),
            coordination: Coordination::default(),
            credentials: None,
            provider: None,
            world: None,
            folder: None,
            http: None,
        }
    }

    /// Replaces the default settings.
    #[must_use]
    pub fn config(mut self, config: NodeConfig) -> Self {
        self.config = config;
        self
    }

    /// Coordinates the cluster through this etcd instead of gossip; the same for all its nodes. Seeds are not needed then.
    #[cfg(feature = "etcd")]
    #[must_use]
    pub fn etcd(mut self, etcd: crate::etcd::EtcdConfig) -> Self {
        self.coordination = Coordination::Etcd(etcd);
        self
    }

    /// How the node proves that it belongs to the cluster.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// The provider. A node without one is an observer: it looks up and routes, and never keeps a
    /// key.
    #[must_use]
    pub fn provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Where the node keeps its own records (a few bytes). A node without a folder remembers
    /// nothing over restarts.
    #[must_use]
    pub fn data_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// URL of this node's HTTP gateway, which the node tells the others for operators to read.
    #[must_use]
    pub fn advertise_http(mut self, url: impl Into<String>) -> Self {
        self.http = Some(url.into());
        self
    }

    /// Replaces the machine below the node; for simulators.
    #[must_use]
    pub fn world(mut self, world: Arc<dyn World>) -> Self {
        self.world = Some(world);
        self
    }

    /// Starts the node and waits until it serves: it knows what the other members hold, or has
    /// found no member to ask.
    ///
    /// Cancelling leaves nothing running.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(self) -> Result<Node, StartError> {
        let node = self.launch().await?;
        node.serving().await?;
        Ok(node)
    }

    /// Starts an observer, whatever provider the builder has: as [`Client::join`], with all
    /// settings of the builder.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn join(mut self) -> Result<Client, StartError> {
        self.provider = None;
        Ok(self.start().await?.into_client())
    }

    /// As [`NodeBuilder::start`], but returns as soon as the node runs, while it may still be
    /// joining. For programs that show the progress of joining; wait for [`Node::serving`] before
    /// relying on the node's answers.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn launch(self) -> Result<Node, StartError> {
        let Self { name, config, coordination, credentials, provider, world, folder, http } = self;
        let world = world.unwrap_or_else(|| match folder {
            Some(folder) => Arc::new(Machine::with_folder(folder)),
            None => Arc::new(Machine::default()),
        });
        let plan = Plan { name, config, coordination, credentials, provider, world, http };
        Ok(Node::of(plan.launch().await?))
    }
}

impl Node {
    /// Begins to set up a node of this name.
    #[must_use]
    pub fn builder(name: NodeName) -> NodeBuilder {
        NodeBuilder::new(name)
    }
}

impl Client {
    /// Joins the cluster as an observer, which only consumes: it has the same local lookup and never owns a key. It follows
    /// the view of two members over a stream each instead of gossiping, so there may be thousands. The members do not list
    /// it, but its name has to be one that neither a member nor another observer has. It leaves when the last clone of the
    /// client is dropped, or with [`Client::leave`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn join(name: NodeName, credentials: Credentials, config: NodeConfig) -> Result<Self, StartError> {
        Node::builder(name).credentials(credentials).config(config).join().await
    }
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeBuilder").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}
