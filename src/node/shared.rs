//! What the actors, the network and the clients of one node have in common: its settings, its snapshots, the mailboxes
//! of its actors, and the means to spawn tasks that end when it does.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ActorKind, Coordination};
use crate::{
    balancer::{Doubts, Heat, Level, Room, Uses},
    catalog::Intents,
    config::{NodeConfig, REPLICAS_MAX},
    explain::DESCRIBING_MAX,
    key::{Key, NodeName},
    membership::{ClockDifference, Gossip, Joining, Observation, SeedStatus, View, Watchers},
    net::{DialError, Net, Peer, wire::HelloRefusal},
    places::Places,
    provider::{Capacity, Provider},
    published::Published,
    registry::{self, HolderState, Index, IndexWriter, KeyHasher},
    router::{LONG_WAITS_MAX, Pace, Previews, RetryBudget, Routes},
    runtime::ports::Ports,
    updater::Underway,
    world::World,
};

/// Requests of clients at peers that are answered at once, and copies that peers make; more are told that the node is
/// overloaded and go elsewhere. No peer gets all of them.
const PEER_REQUESTS_MAX: usize = 1024;
const PEER_EXPORTS_MAX: usize = 256;
/// Requests of clients at peers that are answered from a part of a key, each for as long as its origin takes.
const PEER_PARTS_MAX: usize = 256;
/// Intents of peers that wait for the disk; more are told so, and pulled later.
const PEER_INTENTS_MAX: usize = 256;

/// A few node names, inline.
pub(crate) type Names = SmallVec<[NodeName; 4]>;

pub(crate) struct Shared {
    pub(crate) name: NodeName,
    pub(crate) config: NodeConfig,
    pub(crate) coordination: Coordination,
    pub(crate) world: Arc<dyn World>,
    /// Absent on an observer.
    pub(crate) provider: Option<Arc<dyn Provider>>,
    pub(crate) net: Arc<Net>,
    pub(crate) view: Published<View>,
    /// What the view is made of, for observers that follow this node.
    pub(crate) sightings: Published<Vec<Observation>>,
    /// Observers that follow this node's view.
    pub(crate) watchers: Watchers,
    /// The configured seeds, and how they were last found. Empty where etcd coordinates.
    pub(crate) seeds: Published<Vec<SeedStatus>>,
    /// Members whose wall clock is far from this node's.
    pub(crate) clocks: Published<Vec<ClockDifference>>,
    /// Members that are kept on the list although they have been dead for long, with how many keys are with the dead alone.
    pub(crate) irreplaceable: Published<BTreeMap<NodeName, u64>>,
    /// Whether this node has been part of its cluster since the process began; never taken back.
    joined: watch::Sender<bool>,
    pub(crate) index: Index,
    pub(crate) intents: Intents,
    /// Starts of nodes that gossip tells of.
    pub(crate) gossip_identities: AtomicUsize,
    /// Digest of the own catalog, for gossip.
    pub(crate) catalog_digest: AtomicU64,
    pub(crate) routes: Published<Routes>,
    pub(crate) retry_budget: RetryBudget,
    pub(crate) repair_pace: Arc<Pace>,
    /// When keys were last asked for.
    pub(crate) uses: Uses,
    /// Which keys are asked for so often that more nodes should keep them.
    heat: Mutex<Heat>,
    /// Only copies that no origin vouches for just now.
    doubts: Mutex<Doubts>,
    /// How much room there is; written by whoever has looked.
    room: Mutex<Room>,
    pub(crate) ports: Ports,
    /// Where received gossip goes.
    pub(crate) gossip: ArcSwapOption<mpsc::Sender<Gossip>>,
    /// Whether the first scan of the local data ended.
    pub(crate) scanned: AtomicBool,
    /// Keys that the scan of the local data has found so far.
    pub(crate) scan_found: AtomicUsize,
    /// Whether this node is on its way out for good: it takes no keys and drops none.
    pub(crate) draining: AtomicBool,
    /// Whether it is about to stop, to be back soon: likewise.
    pub(crate) leaving: AtomicBool,
    /// An incarnation of this node that others know, if its own is older.
    pub(crate) known_incarnation: AtomicU64,
    /// Incarnation and version of the own ledger, for the feeds.
    pub(crate) ledger_version: watch::Sender<(u64, u64)>,
    /// What keeps an actor from its work for longer than a restart would mend, in words.
    troubles: Mutex<BTreeMap<ActorKind, String>>,
    /// Held from the arrival of a peer's request to the end of the body of its answer.
    pub(crate) peer_requests: Places<NodeName>,
    /// Likewise, of what is copied.
    pub(crate) peer_exports: Places<NodeName>,
    /// Likewise, of what is answered from a part of a key.
    pub(crate) peer_parts: Places<NodeName>,
    /// Keys that the data source is asked to describe at once, for whatever node wants to know.
    pub(crate) describing: Semaphore,
    /// Heads that the origin is asked for.
    pub(crate) previews: Previews,
    /// Requests that wait for as long as a fetch gets on. No key has all of them.
    pub(crate) long_waits: Places<Key>,
    /// The updates that run here, and how far each is.
    pub(crate) underway: Underway,
    /// Intents that peers want written down at once.
    pub(crate) peer_intents: Semaphore,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) origin: Instant,
}

