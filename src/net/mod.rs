//! One QUIC endpoint: everything a node says to another node, and hears from it.
//!
//! ```text
//!  gossip   calls   feeds   data          what the actors and the router see: `Net`, `Peer`
//!     \       |       |      /
//!   peers: one connection to each address, dialled when needed, shared by all
//!     |
//!   accept (serve.rs): handshake, hello, then one task a stream, answered by `Inbound`
//!     |
//!   quinn endpoint on the socket and runtime that the `World` provides
//! ```
//!
//! Invariants: a [`Peer`] exists only after its certificate was verified and found to carry its name; whatever arrives
//! on a connection is attributed to that name and no other. At most one dial to an address runs at a time, and a failed
//! one is not repeated before its back-off. Every wait on a peer has a deadline.

pub(crate) mod codec;
mod exchange;
pub(crate) mod identity;
mod refusal;
mod serve;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt, Stream,
    future::{BoxFuture, Shared},
    stream::BoxStream,
};
use http::{Request, Response};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

pub(crate) use self::exchange::ExchangeError;
use self::{
    codec::CodecError,
    identity::{Identity, ShownCertificate},
    wire::{
        Call, Delta, Hello, HelloRefusal, HelloReply, MemberNews, NodeRequest, Opening, Position, REVISION, Refusal,
        Reply, RequestHead, calls::Vouch,
    },
};
use crate::{config::Profile, key::NodeName, provider::Body, world::World};

/// Waits and limits of the network below the actors.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that opens a stream has this long to say what for.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);
/// A gossip message that is not through by then is worth nothing.
const GOSSIP_TIMEOUT: Duration = Duration::from_secs(1);
/// No shorter time without a turn counts as a pause of this process, whatever the profile: it may just be busy.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A peer that is dialled and says nothing at all is dialled again after so many assumed round trips, but not before this
/// time. QUIC repeats its first packet after 3, 9, 21 and 45 of them: past the third, waiting longer finds a link that has
/// come back later than a new dial does. A peer that has answered gets [`DIAL_TIMEOUT`], for it may just be busy.
const SILENT_ROUND_TRIPS: u32 = 22;
const SILENT_MIN: Duration = Duration::from_millis(1_100);
/// First and longest pause after a failed dial of one address. Together with the above, a link that is back is found within
/// a second.
const REDIAL_MIN: Duration = Duration::from_millis(100);
const REDIAL_MAX: Duration = Duration::from_millis(400);
/// Gossip messages under way at once; more are dropped, as a datagram would be.
const GOSSIP_IN_FLIGHT_MAX: usize = 512;
/// Addresses that are remembered; gossip about more than this many members would be needed to fill it.
const ADDRESSES_MAX: usize = 4096;
/// Streams that one peer may have open towards us: requests, and gossip messages.
const PEER_STREAMS_MAX: u32 = 1024;
const PEER_GOSSIP_STREAMS_MAX: u32 = 128;
/// Of these, how many requests of clients and copies of keys may take up, each until its answer has ended. The others are left
/// to calls and feeds, so that stalled readers of data do not stop what holds the cluster together.
const CLIENT_STREAMS_MAX: usize = 400;
const EXPORT_STREAMS_MAX: usize = 128;
/// And likewise what is answered from a part of a key, for as long as its origin takes.
const PART_STREAMS_MAX: usize = 128;
/// Bytes that one stream may be ahead of its reader. One stream alone must be able to fill a link of 8 Gbit/s at half a
/// millisecond. Clients that take nothing in make a node hold that much for each of their requests, and what quinn sorts
/// packets with, a tenth of it, stays with the connection.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// Bytes that all streams of one connection may be ahead of their readers: each as far as its own window lets it. With
/// less, a few slow clients would use it up, and gossip and calls, which share the connection, would not get through.
const CONNECTION_WINDOW_BYTES: u64 = PEER_STREAMS_MAX as u64 * STREAM_WINDOW_BYTES as u64;
/// Bytes of one connection that were sent and not acknowledged yet. A peer acknowledges also what nobody reads.
const SEND_WINDOW_BYTES: u64 = 32 << 20;
/// Handshakes in progress before further ones are turned away.
const HANDSHAKES_MAX: usize = 256;

