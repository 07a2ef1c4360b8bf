//! One connection to each address: dialled when it is needed, and kept while both ends are there.

use std::{
    collections::btree_map::Entry,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::FutureExt;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    endpoint::Net,
    errors::{DialError, code},
    identity,
    peer::Peer,
    refusal,
    slot::{ConnectionState, Dial},
    transport::DIAL_TIMEOUT,
    wire::{Hello, HelloRefusal, HelloReply, REVISION, StreamHeader, calls::Vouch},
};
use crate::{key::NodeName, util::codec};

/// First and longest pause after a failed dial of one address. Together with the above, a link that is back is found within
/// a second.
const REDIAL_MIN: Duration = Duration::from_millis(100);
const REDIAL_MAX: Duration = Duration::from_millis(400);
/// Addresses that are remembered; gossip about more than this many members would be needed to fill it.
const ADDRESSES_MAX: usize = 4096;

impl Net {
    /// Where another start of the node that says `hello` has an open connection from.
    pub(super) fn connected_elsewhere(&self, hello: &Hello) -> Option<SocketAddr> {
        let slots = self.slots.lock().expect("no panic under this lock");
        let open =
            slots.values().filter_map(|slot| if let ConnectionState::Up(peer) = slot { Some(peer) } else { None });
        let other = |peer: &&Arc<Peer>| peer.incarnation != hello.incarnation && peer.advertise != hello.advertise;
        open.filter(|peer| peer.name == hello.name && peer.is_open()).find(other).map(|peer| peer.advertise)
    }

    /// Whether there is an open connection with the node at `address`.
    pub(crate) fn is_connected(&self, address: SocketAddr) -> bool {
        let slots = self.slots.lock().expect("no panic under this lock");
        matches!(slots.get(&address), Some(ConnectionState::Up(peer)) if peer.is_open())
    }

    /// The peer at `address`, dialled if need be. With `expected`, only a peer of that name will do.
    ///
    /// Cancel safe: the dial goes on for others who wait for it.
    pub(crate) async fn peer(
        self: &Arc<Self>,
        address: SocketAddr,
        expected: Option<&NodeName>,
    ) -> Result<Arc<Peer>, DialError> {
        let peer = match self.slot(address)? {
            Ok(peer) => peer,
            Err(dial) => dial.await?,
        };
        match expected {
            Some(name) if *name != peer.name => {
                Err(DialError::WrongName { address, expected: name.clone(), found: vec![peer.name.to_string()] })
            }
            _ => Ok(peer),
        }
    }

    /// An open connection, or the dial to wait for.
    fn slot(self: &Arc<Self>, address: SocketAddr) -> Result<Result<Arc<Peer>, Dial>, DialError> {
        if self.stop.is_cancelled() {
            return Err(DialError::Stopping);
        }
        // Gossip still names the former self of a node that was restarted where it was.
        if address == self.advertise {
            return Err(DialError::Unreachable { address, reason: "it is this node's own".into() });
        }
        let mut slots = self.slots.lock().expect("no panic under this lock");
        let failures = match slots.get(&address) {
            Some(ConnectionState::Up(peer)) if peer.is_open() => return Ok(Ok(peer.clone())),
            Some(ConnectionState::Dialling(dial)) => return Ok(Err(dial.clone())),
            Some(ConnectionState::Down { error, retry, .. }) if Instant::now() < *retry => return Err(error.clone()),
            Some(ConnectionState::Down { failures, .. }) => *failures,
            Some(ConnectionState::Up(peer)) => u32::from(said_goodbye(&peer.connection)),
            None => 0,
        };
        if slots.len() >= ADDRESSES_MAX && !slots.contains_key(&address) {
            slots.retain(|_, slot| !matches!(slot, ConnectionState::Down { .. }));
        }
        let net = self.clone();
        // Spawned, so that a caller who gives up does not take the dial with it.
        let task = self.tasks.spawn(async move { net.dial(address, failures).await });
        let dial = task.map(|ended| ended.unwrap_or(Err(DialError::Stopping))).boxed().shared();
        slots.insert(address, ConnectionState::Dialling(dial.clone()));
        Ok(Err(dial))
    }

    async fn dial(self: Arc<Self>, address: SocketAddr, failures: u32) -> Result<Arc<Peer>, DialError> {
        let attempt = tokio::time::timeout(DIAL_TIMEOUT, self.handshake(address));
        let outcome = tokio::select! {
            outcome = attempt => outcome.unwrap_or_else(|_| {
                Err(DialError::Unreachable { address, reason: format!("no answer within {DIAL_TIMEOUT:?}") })
            }),
            () = self.stop.cancelled() => Err(DialError::Stopping),
        };
        match &outcome {
            Ok(peer) => {
                self.keep(address, peer.clone());
                self.spawn_streams(address, peer.clone());
            }
            Err(error) => self.record_failure(address, error, failures + 1),
        }
        outcome
    }

    fn record_failure(&self, address: SocketAddr, error: &DialError, failures: u32) {
        // A node of our name at our own address is this one, reached on a way round (a seed list
        // that names every node).
        let myself =
            |refusal: &HelloRefusal| matches!(refusal, HelloRefusal::NameInUse { at, .. } if *at == self.advertise);
        if let DialError::Refused { refusal, .. } = error
            && !myself(refusal)
        {
            self.refused.send_replace(Some(refusal.clone()));
        }
        if failures <= 1 && !matches!(error, DialError::Stopping) {
            warn!(%error, "cannot connect")
        } else {
            debug!(%error, failures, "cannot connect")
        }
        let pause = REDIAL_MIN.saturating_mul(1 << failures.min(6)).min(REDIAL_MAX);
        let mut slots = self.slots.lock().expect("no panic under this lock");
        // While we dialled, the other side may have come to us.
        if !matches!(slots.get(&address), Some(ConnectionState::Up(peer)) if peer.is_open()) {
            slots.insert(
                address,
                ConnectionState::Down { error: error.clone(), failures, retry: Instant::now() + pause },
            );
        }
    }

