//! What the rest of the node answers to its peers, as the network sees it.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Request, Response};

use super::{
    peer::Peer,
    wire::{Call, Delta, Hello, HelloRefusal, MemberNews, Position, Rejection, Reply, RequestHead},
};
use crate::{key::NodeName, provider::Body};

/// What the rest of the node answers to its peers.
#[async_trait]
pub(crate) trait PeerService: Send + Sync + 'static {
    /// Whether a peer that proved its name is let in. `connected`: where another start of that name has an open connection
    /// from, at an address of its own.
    fn admit(&self, hello: &Hello, connected: Option<SocketAddr>) -> Result<(), HelloRefusal>;

    /// A gossip message came in. Must not block.
    fn gossip(&self, from: SocketAddr, message: Bytes);

    /// Answers a call. Dropped when the caller gives up.
    async fn call(&self, from: &Peer, call: Call) -> Reply;

    /// This node's own ledger from `position` on, live.
    fn feed(&self, from: &NodeName, position: Position) -> BoxStream<'static, Delta>;

    /// Who the members are, live, for an observer; `None` if there are too many of those.
    fn watch(&self, from: &NodeName) -> Option<BoxStream<'static, MemberNews>>;

    /// Answers a request for data. Dropped when the peer gives up.
    async fn exchange(
        &self,
        from: &NodeName,
        head: RequestHead,
        request: Request<Body>,
    ) -> Result<Response<Body>, Rejection>;
}
