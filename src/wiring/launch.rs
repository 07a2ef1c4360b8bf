//! From settings to a running node.

use std::sync::Arc;

use ractor::{Actor, ActorRef};
use tokio::{sync::watch, task::JoinHandle};
use tracing::info;

use super::{
    advertise,
    coordination::Coordination,
    incarnation,
    peer_server::PeerServer,
    start_error::StartError,
    supervisor::{self, StopReason, Supervisor},
};
use crate::{
    config::NodeConfig,
    key::NodeName,
    net::{
        Net, PeerService,
        identity::{Credentials, Identity},
    },
    provider::Provider,
    runtime::{Context, Shared},
    world::World,
};

/// What a node is made of.
pub(crate) struct Plan {
    pub(crate) name: NodeName,
    pub(crate) config: NodeConfig,
    pub(crate) coordination: Coordination,
    pub(crate) credentials: Option<Credentials>,
    /// Absent on an observer.
    pub(crate) provider: Option<Arc<dyn Provider>>,
    pub(crate) world: Arc<dyn World>,
    /// URL of its HTTP gateway, for people to read.
    pub(crate) http: Option<String>,
}

/// The parts of a node that runs. Its actors end with its supervisor.
pub(crate) struct Running {
    pub(crate) shared: Arc<Shared>,
    /// What its peers are answered by: the network knows it only weakly.
    _server: Arc<dyn PeerService>,
    pub(crate) supervisor: ActorRef<()>,
    pub(crate) supervising: Option<JoinHandle<()>>,
    /// Why it ended by itself, once it has.
    pub(crate) ended: watch::Receiver<Option<StopReason>>,
}

impl Plan {
    /// Binds the socket, takes an incarnation and starts the actors. Cancelling leaves nothing running.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub(crate) async fn launch(self) -> Result<Running, StartError> {
        self.config.check()?;
        self.coordination.check().await?;
        let credentials = self.credentials.ok_or(StartError::NoCredentials)?;
        let identity = Identity::new(&self.name, &credentials)?;
        let world = self.world;
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
        let server: Arc<dyn PeerService> = Arc::new(PeerServer(shared.clone()));
        shared.peers.net.serve(&server);
        let (ended_tx, ended) = watch::channel(None);
        let http = self.http.map(|url| advertise::reachable(url, shared.peers.net.advertise().ip()));
        let arguments =
            supervisor::Arguments { shared: shared.clone(), coordination, incarnation, http, ended: ended_tx };
        let (supervisor, supervising) = Actor::spawn(None, Supervisor, arguments).await.map_err(|error| {
            shared.context.stop.cancel();
            shared.peers.net.abort();
            StartError::Actor(error.to_string())
        })?;
        Ok(Running { shared, _server: server, supervisor, supervising: Some(supervising), ended })
    }
}
