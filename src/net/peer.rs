//! A connected peer, and what can be asked of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::Stream;
use serde::de::DeserializeOwned;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    errors::CallError,
    transport::DIAL_TIMEOUT,
    wire::{Call, Delta, Hello, MemberNews, NodeRequest, Position, Reply, StreamHeader},
};
use crate::{key::NodeName, util::codec};

/// Of the streams that one peer may have open, how many requests of clients and copies of keys may take up, each until its answer has ended. The others are left
/// to calls and feeds, so that stalled readers of data do not stop what holds the cluster together.
const CLIENT_STREAMS_MAX: usize = 400;
const EXPORT_STREAMS_MAX: usize = 128;
/// And likewise what is answered from a part of a key, for as long as its origin takes.
pub(super) const PART_STREAMS_MAX: usize = 128;

/// A connected, verified peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    /// Of the messages that it knows.
    pub(crate) revision: u16,
    pub(crate) advertise: SocketAddr,
    pub(super) connection: quinn::Connection,
    /// When it was let in, or let this node in.
    pub(super) since: Instant,
    pub(super) rooms: StreamRooms,
}

/// Room for streams of data on one connection.
#[derive(Debug)]
pub(super) struct StreamRooms {
    pub(super) clients: Arc<Semaphore>,
    pub(super) exports: Arc<Semaphore>,
    pub(super) parts: Arc<Semaphore>,
}

impl Default for StreamRooms {
    fn default() -> Self {
        Self {
            clients: Arc::new(Semaphore::new(CLIENT_STREAMS_MAX)),
            exports: Arc::new(Semaphore::new(EXPORT_STREAMS_MAX)),
            parts: Arc::new(Semaphore::new(PART_STREAMS_MAX)),
        }
    }
}

impl Peer {
    pub(super) fn new(hello: Hello, connection: quinn::Connection) -> Self {
        let Hello { revision, name, incarnation, advertise } = hello;
        let rooms = StreamRooms::default();
        Self { name, incarnation, revision, advertise, connection, since: Instant::now(), rooms }
    }

    /// Whether this connection stays although the peer has made `other`.
    pub(super) fn outranks(&self, other: &Self) -> bool {
        let may_have_crossed = other.since.saturating_duration_since(self.since) <= DIAL_TIMEOUT;
        self.incarnation > other.incarnation || (self.incarnation == other.incarnation && may_have_crossed)
    }

    /// Whether the connection is still good.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Asks, and waits `patience` for the answer. Dropping the future withdraws the question.
    pub(crate) async fn call<R: NodeRequest>(&self, request: R, patience: Duration) -> Result<R::Answer, CallError> {
        let call: Call = request.into();
        let call = call.for_revision(self.revision).ok_or(CallError::Unknown)?;
        match self.ask(call, patience).await? {
            Reply::Refused(refusal) => Err(CallError::Refused(refusal)),
            reply => R::read(reply).map_err(|_| CallError::Unexpected),
        }
    }

    async fn ask(&self, call: Call, patience: Duration) -> Result<Reply, CallError> {
        let exchange = async {
            let (mut send, mut recv) = self.open().await?;
            codec::write_frame(&mut send, &StreamHeader::Call(call)).await?;
            let _ = send.finish();
            codec::read_frame(&mut recv, codec::FRAME_BYTES_MAX)
                .await?
                .ok_or_else(|| CallError::Broken("the peer closed the stream without an answer".into()))
        };
        tokio::time::timeout(patience, exchange).await.unwrap_or(Err(CallError::Timeout(patience)))
    }

    /// Follows the peer's own ledger. The stream ends with an error when the connection does.
    pub(crate) async fn follow(
        &self,
        position: Position,
    ) -> Result<impl Stream<Item = Result<Delta, CallError>> + Send + use<>, CallError> {
        self.listen(StreamHeader::Feed(position)).await
    }

    /// Follows what the peer sees of the members. The stream ends with an error when the connection does.
    pub(crate) async fn watch(
        &self,
    ) -> Result<impl Stream<Item = Result<MemberNews, CallError>> + Send + use<>, CallError> {
        self.listen(StreamHeader::Watch).await
    }

    /// Opens a stream on which the peer tells one thing after the other.
    async fn listen<T: DeserializeOwned + Send>(
        &self,
        opening: StreamHeader,
    ) -> Result<impl Stream<Item = Result<T, CallError>> + Send + use<T>, CallError> {
        let (mut send, recv) = self.open().await?;
        codec::write_frame(&mut send, &opening).await?;
        let _ = send.finish();
        Ok(futures::stream::unfold(Some(recv), |state| async move {
            let mut recv = state?;
            match codec::read_frame::<T>(&mut recv, codec::FRAME_BYTES_MAX).await {
                Ok(Some(told)) => Some((Ok(told), Some(recv))),
                Ok(None) => None,
                Err(error) => Some((Err(error.into()), None)),
            }
        }))
    }

    pub(super) async fn open(&self) -> Result<(quinn::SendStream, quinn::RecvStream), CallError> {
        self.connection.open_bi().await.map_err(|error| CallError::Broken(error.to_string()))
    }
}
