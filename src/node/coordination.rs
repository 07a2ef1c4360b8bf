//! What membership and registry are built on, chosen once when a node is built. Nothing outside this file asks which it is.

use std::sync::Arc;

use ractor::{Actor, ActorCell, SpawnErr};

use super::{Shared, StartError};
use crate::{
    membership::{Facts, SharedMark, actor as membership, gossip_channel, observer},
    registry::actor as registry,
};

/// How the nodes of a cluster find each other and learn who holds what.
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
}

/// Starts the registry under `supervisor` and fills its mailbox.
pub(super) async fn start_registry(
    shared: &Arc<Shared>,
    incarnation: u64,
    mark: Arc<SharedMark>,
    supervisor: ActorCell,
) -> Result<ActorCell, SpawnErr> {
    let shared = shared.clone();
    match &shared.coordination {
        Coordination::Gossip => {
            let arguments = registry::Arguments { shared: shared.clone(), incarnation, mark };
            let (actor, _) = Actor::spawn_linked(None, registry::Registry, arguments, supervisor).await?;
            shared.ports.registry.fill(&actor);
            shared.ports.ledgers.fill(&actor);
            Ok(actor.get_cell())
        }
        #[cfg(feature = "etcd")]
        Coordination::Etcd(etcd) => {
            use crate::etcd::registry::{Arguments, Registry};
            let arguments = Arguments { shared: shared.clone(), etcd: etcd.clone(), incarnation };
            let (actor, _) = Actor::spawn_linked(None, Registry, arguments, supervisor).await?;
            shared.ports.registry.fill(&actor);
            Ok(actor.get_cell())
        }
    }
}

/// Starts membership under `supervisor` and fills its mailbox.
pub(super) async fn start_membership(
    shared: &Arc<Shared>,
    incarnation: u64,
    facts: Facts,
    mark: Arc<SharedMark>,
    supervisor: ActorCell,
) -> Result<ActorCell, SpawnErr> {
    let shared = shared.clone();
    match &shared.coordination {
        Coordination::Gossip if shared.provider.is_none() => {
            let arguments = observer::Arguments { shared: shared.clone(), incarnation, facts, mark };
            let (actor, _) = Actor::spawn_linked(None, observer::Observer, arguments, supervisor).await?;
            shared.ports.membership.fill(&actor);
            Ok(actor.get_cell())
        }
        Coordination::Gossip => {
            let (gossip, inbox) = gossip_channel();
            shared.gossip.store(Some(Arc::new(gossip)));
            let arguments = membership::Arguments { shared: shared.clone(), incarnation, facts, inbox, mark };
            let (actor, _) = Actor::spawn_linked(None, membership::Membership, arguments, supervisor).await?;
            shared.ports.membership.fill(&actor);
            Ok(actor.get_cell())
        }
        #[cfg(feature = "etcd")]
        Coordination::Etcd(etcd) => {
            use crate::etcd::members::{Arguments, Membership};
            let arguments = Arguments { shared: shared.clone(), etcd: etcd.clone(), incarnation, facts };
            let (actor, _) = Actor::spawn_linked(None, Membership, arguments, supervisor).await?;
            shared.ports.membership.fill(&actor);
            Ok(actor.get_cell())
        }
    }
}
