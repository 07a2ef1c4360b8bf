//! The listening half: handshakes, hellos, and one task for each stream that a peer opens.
//!
//! What must hold against a peer that is broken, slow or not one of ours: a handshake and a hello have a deadline and
//! a bounded number run at once, half of them only for addresses that answer; a stream that says nothing is reset after
//! a deadline; the number of streams is limited by QUIC itself; no frame is read beyond its limit; nothing that arrives
//! can end the accept loop.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{Instrument, debug, debug_span, info, warn};

use super::{
    endpoint::Net,
    errors::code,
    exchange, identity,
    peer::Peer,
    peer_service::PeerService,
    refusal,
    transport::{DIAL_TIMEOUT, HANDSHAKES_MAX, OPENING_TIMEOUT},
    wire::{GOSSIP_BYTES_MAX, Hello, HelloRefusal, HelloReply, Rejection, Reply, StreamHeader},
};
use crate::util::codec::{self, CodecError, FRAME_BYTES_MAX, OPENING_BYTES_MAX};

/// How often within the time that makes a long pause it is looked for.
const PAUSE_LOOKS: u32 = 4;

impl Net {
    /// Starts to accept, answering through `inbound`. Connections that this side dials are answered too.
    pub(crate) fn serve(self: &Arc<Self>, inbound: &Arc<dyn PeerService>) {
        if self.inbound.set(Arc::downgrade(inbound)).is_err() {
            return;
        }
        self.tasks.spawn(self.clone().watch_for_pauses(self.pause_max));
        let net = self.clone();
        self.tasks.spawn(async move {
            loop {
                let incoming = tokio::select! {
                    incoming = net.endpoint.accept() => incoming,
                    () = net.stop.cancelled() => None,
                };
                let Some(incoming) = incoming else { break };
                // A sender of forged addresses never receives this, and so cannot take all.
                let busy = net.handshakes.available_permits() <= HANDSHAKES_MAX / 2;
                if busy && !incoming.remote_address_validated() && incoming.may_retry() {
                    let _ = incoming.retry();
                    continue;
                }
                let Ok(permit) = net.handshakes.clone().try_acquire_owned() else {
                    incoming.refuse();
                    continue;
                };
                let accepting = net.clone();
                net.tasks.spawn(async move {
                    let remote = incoming.remote_address();
                    let accept = tokio::time::timeout(DIAL_TIMEOUT + OPENING_TIMEOUT, accepting.accept(incoming));
                    tokio::select! {
                        outcome = accept => match outcome {
                            Ok(Ok(peer)) => {
                                accepting.keep(peer.advertise, peer.clone());
                                accepting.spawn_streams(peer.advertise, peer);
                            }
                            Ok(Err(reason)) => warn!(%remote, %reason, "refused a connection"),
                            Err(_) => warn!(%remote, "refused a connection: no hello in time"),
                        },
                        () = accepting.stop.cancelled() => {}
                    }
                    drop(permit);
                });
            }
        });
    }

    /// Ends all connections after this process was stopped for longer than `limit`. The peers have given them up
    /// meanwhile; and what is left of them takes the pause for a round trip, so that QUIC would pace what it sends, and
    /// wait before it sends anything again, by that: for a minute, it would look alive and be of no use.
    async fn watch_for_pauses(self: Arc<Self>, limit: Duration) {
        loop {
            let looked = Instant::now();
            tokio::select! {
                () = tokio::time::sleep(limit / PAUSE_LOOKS) => {}
                () = self.stop.cancelled() => return,
            }
            let away = looked.elapsed();
            if away > limit {
                warn!(?away, "this process was stopped, or kept from running; connecting anew");
                self.paused.send_replace(());
            }
        }
    }

    /// The accepting side of a handshake: certificate, then hello.
    async fn accept(&self, incoming: quinn::Incoming) -> Result<Arc<Peer>, String> {
        let connection = incoming.await.map_err(|error| format!("it is not of this cluster: {error}"))?;
        let refuse = |reason: String| {
            connection.close(code::REFUSED, reason.as_bytes());
            reason
        };
        let (mut send, mut recv) = connection.accept_bi().await.map_err(|error| error.to_string())?;
        let hello = match codec::read_frame::<StreamHeader>(&mut recv, OPENING_BYTES_MAX).await {
            Ok(Some(StreamHeader::Hello(hello))) => hello,
            Ok(_) => return Err(refuse("a connection begins with a hello".into())),
            Err(error) => return Err(refuse(error.to_string())),
        };
        if let Err(refusal) = self.check(&hello, &connection) {
            let reason = format!("{} at {}: {refusal}", hello.name, hello.advertise);
            // The reply has to arrive before the close does.
            let _ = codec::write_frame(&mut send, &HelloReply::Refused(refusal)).await;
            let _ = send.finish();
            let _ = send.stopped().await;
            return Err(refuse(reason));
        }
        let reply = HelloReply::Welcome(self.hello());
        codec::write_frame(&mut send, &reply).await.map_err(|error| error.to_string())?;
        let _ = send.finish();
        Ok(Arc::new(Peer::new(hello, connection)))
    }

    fn check(&self, hello: &Hello, connection: &quinn::Connection) -> Result<(), HelloRefusal> {
        if !identity::names_of(connection).iter().any(|name| name == hello.name.as_str()) {
            return Err(HelloRefusal::WrongName { claimed: hello.name.clone() });
        }
        if hello.name == self.name {
            return Err(HelloRefusal::NameInUse { name: hello.name.clone(), at: self.advertise });
        }
        let inbound = self.inbound.get().and_then(std::sync::Weak::upgrade);
        inbound.map_or(Ok(()), |inbound| inbound.admit(hello, self.connected_elsewhere(hello)))
    }