    async fn handshake(&self, address: SocketAddr) -> Result<Arc<Peer>, DialError> {
        let unreachable = |reason: String| DialError::Unreachable { address, reason };
        // The name in the TLS hello is not what is verified: see identity.rs.
        let mut connecting = self.endpoint.connect(address, "datad").map_err(|error| unreachable(error.to_string()))?;
        if tokio::time::timeout(self.silence_max, connecting.handshake_data()).await.is_err() {
            return Err(unreachable(format!("no answer: nothing was heard from it within {:?}", self.silence_max)));
        }
        let connection = connecting.await.map_err(|error| unreachable(refusal::in_words(&error)))?;
        let hello = self.hello();
        let greeting = async {
            let (mut send, mut recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
            codec::write_frame(&mut send, &StreamHeader::Hello(hello)).await.map_err(|error| error.to_string())?;
            let _ = send.finish();
            let reply = codec::read_frame::<HelloReply>(&mut recv, codec::OPENING_BYTES_MAX).await;
            reply.map_err(|error| error.to_string())?.ok_or_else(|| "no reply to the hello".to_owned())
        };
        let reply = greeting.await.map_err(|reason| unreachable(refusal::refusal_of(&connection).unwrap_or(reason)))?;
        let theirs = match reply {
            HelloReply::Welcome(hello) => hello,
            HelloReply::Refused(refusal) => return Err(DialError::Refused { address, refusal }),
        };
        let names = identity::names_of(&connection);
        if !names.iter().any(|name| name == theirs.name.as_str()) {
            connection.close(code::REFUSED, b"the certificate does not carry the name");
            return Err(DialError::WrongName { address, expected: theirs.name, found: names });
        }
        Ok(Arc::new(Peer::new(theirs, connection)))
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            revision: REVISION,
            name: self.name.clone(),
            incarnation: self.incarnation.load(Ordering::Acquire),
            advertise: self.advertise,
        }
    }

    /// Makes `peer` the connection for `address`, unless an open one of a newer incarnation is there, or one of the same
    /// incarnation that may have been made at the same time.
    ///
    /// A peer dials only if it has no connection to that address. So one that was there before the dial began is dead at the other
    /// end, though this end may not notice for seconds, or the peer knows it by another address: a seed's, for instance.
    pub(super) fn keep(&self, address: SocketAddr, peer: Arc<Peer>) {
        // A peer that has a connection with this node, in either direction, accepts its identity.
        self.refused.send_replace(None);
        let mut slots = self.slots.lock().expect("no panic under this lock");
        match slots.entry(address) {
            Entry::Occupied(mut slot) => match slot.get() {
                ConnectionState::Up(old) if old.is_open() && old.name == peer.name && old.outranks(&peer) => {}
                ConnectionState::Up(old) => {
                    self.let_go(old.clone(), &peer);
                    slot.insert(ConnectionState::Up(peer));
                }
                _ => {
                    slot.insert(ConnectionState::Up(peer));
                }
            },
            Entry::Vacant(slot) => {
                slot.insert(ConnectionState::Up(peer));
            }
        }
    }

    /// Ends `old`, which `new` takes the place of, unless its other end is still there: what is under way on it then goes on.
    /// If nothing is under way on it any more, it costs little.
    ///
    /// What waits on one that is dead does not wait for its idle timeout: QUIC ends idle connections without a word, and pauses
    /// ever longer before it repeats what was not acknowledged.
    fn let_go(&self, old: Arc<Peer>, new: &Peer) {
        let close = |old: &Peer| old.connection.close(code::SUPERSEDED, b"superseded");
        if old.name != new.name || old.incarnation != new.incarnation {
            return close(&old);
        }
        // Far less than a second, in which a request that can be answered has to be.
        let patience = self.silence_max / 3;
        self.tasks.spawn(async move {
            let question = Vouch { keys: Vec::new(), ring: 0 };
            if let Err(error) = old.call(question, patience).await
                && !error.was_answered()
            {
                debug!(peer = %old.name, %error, "an older connection is dead");
                close(&old);
            }
        });
    }

    /// Frees the place of a connection that has ended: nodes that start again come with other addresses.
    pub(super) fn forget(&self, address: SocketAddr, peer: &Arc<Peer>) {
        let mut slots = self.slots.lock().expect("no panic under this lock");
        if matches!(slots.get(&address), Some(ConnectionState::Up(kept)) if Arc::ptr_eq(kept, peer)) {
            slots.remove(&address);
            if said_goodbye(&peer.connection) {
                // A missing answer there changes nothing, as long as the node does not come back by
                // itself.
                let error = DialError::Unreachable { address, reason: "it has stopped".into() };
                slots.insert(address, ConnectionState::Down { error, failures: 1, retry: Instant::now() });
            }
        }
    }
}

/// Whether the peer closed the connection because it stops.
fn said_goodbye(connection: &quinn::Connection) -> bool {
    let closed = connection.close_reason();
    matches!(closed, Some(quinn::ConnectionError::ApplicationClosed(close)) if close.error_code == code::SHUTDOWN)
}
