//! The supervisor: starts the actors of a node and brings them back when one fails.
//!
//! | who failed | what is restarted | why |
//! | --- | --- | --- |
//! | router, balancer, refresher | itself | keeps nothing that cannot be found out again |
//! | catalog | itself | reads its journal again |
//! | updater | updater, balancer | the balancer counts work that died with the pool |
//! | membership, registry | everything, as a new incarnation | a ledger version must never be given out twice, and gossip's identity contains the incarnation |
//!
//! More than [`RESTARTS_MAX`] restarts within [`RESTART_WINDOW`] mean that restarting does not help: the node then stops,
//! and says why.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::{sync::watch, time::Instant};
use tracing::{error, info};

use super::{
    coordination::{self, Coordination},
    incarnation,
};
use crate::{
    actors::{balancer::Balancer, catalog::CatalogKeeper, refresher::Refresher, router::Router, updater::Updater},
    core::membership::{AdvertisedState, LedgerDigest, NodeInfo, Role, Serves},
    runtime::{Shared, gossip::SharedMark, lifecycle::ActorKind},
};

const RESTARTS_MAX: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// Why a node ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// An actor failed again and again. The log says how; the data on disk is not affected.
    #[error("the node gave up: {0}")]
    GaveUp(String),
}

pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    pub(crate) coordination: Coordination,
    pub(crate) incarnation: u64,
    pub(crate) http: Option<String>,
    pub(crate) ended: watch::Sender<Option<StopReason>>,
}

pub(crate) struct Supervisor;

pub(crate) struct State {
    shared: Arc<Shared>,
    coordination: Coordination,
    incarnation: u64,
    http: Option<String>,
    ended: watch::Sender<Option<StopReason>>,
    children: BTreeMap<ActorId, (ActorKind, ActorCell)>,
    restarts: VecDeque<Instant>,
}

impl Actor for Supervisor {
    type Msg = ();
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<()>, args: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { shared, coordination, incarnation, http, ended } = args;
        let (children, restarts) = (BTreeMap::new(), VecDeque::new());
        let mut state = State { shared, coordination, incarnation, http, ended, children, restarts };
        state.start_all(&myself).await?;
        Ok(state)
    }

    /// Stops the actors in an order of ours: ractor's would follow from numbers that all nodes of the process share.
    async fn post_stop(&self, _myself: ActorRef<()>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.stop_all();
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, reason) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason.unwrap_or_else(|| "it ended".into())),
            _ => return Ok(()),
        };
        // Those that were stopped on purpose are not on the list any more.
        if let Some((kind, _)) = state.children.remove(&cell.get_id()) {
            state.recover(&myself, kind, &reason).await;
        }
        Ok(())
    }
}

impl State {
    async fn recover(&mut self, myself: &ActorRef<()>, kind: ActorKind, reason: &str) {
        error!(actor = ?kind, %reason, "an actor failed; bringing it back");
        let outcome = if self.may_restart() {
            match kind {
                ActorKind::Membership | ActorKind::Registry => self.restart_all(myself).await,
                ActorKind::Updater => {
                    self.stop(ActorKind::Balancer);
                    self.start_updater(myself).await.and(self.start_balancer(myself).await)
                }
                ActorKind::Balancer => self.start_balancer(myself).await,
                ActorKind::Router => self.start_router(myself).await,
                ActorKind::Catalog => self.start_catalog(myself).await,
                ActorKind::Refresher => self.start_refresher(myself).await,
            }
            .map_err(|error| error.to_string())
        } else {
            Err(format!("{kind:?} failed more than {RESTARTS_MAX} times within {RESTART_WINDOW:?}: {reason}"))
        };
        if let Err(reason) = outcome {
            error!(%reason, "the node gives up");
            self.ended.send_replace(Some(StopReason::GaveUp(reason)));
            self.shared.context.stop.cancel();
            self.shared.peers.net.abort();
            myself.stop(None);
        }
    }