impl Shared {
    pub(crate) fn new(
        name: NodeName,
        config: NodeConfig,
        coordination: Coordination,
        world: Arc<dyn World>,
        provider: Option<Arc<dyn Provider>>,
        net: Arc<Net>,
    ) -> Arc<Self> {
        let ring = Arc::new(crate::placement::Ring::build([], crate::placement::RingOptions::default()));
        let view = View::new(name.clone(), BTreeMap::new(), ring, Duration::ZERO);
        let seeds: Vec<SeedStatus> = match coordination {
            Coordination::Gossip => config.seeds.iter().map(|seed| SeedStatus::untried(seed)).collect(),
            #[cfg(feature = "etcd")]
            Coordination::Etcd(_) => Vec::new(),
        };
        Arc::new(Self {
            index: IndexWriter::new(KeyHasher::seeded(world.seed())).index(),
            intents: Intents::new(&config, KeyHasher::seeded(world.seed())),
            gossip_identities: AtomicUsize::new(0),
            catalog_digest: AtomicU64::new(0),
            view: Published::new(view),
            sightings: Published::new(Vec::new()),
            watchers: Watchers::default(),
            joined: watch::Sender::new(false),
            seeds: Published::new(seeds),
            clocks: Published::new(Vec::new()),
            irreplaceable: Published::new(BTreeMap::new()),
            routes: Published::new(Routes::default()),
            retry_budget: RetryBudget::default(),
            repair_pace: Arc::new(Pace::new(config.repair_bytes_per_second)),
            uses: Uses::new(KeyHasher::seeded(world.seed())),
            heat: Mutex::new(Heat::new(&config)),
            doubts: Mutex::default(),
            room: Mutex::new(Room::new(&config)),
            name,
            config,
            coordination,
            world,
            provider,
            net,
            ports: Ports::default(),
            gossip: ArcSwapOption::empty(),
            scanned: AtomicBool::new(false),
            scan_found: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            known_incarnation: AtomicU64::new(0),
            ledger_version: registry::actor::version_channel(),
            troubles: Mutex::default(),
            peer_requests: Places::new(PEER_REQUESTS_MAX),
            peer_exports: Places::new(PEER_EXPORTS_MAX),
            peer_parts: Places::new(PEER_PARTS_MAX),
            describing: Semaphore::new(DESCRIBING_MAX),
            previews: Previews::default(),
            long_waits: Places::new(LONG_WAITS_MAX),
            underway: Underway::default(),
            peer_intents: Semaphore::new(PEER_INTENTS_MAX),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            origin: Instant::now(),
        })
    }

