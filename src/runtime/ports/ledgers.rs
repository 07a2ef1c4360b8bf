//! What gossip and the streams between nodes ask of the registry: the exchange of ledgers. With
//! etcd there are no ledgers, and no actor stands behind this port.

use tokio::sync::oneshot;

use crate::{
    core::{
        membership::LedgerDigest,
        registry::{Delta, Position},
    },
    key::NodeName,
    runtime::mailbox::{Gone, Mailbox},
};

pub(crate) enum Request {
    /// What gossip says of the others' ledgers.
    MarksSeen(Vec<(NodeName, u64, LedgerDigest)>),
    /// A part of a ledger came in. The reply tells whether it fits.
    Received { node: NodeName, delta: Box<Delta>, reply: oneshot::Sender<bool> },
    /// Asks for the claims of a ledger beyond a position; without a name, of this node's own
    /// ledger.
    DeltaSince { node: Option<NodeName>, position: Position, reply: oneshot::Sender<Option<Delta>> },
    /// How far a ledger is known.
    PositionOf { node: NodeName, reply: oneshot::Sender<Position> },
}

impl Mailbox<Request> {
    /// Says what gossip tells of the others' ledgers: incarnation and mark.
    pub(crate) fn marks_seen(&self, marks: Vec<(NodeName, u64, LedgerDigest)>) {
        let _ = self.send(Request::MarksSeen(marks));
    }

    /// Hands in a part of the ledger of `node`. Whether it continues what is known.
    pub(crate) async fn received(&self, node: NodeName, delta: Box<Delta>) -> Result<bool, Gone> {
        self.ask(|reply| Request::Received { node, delta, reply }).await
    }

    /// What is known of the ledger of `node` beyond `position`, or of this node's own; `None` if nothing is.
    pub(crate) async fn delta_since(&self, node: Option<NodeName>, position: Position) -> Result<Option<Delta>, Gone> {
        self.ask(|reply| Request::DeltaSince { node, position, reply }).await
    }

    /// How far the ledger of `node` is known.
    pub(crate) async fn position_of(&self, node: NodeName) -> Result<Position, Gone> {
        self.ask(|reply| Request::PositionOf { node, reply }).await
    }
}