    /// Answers the streams that `peer`, kept for `address`, opens, until the connection ends.
    pub(super) fn spawn_streams(self: &Arc<Self>, address: SocketAddr, peer: Arc<Peer>) {
        let net = self.clone();
        let span = debug_span!("peer", name = %peer.name);
        let mut paused = self.paused.subscribe();
        let serving = async move {
            info!(peer = %peer.name, address = %peer.advertise, incarnation = peer.incarnation, "connected");
            loop {
                tokio::select! {
                    stream = peer.connection.accept_bi() => match stream {
                        Ok((send, recv)) => net.spawn_stream(&peer, move |inbound, peer| answer(inbound, peer, send, recv)),
                        Err(_) => break,
                    },
                    stream = peer.connection.accept_uni() => match stream {
                        Ok(recv) => net.spawn_stream(&peer, move |inbound, peer| recv_gossip(inbound, peer, recv)),
                        Err(_) => break,
                    },
                    _ = paused.changed() => {
                        peer.connection.close(code::PAUSED, b"was stopped for a while");
                        break;
                    }
                    () = net.stop.cancelled() => break,
                }
            }
            let reason = refusal::refusal_of(&peer.connection).unwrap_or_else(|| "this node stops".into());
            info!(peer = %peer.name, %reason, "disconnected");
            net.forget(address, &peer);
        };
        self.tasks.spawn(serving.instrument(span));
    }

    fn spawn_stream<F, T>(self: &Arc<Self>, peer: &Arc<Peer>, task: F)
    where
        F: FnOnce(Arc<dyn PeerService>, Arc<Peer>) -> T,
        T: Future<Output = Result<(), CodecError>> + Send + 'static,
    {
        let Some(inbound) = self.inbound.get().and_then(std::sync::Weak::upgrade) else { return };
        let work = task(inbound, peer.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(
            async move {
                tokio::select! {
                    ended = work => if let Err(error) = ended { debug!(%error, "stream given up") },
                    () = stop.cancelled() => {}
                }
            }
            .in_current_span(),
        );
    }
}

/// A unidirectional stream: one gossip message.
async fn recv_gossip(
    inbound: Arc<dyn PeerService>,
    peer: Arc<Peer>,
    mut recv: quinn::RecvStream,
) -> Result<(), CodecError> {
    let read = tokio::time::timeout(OPENING_TIMEOUT, recv.read_to_end(GOSSIP_BYTES_MAX)).await;
    let message = read
        .map_err(|_| CodecError::Broken("nothing was said in time".into()))?
        .map_err(|error| CodecError::Broken(error.to_string()))?;
    inbound.gossip(peer.advertise, message.into());
    Ok(())
}

/// A bidirectional stream: whatever its opening says.
async fn answer(
    inbound: Arc<dyn PeerService>,
    peer: Arc<Peer>,
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
) -> Result<(), CodecError> {
    let opening =
        tokio::time::timeout(OPENING_TIMEOUT, codec::read_frame::<StreamHeader>(&mut recv, OPENING_BYTES_MAX));
    let opening = match opening.await {
        Ok(Ok(Some(opening))) => opening,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => {
            let refusal = Rejection::Malformed(error.to_string());
            let _ = codec::write_frame(&mut send, &Reply::Refused(refusal)).await;
            let _ = send.finish();
            let _ = recv.stop(code::BROKEN);
            return Err(error);
        }
        Err(_) => {
            let _ = send.reset(code::OVERLOADED);
            return Err(CodecError::Broken("nothing was said in time".into()));
        }
    };
    match opening {
        StreamHeader::Hello(_) => Err(CodecError::Malformed("a second hello".into())),
        StreamHeader::Call(call) => {
            let reply = tokio::select! {
                reply = inbound.call(&peer, call) => reply.for_revision(peer.revision),
                _ = send.stopped() => return Ok(()),
            };
            codec::write_frame(&mut send, &reply).await?;
            let _ = send.finish();
            Ok(())
        }
        StreamHeader::Feed(position) => {
            let deltas = inbound.feed(&peer.name, position);
            drop(inbound);
            tell(deltas, send).await
        }
        StreamHeader::Watch => {
            let Some(news) = inbound.watch(&peer.name) else {
                let _ = send.reset(code::OVERLOADED);
                return Ok(());
            };
            drop(inbound);
            tell(news, send).await
        }
        StreamHeader::Exchange(head) => exchange::answer(inbound, &peer, head, send, recv).await,
    }
}

/// Sends one thing after the other, until there are no more or the peer does not listen any more.
async fn tell<T: Serialize>(mut told: BoxStream<'static, T>, mut send: quinn::SendStream) -> Result<(), CodecError> {
    loop {
        let next = tokio::select! {
            next = told.next() => next,
            _ = send.stopped() => return Ok(()),
        };
        let Some(next) = next else { break };
        let bytes = codec::frame(&next)?;
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(CodecError::TooLong { bytes: bytes.len(), limit: FRAME_BYTES_MAX });
        }
        codec::write(&mut send, bytes.into()).await.map_err(|error| CodecError::Broken(error.to_string()))?;
    }
    let _ = send.finish();
    Ok(())
}
