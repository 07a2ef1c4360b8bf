//! What membership and registry are built on, chosen once when a node is built. Nothing outside this file asks which it is.

use std::sync::Arc;

use ractor::{Actor, ActorCell, SpawnErr};

use super::start_error::StartError;
use crate::{
    actors::{
        membership::{actor as membership, gossip_channel, observer},
        registry,
    },
    config::NodeConfig,
    core::membership::{NodeInfo, SeedStatus},
    runtime::{Shared, gossip::SharedMark},
};

/// How the nodes of a cluster find each other and learn which node holds which key.
#[derive(Debug, Clone, Default)]
pub(crate) enum Coordination {
    /// By themselves.
    #[default]
    Gossip,
    /// Through etcd.
    #[cfg(feature = "etcd")]
    Etcd(crate::etcd::EtcdConfig),
}

impl Coordination {
    /// Whether it can be used as it is set.
    pub(super) async fn check(&self) -> Result<(), StartError> {
        match self {
            Self::Gossip => Ok(()),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => {
                etcd.check()?;
                Ok(Box::pin(crate::etcd::check(etcd)).await?)
            }
        }
    }

    /// The seeds that a node is to meet before it counts as joined.
    pub(super) fn seeds(&self, config: &NodeConfig) -> Vec<SeedStatus> {
        match self {
            Self::Gossip => config.seeds.iter().map(|seed| SeedStatus::untried(seed)).collect(),
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => Vec::new(),
        }
    }

    /// Starts the registry under `supervisor` and fills its mailboxes.
    pub(super) async fn start_registry(&self, start: &Start, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let Start { shared, incarnation, mark } = start.clone();
        let ports = shared.ports.clone();
        match self {
            Self::Gossip => {
                let arguments = registry::Arguments { shared, incarnation, mark };
                let (actor, _) = Actor::spawn_linked(None, registry::Registry, arguments, supervisor).await?;
                ports.registry.fill(&actor);
                ports.ledgers.fill(&actor);
                Ok(actor.get_cell())
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => {
                use crate::etcd::registry::{Arguments, Registry};
                let arguments = Arguments { shared, etcd: etcd.clone(), incarnation };
                let (actor, _) = Actor::spawn_linked(None, Registry, arguments, supervisor).await?;
                ports.registry.fill(&actor);
                Ok(actor.get_cell())
            }
        }
    }

    /// Starts membership under `supervisor` and fills its mailbox.
    pub(super) async fn start_membership(
        &self,
        start: &Start,
        facts: NodeInfo,
        supervisor: ActorCell,
    ) -> Result<ActorCell, SpawnErr> {
        let Start { shared, incarnation, mark } = start.clone();
        let ports = shared.ports.clone();
        match self {
            Self::Gossip if shared.context.provider.is_none() => {
                let arguments = observer::Arguments { shared, incarnation, facts, mark };
                let (actor, _) = Actor::spawn_linked(None, observer::Observer, arguments, supervisor).await?;
                ports.membership.fill(&actor);
                Ok(actor.get_cell())
            }
            Self::Gossip => {
                let (gossip, inbox) = gossip_channel();
                shared.gossip.inbox.store(Some(Arc::new(gossip)));
                let arguments = membership::Arguments { shared, incarnation, facts, inbox, mark };
                let (actor, _) = Actor::spawn_linked(None, membership::Membership, arguments, supervisor).await?;
                ports.membership.fill(&actor);
                Ok(actor.get_cell())
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => {
                use crate::etcd::members::{Arguments, Membership};
                let arguments = Arguments { shared, etcd: etcd.clone(), incarnation, facts };
                let (actor, _) = Actor::spawn_linked(None, Membership, arguments, supervisor).await?;
                ports.membership.fill(&actor);
                Ok(actor.get_cell())
            }
        }
    }
}

/// What both actors of one start of a node are given.
#[derive(Clone)]
pub(super) struct Start {
    pub(super) shared: Arc<Shared>,
    pub(super) incarnation: u64,
    pub(super) mark: Arc<SharedMark>,
}
