//! The parts of one node together.

use std::sync::Arc;

use super::{
    admission::Admission, context::Context, disk::DiskState, gossip::GossipState, lifecycle::Lifecycle, lookup::Lookup,
    peers::Peers, ports::Ports, routing::Routing, traffic::Traffic,
};
use crate::{core::membership::SeedStatus, net::Net};

/// All parts of one node. An actor takes those that it needs; operations and clients take all of them.
pub(crate) struct Shared {
    pub(crate) context: Arc<Context>,
    pub(crate) lookup: Arc<Lookup>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) gossip: Arc<GossipState>,
    pub(crate) disk: Arc<DiskState>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) routing: Arc<Routing>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) ports: Arc<Ports>,
}

impl Shared {
    /// The parts of a node that has not begun. `seeds`: those that it is to meet before it counts as joined.
    pub(crate) fn new(context: Context, net: Arc<Net>, seeds: Vec<SeedStatus>) -> Arc<Self> {
        let context = Arc::new(context);
        let lookup = Arc::new(Lookup::new(context.clone()));
        let peers = Arc::new(Peers::new(net, lookup.clone()));
        Arc::new(Self {
            gossip: Arc::default(),
            disk: Arc::new(DiskState::new(context.clone())),
            traffic: Arc::new(Traffic::new(context.clone())),
            routing: Arc::new(Routing::new(&context.config)),
            admission: Arc::default(),
            lifecycle: Arc::new(Lifecycle::new(context.clone(), peers.clone(), seeds)),
            ports: Arc::default(),
            context,
            lookup,
            peers,
        })
    }
}