    /// Monotonic time since the node was made.
    pub(crate) fn uptime(&self) -> Duration {
        self.origin.elapsed()
    }

    /// What keeps this node from taking part fully, in words.
    pub(crate) fn trouble(&self) -> Option<String> {
        let troubles = self.troubles.lock().expect("no panic under this lock");
        // One cause often stops several.
        let distinct: std::collections::BTreeSet<&str> = troubles.values().map(String::as_str).collect();
        (!distinct.is_empty()).then(|| distinct.into_iter().collect::<Vec<_>>().join("; "))
    }

    /// Says what keeps this actor from its work, or that nothing does any more. Whether that is news.
    pub(crate) fn set_trouble(&self, actor: ActorKind, trouble: Option<String>) -> bool {
        let mut troubles = self.troubles.lock().expect("no panic under this lock");
        match trouble {
            Some(trouble) => troubles.insert(actor, trouble.clone()) != Some(trouble),
            None => troubles.remove(&actor).is_some(),
        }
    }

    /// Takes note of the members that are about to be published, or, while this node has not joined, of those that are: its clock
    /// may be right now.
    pub(crate) fn note_members(&self, view: &View) {
        if !*self.joined.borrow() && self.joining(view).is_empty() {
            tracing::info!(members = view.alive().count(), "joined");
            self.joined.send_replace(true);
        }
    }

    /// Whether this node has been part of its cluster: it met another member if it names seeds, and as many members as it
    /// expects. What it loses later does not count.
    pub(crate) fn joined(&self) -> watch::Receiver<bool> {
        self.joined.subscribe()
    }

    /// What this node lacks now to be part of its cluster, in words.
    pub(crate) fn lacking(&self) -> Vec<String> {
        self.joining(&self.view.load())
    }

    fn joining(&self, view: &View) -> Vec<String> {
        let rejection = self.net.certificate_rejection(self.world.unix_ms());
        let (seeds, alive, expected) = (&self.seeds.load(), view.alive().count(), self.config.expect_members);
        Joining { seeds, alive, expected, rejection }.lacking()
    }

    /// Spawns a task that ends when the node does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Fails if others know a later start of this node: its disk was lost and its clock set back. It has to begin anew
    /// after that one, or they never listen to it.
    pub(crate) fn check_incarnation(&self, own: u64) -> Result<(), String> {
        let known = match &*self.net.refusals().borrow() {
            Some(HelloRefusal::Outdated { incarnation, .. }) if *incarnation >= own => *incarnation,
            _ => return Ok(()),
        };
        self.known_incarnation.fetch_max(known, Ordering::AcqRel);
        Err(format!("others know incarnation {known} of this node, which has {own}"))
    }

    /// Whether this node takes no keys and drops none, because it will not be there in a moment.
    pub(crate) fn is_on_its_way_out(&self) -> bool {
        self.draining.load(Ordering::Acquire) || self.leaving.load(Ordering::Acquire)
    }

    /// When the view will have been the same for long enough to act on it; in the past if it has.
    pub(crate) fn settled_at(&self) -> Duration {
        self.view.load().since() + self.config.profile.settle()
    }

    /// A connection to the live member of that name.
    pub(crate) async fn peer(self: &Arc<Self>, name: &NodeName) -> Result<Arc<Peer>, DialError> {
        let address = self.view.load().member(name).filter(|member| member.state.is_alive()).map(|m| m.address);
        let unknown = || DialError::Unreachable {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            reason: format!("{name} is not a live member"),
        };
        self.net.peer(address.ok_or_else(unknown)?, Some(name)).await
    }