/// Application codes of closed connections and reset streams.
pub(crate) mod code {
    use quinn::VarInt;

    pub(crate) const SHUTDOWN: VarInt = VarInt::from_u32(0);
    pub(crate) const REFUSED: VarInt = VarInt::from_u32(1);
    pub(crate) const RESTARTED: VarInt = VarInt::from_u32(2);
    pub(crate) const SUPERSEDED: VarInt = VarInt::from_u32(3);
    pub(crate) const BROKEN: VarInt = VarInt::from_u32(4);
    pub(crate) const OVERLOADED: VarInt = VarInt::from_u32(5);
    pub(crate) const PAUSED: VarInt = VarInt::from_u32(6);
}

/// What the rest of the node answers to its peers.
#[async_trait]
pub(crate) trait Inbound: Send + Sync + 'static {
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
    ) -> Result<Response<Body>, Refusal>;
}

/// A connected, verified peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    /// Of the messages that it knows.
    pub(crate) revision: u16,
    pub(crate) advertise: SocketAddr,
    connection: quinn::Connection,
    /// When it was let in, or let this node in.
    since: Instant,
    rooms: StreamRooms,
}

/// Room for streams of data on one connection.
#[derive(Debug)]
struct StreamRooms {
    clients: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    parts: Arc<Semaphore>,
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

/// Why there is no connection to a peer. All may pass with time, except `WrongName`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DialError {
    #[error("no connection to {address}: {reason}")]
    Unreachable { address: SocketAddr, reason: String },
    #[error("{address} refuses this node: {refusal}")]
    Refused { address: SocketAddr, refusal: HelloRefusal },
    #[error("{address} should be {expected} but proves to be {found:?}")]
    WrongName { address: SocketAddr, expected: NodeName, found: Vec<String> },
    #[error("the node is stopping")]
    Stopping,
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CallError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The peer does not do what it was asked.
    #[error(transparent)]
    Refused(Refusal),
    /// The peer is of a version that does not know the call; it was not asked.
    #[error("its version is too old to be asked")]
    Unknown,
    /// The peer answered another call than this one.
    #[error("unexpected answer")]
    Unexpected,
}

impl CallError {
    /// Whether the peer was asked and did answer, if not with what was asked for.
    pub(crate) fn was_answered(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unexpected)
    }
}

impl From<CodecError> for CallError {
    fn from(error: CodecError) -> Self {
        Self::Broken(error.to_string())
    }
}

type Dial = Shared<BoxFuture<'static, Result<Arc<Peer>, DialError>>>;

/// What is known of one address.
enum Slot {
    Dialling(Dial),
    Up(Arc<Peer>),
    Down { error: DialError, failures: u32, retry: Instant },
}

/// The endpoint of one node and its connections. Cheap to share; everything it spawned ends with [`Net::close`].
pub(crate) struct Net {
    name: NodeName,
    incarnation: AtomicU64,
    advertise: SocketAddr,
    endpoint: Endpoint,
    slots: Mutex<BTreeMap<SocketAddr, Slot>>,
    inbound: OnceLock<Weak<dyn Inbound>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    gossip_in_flight: Arc<Semaphore>,
    gossip_messages: AtomicU64,
    gossip_bytes: AtomicU64,
    gossip_largest: AtomicU64,
    handshakes: Arc<Semaphore>,
    refused: watch::Sender<Option<HelloRefusal>>,
    shown: ShownCertificate,
    /// How long a peer that is dialled may say nothing at all.
    silence_max: Duration,
    /// After a pause longer than this, peers may have given up their connections with us.
    pause_max: Duration,
    /// Changes after a long pause of this process.
    paused: watch::Sender<()>,
}

