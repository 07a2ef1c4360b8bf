//! From settings to a running node.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ractor::Actor;
use tokio::{sync::watch, time::Instant};
use tracing::info;

use super::{
    AdvertiseError, Node, advertise,
    coordination::Coordination,
    inbound::Answers,
    incarnation,
    supervisor::{self, Supervisor},
};
use crate::{
    client::Client,
    config::{ConfigError, NodeConfig},
    key::NodeName,
    membership::{Member, MemberState, View},
    net::{
        Inbound, Net,
        identity::{Credentials, Identity, IdentityError},
        wire::HelloRefusal,
    },
    provider::Provider,
    runtime::{Context, Shared},
    world::{Machine, World},
};

/// How long a node whose name is in use waits for its namesake to go: longer than it takes to notice that it died.
const NAME_PATIENCE: Duration = Duration::from_secs(10);

/// Why a node did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No credentials were given.
    #[error("a node needs a cluster key or a certificate")]
    NoCredentials,
    /// The credentials are no good.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The UDP address cannot be used.
    #[error("cannot listen on {listen}/udp: {error}")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// Where other nodes reach this one is not known. Set `advertise`.
    #[error(transparent)]
    Advertise(#[from] AdvertiseError),
    /// The node's own records cannot be read or written.
    #[error("cannot use the data folder: {0}")]
    Disk(std::io::Error),
    /// A live node has this name. Choose another, or stop that one.
    #[error("{0}")]
    NameInUse(String),
    /// The members serve another kind of data. Give the node the same, or another cluster key.
    #[error("{0}")]
    ServesOther(String),
    /// Etcd cannot be used.
    #[cfg(feature = "etcd")]
    #[error(transparent)]
    Etcd(#[from] crate::etcd::EtcdError),
    /// An actor did not start.
    #[error("an actor did not start: {0}")]
    Actor(String),
}

/// Settings of a node that is to be started.
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
    pub(super) fn new(name: NodeName) -> Self {
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

    /// The data source. Without one the node is an observer: it looks up and routes, and never keeps a key.
    #[must_use]
    pub fn provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Where the node keeps its own records (a few bytes). Without it, it remembers nothing over restarts.
    #[must_use]
    pub fn data_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// URL of this node's HTTP gateway, told to the others for people to read.
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

    /// Starts the node and waits until it serves: it knows what the other members hold, or found nobody to ask.
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

    /// Starts an observer, whatever provider was given: as [`Client::join`], with all that can be set here.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn join(mut self) -> Result<Client, StartError> {
        self.provider = None;
        Ok(Client::of_observer(self.start().await?))
    }

    /// As [`NodeBuilder::start`], but returns as soon as the node runs, while it may still be joining. For those who
    /// show how far it is; wait for [`Node::serving`] before relying on its answers.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn launch(self) -> Result<Node, StartError> {
        self.config.check()?;
        self.coordination.check().await?;
        let credentials = self.credentials.ok_or(StartError::NoCredentials)?;
        let identity = Identity::new(&self.name, &credentials)?;
        let world = self.world.unwrap_or_else(|| match self.folder {
            Some(folder) => Arc::new(Machine::with_folder(folder)),
            None => Arc::new(Machine::default()),
        });
        let listen = self.config.listen;
        let advertise = advertise::address(&*world, &self.config).await?;
        let bind = Net::bind(&*world, self.name.clone(), identity, listen, advertise, &self.config.profile);
        let net = bind.map_err(|error| StartError::Bind { listen, error })?;
        let incarnation = incarnation::next(&*world).await.map_err(StartError::Disk)?;
        net.reincarnate(incarnation);
        info!(node = %self.name, address = %net.advertise(), incarnation, "starting");

        let seeds = self.coordination.seeds(&self.config);
        let context = Context::new(self.name, self.config, world, self.provider);
        let (shared, coordination) = (Shared::new(context, net, seeds), self.coordination);
        let answers: Arc<dyn Inbound> = Arc::new(Answers(shared.clone()));
        shared.peers.net.serve(&answers);
        let (ended_tx, ended) = watch::channel(None);
        let http = self.http.map(|url| advertise::reachable(url, shared.peers.net.advertise().ip()));
        let arguments =
            supervisor::Arguments { shared: shared.clone(), coordination, incarnation, http, ended: ended_tx };
        let (supervisor, supervising) = Actor::spawn(None, Supervisor, arguments).await.map_err(|error| {
            shared.context.stop.cancel();
            shared.peers.net.abort();
            StartError::Actor(error.to_string())
        })?;
        Ok(Node { shared, _answers: answers, supervisor, supervising: Some(supervising), ended })
    }
}