    /// Who claims `key`, in which state; live members only. Local and lock-free.
    pub(crate) fn live_holders(&self, key: &Key) -> Vec<(NodeName, HolderState)> {
        let view = self.view.load();
        self.holders(key).into_iter().filter(|(name, _)| view.is_alive(name)).collect()
    }

    /// Who claims `key`, the dead included.
    pub(crate) fn holders(&self, key: &Key) -> Vec<(NodeName, HolderState)> {
        self.index.lookup(key, |holders| holders.map(|(name, state)| (name.clone(), state)).collect())
    }

    /// What this node itself claims of `key`.
    pub(crate) fn own_claim(&self, key: &Key) -> Option<HolderState> {
        self.holders(key).into_iter().find(|(name, _)| *name == self.name).map(|(_, state)| state)
    }

    /// How many nodes should keep `key`: as many as it is pinned on or settings say, and some more while it is hot.
    pub(crate) fn replicas(&self, view: &View, key: &Key) -> usize {
        (self.intents.replicas(key) + view.extra(key)).min(REPLICAS_MAX)
    }

    /// Notes that somebody asked for `key` here.
    pub(crate) fn note_use(&self, key: &Key) {
        let (now, rate) = (self.uptime(), self.config.hot_rate);
        let hits = self.uses.touch(key, now);
        if Heat::is_notable(rate, hits) {
            self.heat().note(now, key, hits);
        }
    }

    /// Decides anew which keys are hot here; whether that is news.
    pub(crate) fn judge_heat(&self) -> bool {
        self.heat().step(self.uptime())
    }

    /// How many replicas more than usual which keys should have, as far as this node can tell.
    pub(crate) fn extras(&self) -> BTreeMap<Key, u8> {
        self.heat().extras()
    }

    /// Only copies that no origin vouches for just now.
    pub(crate) fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().expect("no panic under this lock")
    }

    fn heat(&self) -> MutexGuard<'_, Heat> {
        self.heat.lock().expect("no panic under this lock")
    }

    /// The nodes that should keep `key`, best first, those among them that died lately included. Members that agree about
    /// each other, about who holds it and about how often it should be there agree about them. Local, lock-free, and
    /// without allocation for up to four.
    pub(crate) fn owners(&self, view: &View, key: &Key) -> Names {
        view.owners(key, self.replicas(view, key), |name| self.has(name, key)).cloned().collect()
    }

    /// The live nodes that should keep `key`, best first.
    pub(crate) fn live_owners(&self, view: &View, key: &Key) -> Names {
        view.live_owners(key, self.replicas(view, key), |name| self.has(name, key)).cloned().collect()
    }

    /// Whether `name` claims to have `key`, or to be about to.
    fn has(&self, name: &NodeName, key: &Key) -> bool {
        use HolderState::{Fetching, Presumed, Ready};
        matches!(self.index.state(key, name), Some(Ready | Presumed | Fetching))
    }

    /// The node that fetches `key` from the origin: the first live owner that has not just failed to, else the first.
    pub(crate) fn leader(&self, key: &Key) -> Option<NodeName> {
        let owners = self.live_owners(&self.view.load(), key);
        let failed = |name: &NodeName| self.index.state(key, name) == Some(HolderState::Failed);
        owners.iter().find(|name| !failed(name)).or_else(|| owners.first()).cloned()
    }

    /// Takes in how much room there is. Returns the levels before and after.
    pub(crate) fn observe_room(&self, seen: Option<Capacity>, turned_away: bool) -> (Level, Level) {
        let mut room = self.room.lock().expect("no panic under this lock");
        let before = room.level();
        room.observe(seen, turned_away);
        (before, room.level())
    }

    /// How much room there is, as last seen.
    pub(crate) fn room(&self) -> Room {
        *self.room.lock().expect("no panic under this lock")
    }

    /// Whether this node takes new keys. What the members know of it follows in a moment.
    pub(crate) fn accepts(&self) -> bool {
        self.provider.is_some() && self.room().level() != Level::Full
    }
}