impl Net {
    /// Binds the endpoint. Nothing is accepted before [`Net::serve`]. An address to advertise with port 0 gets the bound port.
    pub(crate) fn bind(
        world: &dyn World,
        name: NodeName,
        identity: Identity,
        listen: SocketAddr,
        advertise: Option<SocketAddr>,
        profile: &Profile,
    ) -> std::io::Result<Arc<Self>> {
        let (socket, runtime) = world.bind(listen)?;
        let bound = socket.local_addr()?;
        let transport = Arc::new(transport(profile));
        let mut server = quinn::ServerConfig::with_crypto(identity.server);
        server.transport_config(transport.clone()).migration(false).max_incoming(HANDSHAKES_MAX);
        let mut client = quinn::ClientConfig::new(identity.client);
        client.transport_config(transport);
        let mut config =
            EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &identity.reset_key)));
        let mut seed = [0; 32];
        rand::Rng::fill_bytes(&mut crate::world::rng(world), &mut seed);
        config.rng_seed(Some(seed));
        let mut endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)?;
        endpoint.set_default_client_config(client);
        Ok(Arc::new(Self {
            name,
            incarnation: AtomicU64::new(0),
            advertise: match advertise {
                Some(address) if address.port() == 0 => SocketAddr::new(address.ip(), bound.port()),
                Some(address) => address,
                None => bound,
            },
            endpoint,
            slots: Mutex::default(),
            inbound: OnceLock::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            gossip_in_flight: Arc::new(Semaphore::new(GOSSIP_IN_FLIGHT_MAX)),
            gossip_messages: AtomicU64::new(0),
            gossip_bytes: AtomicU64::new(0),
            gossip_largest: AtomicU64::new(0),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            refused: watch::Sender::new(None),
            shown: identity.shown,
            silence_max: (profile.initial_rtt * SILENT_ROUND_TRIPS).clamp(SILENT_MIN, DIAL_TIMEOUT),
            pause_max: profile.idle_timeout.saturating_sub(profile.keep_alive).max(PAUSE_MIN),
            paused: watch::Sender::new(()),
        }))
    }

    /// Where other nodes reach this one.
    pub(crate) fn advertise(&self) -> SocketAddr {
        self.advertise
    }

    /// Why others reject this node's certificate at `unix_ms`; `None` if they accept it.
    pub(crate) fn certificate_rejection(&self, unix_ms: u64) -> Option<String> {
        self.shown.rejection(unix_ms)
    }

    /// The last refusal that a dialled node gave, if no later one welcomed us.
    pub(crate) fn refusals(&self) -> watch::Receiver<Option<HelloRefusal>> {
        self.refused.subscribe()
    }

    /// Takes note that this node is not wanted, where that was learned on another way than by a call.
    #[cfg(feature = "etcd")]
    pub(crate) fn refuse(&self, refusal: HelloRefusal) {
        self.refused.send_replace(Some(refusal));
    }

    /// Gossip messages that were sent, their bytes, and the bytes of the largest.
    pub(crate) fn gossip_sent(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.gossip_messages), read(&self.gossip_bytes), read(&self.gossip_largest))
    }

    /// Connections that are up.
    pub(crate) fn connections(&self) -> usize {
        let slots = self.slots.lock().expect("no panic under this lock");
        slots.values().filter(|slot| matches!(slot, Slot::Up(peer) if peer.is_open())).count()
    }

    /// Where another start of the node that says `hello` has an open connection from.
    fn connected_elsewhere(&self, hello: &Hello) -> Option<SocketAddr> {
        let slots = self.slots.lock().expect("no panic under this lock");
        let open = slots.values().filter_map(|slot| if let Slot::Up(peer) = slot { Some(peer) } else { None });
        let other = |peer: &&Arc<Peer>| peer.incarnation != hello.incarnation && peer.advertise != hello.advertise;
        open.filter(|peer| peer.name == hello.name && peer.is_open()).find(other).map(|peer| peer.advertise)
    }

    /// Whether there is an open connection with the node at `address`.
    pub(crate) fn is_connected(&self, address: SocketAddr) -> bool {
        let slots = self.slots.lock().expect("no panic under this lock");
        matches!(slots.get(&address), Some(Slot::Up(peer)) if peer.is_open())
    }

    /// Takes on a new incarnation. Peers have to hear of it, so all connections are closed.
    pub(crate) fn reincarnate(&self, incarnation: u64) {
        self.incarnation.store(incarnation, Ordering::Release);
        let slots = std::mem::take(&mut *self.slots.lock().expect("no panic under this lock"));
        for slot in slots.into_values() {
            if let Slot::Up(peer) = slot {
                peer.connection.close(code::RESTARTED, b"restarted");
            }
        }
    }

    /// Stops everything and waits until peers were told, at most `patience`.
    pub(crate) async fn close(&self, patience: Duration) {
        self.abort();
        self.tasks.close();
        let told = async {
            self.tasks.wait().await;
            self.endpoint.wait_idle().await;
        };
        if tokio::time::timeout(patience, told).await.is_err() {
            debug!("peers did not acknowledge the end of their connections");
        }
    }

    /// Stops everything at once; tasks end as they are next polled.
    pub(crate) fn abort(&self) {
        self.stop.cancel();
        self.endpoint.close(code::SHUTDOWN, b"stopped");
        self.slots.lock().expect("no panic under this lock").clear();
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
            Some(Slot::Up(peer)) if peer.is_open() => return Ok(Ok(peer.clone())),
            Some(Slot::Dialling(dial)) => return Ok(Err(dial.clone())),
            Some(Slot::Down { error, retry, .. }) if Instant::now() < *retry => return Err(error.clone()),
            Some(Slot::Down { failures, .. }) => *failures,
            Some(Slot::Up(peer)) => u32::from(said_goodbye(&peer.connection)),
            None => 0,
        };
        if slots.len() >= ADDRESSES_MAX && !slots.contains_key(&address) {
            slots.retain(|_, slot| !matches!(slot, Slot::Down { .. }));
        }
        let net = self.clone();
        // Spawned, so that a caller who gives up does not take the dial with it.
        let task = self.tasks.spawn(async move { net.dial(address, failures).await });
        let dial = task.map(|ended| ended.unwrap_or(Err(DialError::Stopping))).boxed().shared();
        slots.insert(address, Slot::Dialling(dial.clone()));
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
        // A node of our name at our own address is this one, reached on a way round (a seed list that names everybody).
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
        if !matches!(slots.get(&address), Some(Slot::Up(peer)) if peer.is_open()) {
            slots.insert(address, Slot::Down { error: error.clone(), failures, retry: Instant::now() + pause });
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
            codec::write_frame(&mut send, &Opening::Hello(hello)).await.map_err(|error| error.to_string())?;
            let _ = send.finish();
            let reply = codec::read_frame::<HelloReply>(&mut recv, codec::OPENING_BYTES_MAX).await;
            reply.map_err(|error| error.to_string())?.ok_or_else(|| "no reply to the hello".to_owned())
        };
        let reply = greeting.await.map_err(|reason| unreachable(refusal_of(&connection).unwrap_or(reason)))?;
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

    fn hello(&self) -> Hello {
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
    fn keep(&self, address: SocketAddr, peer: Arc<Peer>) {
        // Whoever has a connection with us, either way, takes us for who we are.
        self.refused.send_replace(None);
        let mut slots = self.slots.lock().expect("no panic under this lock");
        match slots.entry(address) {
            Entry::Occupied(mut slot) => match slot.get() {
                Slot::Up(old) if old.is_open() && old.name == peer.name && old.outranks(&peer) => {}
                Slot::Up(old) => {
                    self.let_go(old.clone(), &peer);
                    slot.insert(Slot::Up(peer));
                }
                _ => {
                    slot.insert(Slot::Up(peer));
                }
            },
            Entry::Vacant(slot) => {
                slot.insert(Slot::Up(peer));
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
    fn forget(&self, address: SocketAddr, peer: &Arc<Peer>) {
        let mut slots = self.slots.lock().expect("no panic under this lock");
        if matches!(slots.get(&address), Some(Slot::Up(kept)) if Arc::ptr_eq(kept, peer)) {
            slots.remove(&address);
            if said_goodbye(&peer.connection) {
                // That nobody answers there is no news, as long as it does not come back by itself.
                let error = DialError::Unreachable { address, reason: "it has stopped".into() };
                slots.insert(address, Slot::Down { error, failures: 1, retry: Instant::now() });
            }
        }
    }

    /// Sends a gossip message to `address`, or drops it. Never blocks.
    pub(crate) fn gossip(self: &Arc<Self>, address: SocketAddr, message: Bytes) {
        let Ok(permit) = self.gossip_in_flight.clone().try_acquire_owned() else {
            return;
        };
        self.gossip_messages.fetch_add(1, Ordering::Relaxed);
        self.gossip_bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        self.gossip_largest.fetch_max(message.len() as u64, Ordering::Relaxed);
        let net = self.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            let sent = async {
                let peer = net.peer(address, None).await.ok()?;
                let mut stream = peer.connection.open_uni().await.ok()?;
                codec::write(&mut stream, message).await.ok()?;
                stream.finish().ok()
            };
            tokio::select! {
                _ = tokio::time::timeout(GOSSIP_TIMEOUT, sent) => {}
                () = net.stop.cancelled() => {}
            }
        });
    }
}

impl Peer {
    fn new(hello: Hello, connection: quinn::Connection) -> Self {
        let Hello { revision, name, incarnation, advertise } = hello;
        let rooms = StreamRooms::default();
        Self { name, incarnation, revision, advertise, connection, since: Instant::now(), rooms }
    }

    /// Whether this connection stays although the peer has made `other`.
    fn outranks(&self, other: &Self) -> bool {
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
            codec::write_frame(&mut send, &Opening::Call(call)).await?;
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
        self.listen(Opening::Feed(position)).await
    }

    /// Follows what the peer sees of the members. The stream ends with an error when the connection does.
    pub(crate) async fn watch(
        &self,
    ) -> Result<impl Stream<Item = Result<MemberNews, CallError>> + Send + use<>, CallError> {
        self.listen(Opening::Watch).await
    }

    /// Opens a stream on which the peer tells one thing after the other.
    async fn listen<T: DeserializeOwned + Send>(
        &self,
        opening: Opening,
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

    async fn open(&self) -> Result<(quinn::SendStream, quinn::RecvStream), CallError> {
        self.connection.open_bi().await.map_err(|error| CallError::Broken(error.to_string()))
    }
}

fn transport(profile: &Profile) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(profile.mtu_max);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(PEER_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(PEER_GOSSIP_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u64(CONNECTION_WINDOW_BYTES).unwrap_or(VarInt::MAX))
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(IdleTimeout::try_from(profile.idle_timeout).unwrap_or(VarInt::from_u32(30_000).into())))
        .keep_alive_interval(Some(profile.keep_alive))
        .initial_rtt(profile.initial_rtt)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu));
    transport
}

/// The reason that a peer gave for closing a connection, if it gave one.
fn refusal_of(connection: &quinn::Connection) -> Option<String> {
    let words = refusal::in_words(&connection.close_reason()?);
    Some(if words.is_empty() { "the peer closed it".into() } else { words })
}

/// Whether the peer closed the connection because it stops.
fn said_goodbye(connection: &quinn::Connection) -> bool {
    let closed = connection.close_reason();
    matches!(closed, Some(quinn::ConnectionError::ApplicationClosed(close)) if close.error_code == code::SHUTDOWN)
}