impl Node {
    /// Waits until this node announced that it serves, unless others say that its name is taken. Cancel safe.
    ///
    /// # Errors
    /// [`StartError::NameInUse`], [`StartError::ServesOther`], or the node ended; shut it down or drop it.
    pub async fn serving(&self) -> Result<(), StartError> {
        let me = &self.shared.context.name;
        let mut refusals = self.shared.peers.net.refusals();
        let mut refused_since = None;
        loop {
            let refusal = refusals.borrow_and_update().clone();
            match refusal {
                Some(HelloRefusal::NameInUse { .. }) => {
                    let since = *refused_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= NAME_PATIENCE {
                        let refusal = refusal.map(|refusal| refusal.to_string()).unwrap_or_default();
                        return Err(StartError::NameInUse(refusal));
                    }
                }
                _ => refused_since = None,
            }
            let serving = self
                .shared
                .lookup
                .view
                .wait_for(|view| view.member(me).is_some_and(|member| member.state == MemberState::Serving));
            tokio::select! {
                _ = serving, if refused_since.is_none() => {
                    // A round of gossip later the others know it too, so that whoever was waiting for this node finds a
                    // cluster that agrees about it.
                    tokio::time::sleep(self.shared.context.config.profile.gossip_interval).await;
                    return Ok(());
                }
                others = self.others_serve_something_else() => return Err(StartError::ServesOther(others)),
                _ = refusals.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(100)), if refused_since.is_some() => {}
                reason = self.failed() => return Err(StartError::Actor(reason.to_string())),
            }
        }
    }
}

impl Node {
    /// Pending, unless this node is about to join members that serve another kind of data.
    async fn others_serve_something_else(&self) -> String {
        let me = &self.shared.context.name;
        let others = |view: &View| -> Vec<String> {
            let joins = view.member(me).is_none_or(|me| me.state == MemberState::Joining);
            let stranger = |member: &&Member| joins && member.serves_other && member.state != MemberState::Joining;
            view.alive().filter(stranger).map(|member| member.name.to_string()).collect()
        };
        let view = self.shared.lookup.view.wait_for(|view| !others(view).is_empty()).await;
        let kind = self.shared.context.provider.as_ref().and_then(|provider| provider.kind()).unwrap_or_default();
        format!(
            "this node serves {kind}, and {} something else: all nodes of a cluster have data sources of one kind, with the \
             same key depth; give this node the same, or the key of another cluster",
            others(&view).join(", ")
        )
    }

    /// Waits until this node is part of its cluster: it has met another member if it names seeds, and as many members as
    /// `expect_members` says. A node that reaches nobody serves what it has and waits here; [`Client::status`] says what
    /// for. Done at once for a first node. Cancel safe.
    ///
    /// # Errors
    /// The node ended; shut it down or drop it.
    pub async fn joined(&self) -> Result<(), StartError> {
        let mut joined = self.shared.lifecycle.joined();
        tokio::select! {
            _ = joined.wait_for(|joined| *joined) => Ok(()),
            reason = self.failed() => Err(StartError::Actor(reason.to_string())),
        }
    }
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeBuilder").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}
