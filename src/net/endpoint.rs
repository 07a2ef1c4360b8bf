//! The endpoint of one node: how it begins and ends, and what is counted of it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::{Endpoint, EndpointConfig};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    errors::code,
    identity::{Identity, ShownCertificate},
    peer_service::PeerService,
    slot::ConnectionState,
    transport::{DIAL_TIMEOUT, HANDSHAKES_MAX, transport},
    wire::HelloRefusal,
};
use crate::{config::Profile, key::NodeName, world::World};

/// No shorter time without a turn counts as a pause of this process, whatever the profile: it may just be busy.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A peer that is dialled and says nothing at all is dialled again after this number of assumed
/// round trips, but not before this time. QUIC repeats its first packet after 3, 9, 21 and 45 of
/// them: past the third, waiting longer finds a link that has come back later than a new dial does.
/// A peer that has answered gets [`DIAL_TIMEOUT`], for it may just be busy.
const SILENT_ROUND_TRIPS: u32 = 22;
const SILENT_MIN: Duration = Duration::from_millis(1_100);
/// Gossip messages under way at once; more are dropped, as a datagram would be.
const GOSSIP_IN_FLIGHT_MAX: usize = 512;

/// The endpoint of one node and its connections. Cheap to share; everything it spawned ends with [`Net::close`].
pub(crate) struct Net {
    pub(super) name: NodeName,
    pub(super) incarnation: AtomicU64,
    pub(super) advertise: SocketAddr,
    pub(super) endpoint: Endpoint,
    pub(super) slots: Mutex<BTreeMap<SocketAddr, ConnectionState>>,
    pub(super) inbound: OnceLock<Weak<dyn PeerService>>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) gossip_in_flight: Arc<Semaphore>,
    pub(super) gossip_messages: AtomicU64,
    pub(super) gossip_bytes: AtomicU64,
    pub(super) gossip_largest: AtomicU64,
    pub(super) handshakes: Arc<Semaphore>,
    pub(super) refused: watch::Sender<Option<HelloRefusal>>,
    shown: ShownCertificate,
    /// How long a peer that is dialled may say nothing at all.
    pub(super) silence_max: Duration,
    /// After a pause longer than this, peers may have given up their connections with us.
    pub(super) pause_max: Duration,
    /// Changes after a long pause of this process.
    pub(super) paused: watch::Sender<()>,
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
        slots.values().filter(|slot| matches!(slot, ConnectionState::Up(peer) if peer.is_open())).count()
    }

    /// Takes on a new incarnation. Peers have to hear of it, so all connections are closed.
    pub(crate) fn reincarnate(&self, incarnation: u64) {
        self.incarnation.store(incarnation, Ordering::Release);
        let slots = std::mem::take(&mut *self.slots.lock().expect("no panic under this lock"));
        for slot in slots.into_values() {
            if let ConnectionState::Up(peer) = slot {
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
}
