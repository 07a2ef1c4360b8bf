//! The other nodes, by name.

use std::{net::SocketAddr, sync::Arc};

use super::lookup::Lookup;
use crate::{
    key::NodeName,
    net::{DialError, Net, Peer},
};

/// Connections to live members.
pub(crate) struct Peers {
    pub(crate) net: Arc<Net>,
    lookup: Arc<Lookup>,
}

impl Peers {
    pub(crate) fn new(net: Arc<Net>, lookup: Arc<Lookup>) -> Self {
        Self { net, lookup }
    }

    /// A connection to the live member of that name.
    ///
    /// # Errors
    /// No live member has the name, or it cannot be reached.
    pub(crate) async fn peer(&self, name: &NodeName) -> Result<Arc<Peer>, DialError> {
        let view = self.lookup.view.snapshot();
        let address = view.member(name).filter(|member| member.state.is_alive()).map(|member| member.address);
        let unknown = || DialError::Unreachable {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            reason: format!("{name} is not a live member"),
        };
        self.net.peer(address.ok_or_else(unknown)?, Some(name)).await
    }
}