    fn may_restart(&mut self) -> bool {
        let now = Instant::now();
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > RESTART_WINDOW) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        self.restarts.len() <= RESTARTS_MAX
    }

    async fn restart_all(&mut self, myself: &ActorRef<()>) -> Result<(), SpawnErr> {
        self.stop_all();
        self.incarnation = incarnation::after(&self.shared, self.incarnation).await;
        info!(incarnation = self.incarnation, "beginning anew under a new incarnation");
        self.shared.peers.net.reincarnate(self.incarnation);
        self.start_all(myself).await
    }

    fn stop_all(&mut self) {
        use ActorKind::{Balancer, Catalog, Membership, Refresher, Registry, Router, Updater};
        for kind in [Membership, Router, Refresher, Balancer, Updater, Registry, Catalog] {
            self.stop(kind);
        }
    }

    fn stop(&mut self, kind: ActorKind) {
        match kind {
            ActorKind::Membership => self.shared.ports.membership.empty(),
            ActorKind::Registry => {
                self.shared.ports.registry.empty();
                self.shared.ports.ledgers.empty();
            }
            ActorKind::Balancer => self.shared.ports.balancer.empty(),
            ActorKind::Updater => self.shared.ports.updater.empty(),
            ActorKind::Router => self.shared.ports.router.empty(),
            ActorKind::Catalog => self.shared.ports.catalog.empty(),
            ActorKind::Refresher => self.shared.ports.refresher.empty(),
        }
        self.children.retain(|_, (other, cell)| {
            if *other == kind {
                cell.kill();
            }
            *other != kind
        });
    }

    async fn start_all(&mut self, myself: &ActorRef<()>) -> Result<(), SpawnErr> {
        // First: what is to be forgotten must be known before the registry finds it on disk.
        self.start_catalog(myself).await?;
        let mark = Arc::new(SharedMark::default());
        let start = coordination::Start { shared: self.shared.clone(), incarnation: self.incarnation, mark };
        let registry = self.coordination.start_registry(&start, myself.get_cell()).await?;
        self.adopt(ActorKind::Registry, registry);
        self.start_updater(myself).await?;
        self.start_balancer(myself).await?;
        self.start_router(myself).await?;
        self.start_refresher(myself).await?;
        let membership = self.coordination.start_membership(&start, self.facts(), myself.get_cell()).await?;
        self.adopt(ActorKind::Membership, membership);
        Ok(())
    }

    async fn start_updater(&mut self, myself: &ActorRef<()>) -> Result<(), SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, Updater, self.shared.clone(), myself.get_cell()).await?;
        self.adopt(ActorKind::Updater, actor.get_cell());
        self.shared.ports.updater.fill(&actor);
        Ok(())
    }

    async fn start_catalog(&mut self, myself: &ActorRef<()>) -> Result<(), SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, CatalogKeeper, self.shared.clone(), myself.get_cell()).await?;
        self.adopt(ActorKind::Catalog, actor.get_cell());
        self.shared.ports.catalog.fill(&actor);
        Ok(())
    }

    async fn start_balancer(&mut self, myself: &ActorRef<()>) -> Result<(), SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, Balancer, self.shared.clone(), myself.get_cell()).await?;
        self.adopt(ActorKind::Balancer, actor.get_cell());
        self.shared.ports.balancer.fill(&actor);
        Ok(())
    }

    async fn start_router(&mut self, myself: &ActorRef<()>) -> Result<(), SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, Router, self.shared.clone(), myself.get_cell()).await?;
        self.adopt(ActorKind::Router, actor.get_cell());
        self.shared.ports.router.fill(&actor);
        Ok(())
    }

    /// Only where something is to be refreshed.
    async fn start_refresher(&mut self, myself: &ActorRef<()>) -> Result<(), SpawnErr> {
        if self.shared.context.config.refresh.is_empty() || self.shared.context.provider.is_none() {
            return Ok(());
        }
        let (actor, _) = Actor::spawn_linked(None, Refresher, self.shared.clone(), myself.get_cell()).await?;
        self.adopt(ActorKind::Refresher, actor.get_cell());
        self.shared.ports.refresher.fill(&actor);
        Ok(())
    }

    fn adopt(&mut self, kind: ActorKind, cell: ActorCell) {
        self.children.insert(cell.get_id(), (kind, cell));
    }

    fn facts(&self) -> NodeInfo {
        let read = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Acquire);
        let (draining, leaving) = (read(&self.shared.lifecycle.draining), read(&self.shared.lifecycle.leaving));
        NodeInfo {
            state: match (draining, leaving) {
                (true, _) => AdvertisedState::Draining,
                (false, true) => AdvertisedState::Leaving,
                (false, false) => AdvertisedState::Joining,
            },
            role: if self.shared.context.provider.is_some() { Role::Holder } else { Role::Observer },
            weight: if self.shared.context.provider.is_some() { self.shared.context.config.weight } else { 0 },
            accepting: self.shared.disk.accepts(),
            http: self.http.clone(),
            ledger: LedgerDigest::default(),
            catalog: Some(self.shared.gossip.catalog_digest.load(Ordering::Acquire)),
            hot: self.shared.traffic.extra_replicas(),
            gone: None,
            clock: None,
            serves: self
                .shared
                .context
                .provider
                .as_ref()
                .and_then(|provider| provider.kind())
                .map(|kind| Serves::everywhere(&kind)),
        }
    }
}
