//! The membership actor on etcd.
//!
//! Supervised by the node like the one on gossip, with its messages, and publishing views from the
//! same roster. *In*: what its session sees below `nodes/`, ticks, announcements. *Out*: the
//! published [`View`](crate::View), and whether this node mirrors the pins. Invariants: a member is
//! alive while its record stands, but becomes one only once this node has spoken to it, for writing
//! to etcd proves nothing and a certificate does; this node shows itself in a state only once that
//! state is recorded, so no node relies on it before the others can know.
//!
//! ```text
//!   session: connect -> lease -> name free? -> list nodes/, greet all -> put own record -> watch, renew, announce
//!            any trouble: connect again, elsewhere; a lapsed lease: register anew, in the same process
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{
    EtcdConfig, EtcdError, Layout, RETRY,
    connection::{Connection, Entry},
    layout::{MemberRecord, Place},
    list, pins,
};
use crate::{
    core::membership::{AdvertisedState, GoneMembers, MemberState, NodeInfo, Observation, RemoveError, Roster},
    key::NodeName,
    net::wire::HelloRefusal,
    operations::publish::publish,
    runtime::{
        Shared,
        lifecycle::ActorKind,
        mailbox::{Envelope, receives},
        ports::membership::Request,
    },
};

/// Added to the time to live of a lease before a name that is still in use is taken to belong to
/// another node.
const NAME_GRACE: Duration = Duration::from_secs(2);
/// How many times the time to live of a lease a member is kept whose record is gone though it answers.
const LAPSE_TTLS: u32 = 3;
/// How long a member may take to answer a first greeting before the others are not kept waiting for it.
const GREETING: Duration = Duration::from_secs(1);

pub(crate) enum Message {
    /// A request from another actor.
    Asked(Envelope<Request>),
    /// It is time to greet members and to look at them again.
    Tick,
    /// Records, all of them if `listing`.
    Seen { entries: Vec<Entry>, listing: bool, taken: oneshot::Sender<()> },
    /// This start of this node was spoken to, or could not be.
    Greeted { name: NodeName, incarnation: u64, answered: bool },
    /// This node's record has this content now.
    Recorded(NodeInfo),
    /// This node's record is gone for good.
    Unregistered,
    /// The session broke.
    Broken(EtcdError),
}

receives!(Message: Asked(Request));

pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    pub(crate) etcd: EtcdConfig,
    pub(crate) incarnation: u64,
    pub(crate) facts: NodeInfo,
}

pub(crate) struct Membership;

pub(crate) struct State {
    shared: Arc<Shared>,
    layout: Layout,
    incarnation: u64,
    roster: Roster,
    /// The others whose records stand.
    others: BTreeMap<NodeName, Observation>,
    /// Others whose records are gone without a goodbye while this node is still connected with them, and since when: etcd may
    /// have lost a lease over an election, or is just being listed. One that stays cut off from etcd takes no keys, so it
    /// does not remain here.
    lapsed: BTreeMap<NodeName, (Duration, Observation)>,
    /// How long they remain: enough for an election, and for the member to be registered again.
    lapse_max: Duration,
    /// The starts of them that were spoken to, and those that are being.
    greeted: BTreeSet<(NodeName, u64)>,
    greeting: BTreeSet<(NodeName, u64)>,
    /// Who waits for that.
    waiting: Vec<oneshot::Sender<()>>,
    /// What is to be announced.
    facts: watch::Sender<NodeInfo>,
    /// What is.
    recorded: NodeInfo,
    leaving: Option<oneshot::Sender<()>>,
    /// The digest that all catalogs have, while this node is the one to mirror the pins for
    /// outsiders.
    mirror: watch::Sender<Option<u64>>,
    _mirror: AbortOnDropHandle<()>,
    _session: AbortOnDropHandle<()>,
}

impl Actor for Membership {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, args: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { shared, etcd, incarnation, facts } = args;
        myself.send_interval(shared.context.config.profile.gossip_interval, || Message::Tick);
        let (announcements, announced) = watch::channel(facts.clone());
        let (mirror, mirrored) = watch::channel(None);
        let lapse_max = etcd.lease_ttl * LAPSE_TTLS;
        let keep_pins = pins::keep(shared.clone(), etcd.clone(), mirrored);
        let layout = Layout::new(&etcd.prefix);
        let session = Session {
            shared: shared.clone(),
            etcd,
            layout: layout.clone(),
            incarnation,
            announced,
            membership: myself,
            lease: None,
            taken_since: None,
        };
        let mut state = State {
            roster: Roster::of(&shared.context.name, &shared.context.config).serving(facts.serves.clone()),
            layout,
            incarnation,
            others: BTreeMap::new(),
            lapsed: BTreeMap::new(),
            lapse_max,
            greeted: BTreeSet::new(),
            greeting: BTreeSet::new(),
            waiting: Vec::new(),
            facts: announcements,
            recorded: facts,
            leaving: None,
            mirror,
            _mirror: AbortOnDropHandle::new(shared.context.tasks.spawn(keep_pins)),
            _session: AbortOnDropHandle::new(shared.context.tasks.spawn(session.run())),
            shared,
        };
        state.look();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tick => {
                state.shared.lifecycle.check_incarnation(state.incarnation)?;
                state.note_load();
                state.tell_catalog();
                state.greet(&myself);
                state.look();
            }
            Message::Asked(asked) => state.asked(asked.open()),
            Message::Seen { entries, listing, taken } => state.seen(&entries, listing, taken, &myself),
            Message::Greeted { name, incarnation, answered } => state.was_greeted((name, incarnation), answered),
            Message::Recorded(facts) => state.recorded(facts),
            Message::Unregistered => drop(state.leaving.take().map(|reply| reply.send(()))),
            Message::Broken(error) => state.broken(&error),
        }
        Ok(())
    }
}

impl State {
    fn asked(&mut self, request: Request) {
        match request {
            Request::Announce(announced) => self.announce(announced),
            Request::Leave { goodbye, reply } => self.leave(goodbye, reply),
            Request::LoadChanged => self.note_load(),
            Request::Remove { name, reply } => drop(reply.send(Err(RemoveError::InEtcd(name)))),
            // Nothing is remembered from node to node: each sees in etcd who is there.
            Request::TellGone(reply) => drop(reply.send(GoneMembers { gone: Vec::new(), removed: Vec::new() })),
        }
    }

    fn announce(&self, announced: AdvertisedState) {
        self.facts.send_if_modified(|facts| {
            // A node that drains or has left stays so until it is started again.
            let news = announced > facts.state;
            if news {
                info!(state = ?announced, "announced");
                facts.state = announced;
            }
            news
        });
    }

    /// Announces whether this node takes new keys, and which keys are hot here, if that is news.
    fn note_load(&self) {
        let (accepting, hot) = (self.shared.disk.accepts(), self.shared.traffic.extra_replicas());
        self.facts.send_if_modified(|facts| {
            let news = facts.accepting != accepting || facts.hot != hot;
            (facts.accepting, facts.hot) = (accepting, hot);
            news
        });
    }

    fn leave(&mut self, goodbye: AdvertisedState, reply: oneshot::Sender<()>) {
        self.leaving = Some(reply);
        self.announce(goodbye);
    }

    fn recorded(&mut self, facts: NodeInfo) {
        self.shared.lifecycle.set_degraded(ActorKind::Membership, None);
        self.recorded = facts;
        self.look();
    }

    fn broken(&self, error: &EtcdError) {
        if self.shared.lifecycle.set_degraded(ActorKind::Membership, Some(error.to_string())) {
            warn!(%error, "not registered in etcd for now; what is known of the members stays");
        }
    }

    fn seen(&mut self, entries: &[Entry], listing: bool, taken: oneshot::Sender<()>, myself: &ActorRef<Message>) {
        if listing {
            let listed_before = std::mem::take(&mut self.others);
            listed_before.into_values().for_each(|other| self.lapse(other));
        }
        for entry in entries {
            let Some(Place::Member(name)) = self.layout.place(&entry.name) else { continue };
            if name == self.shared.context.name {
                continue;
            }
            match entry.value.as_deref().and_then(MemberRecord::parse) {
                Some(record) => {
                    self.others.insert(name.clone(), observation(name, record));
                }
                None => {
                    let gone = self.others.remove(&name);
                    gone.into_iter().for_each(|other| self.lapse(other));
                }
            }
            // One by one, so that a goodbye is seen although the record goes right after it.
            self.look();
        }
        self.look();
        self.greet(myself);
        if listing && !self.greeting.is_empty() {
            self.waiting.push(taken);
        } else {
            let _ = taken.send(());
        }
    }

    /// Keeps a member whose record is gone, unless it said goodbye.
    fn lapse(&mut self, other: Observation) {
        if !matches!(other.facts.state, AdvertisedState::Left | AdvertisedState::Away) {
            self.lapsed.insert(other.name.clone(), (self.shared.context.uptime(), other));
        }
    }

    /// Speaks to each node that claims to be a member and has not proved it yet.
    fn greet(&mut self, myself: &ActorRef<Message>) {
        for (name, other) in &self.others {
            let start = (name.clone(), other.incarnation);
            if self.greeted.contains(&start) || !self.greeting.insert(start) {
                continue;
            }
            let (net, myself) = (self.shared.peers.net.clone(), myself.clone());
            let (name, incarnation, address) = (name.clone(), other.incarnation, other.address);
            self.shared.context.spawn(async move {
                let answer = tokio::time::timeout(GREETING, net.peer(address, Some(&name))).await;
                let answered = matches!(answer, Ok(Ok(_)));
                let _ = myself.send_message(Message::Greeted { name, incarnation, answered });
            });
        }
    }

    fn was_greeted(&mut self, start: (NodeName, u64), answered: bool) {
        self.greeting.remove(&start);
        if answered {
            self.greeted.insert(start);
            let stands = |(name, incarnation): &(NodeName, u64)| {
                let known = [self.others.get(name), self.lapsed.get(name).map(|(_, other)| other)];
                known.into_iter().flatten().any(|other| other.incarnation == *incarnation)
            };
            self.greeted.retain(stands);
            self.look();
        }
        if self.greeting.is_empty() {
            for waiting in self.waiting.drain(..) {
                let _ = waiting.send(());
            }
        }
    }

    /// Builds a view of the known members, and tells the actors that need it.
    fn look(&mut self) {
        let own = MemberRecord {
            incarnation: self.incarnation,
            address: self.shared.peers.net.advertise(),
            facts: self.recorded.clone(),
        };
        let proved = |other: &&Observation| self.greeted.contains(&(other.name.clone(), other.incarnation));
        let (others, net, now, most) =
            (&self.others, &self.shared.peers.net, self.shared.context.uptime(), self.lapse_max);
        self.lapsed.retain(|name, (since, other)| {
            !others.contains_key(name) && net.is_connected(other.address) && now < *since + most
        });
        let known = self.others.values().chain(self.lapsed.values().map(|(_, other)| other));
        let mut observations: Vec<Observation> = known.filter(proved).cloned().collect();
        observations.push(observation(self.shared.context.name.clone(), own));
        if let Some(view) = self.roster.observe(self.shared.context.uptime(), observations) {
            publish(&self.shared, view);
        }
        // Whether this node has joined depends on its clock too, which makes no new view.
        self.shared.lifecycle.note_members(&self.shared.lookup.view.load());
        self.assign_mirror();
        let digests = self.roster.catalog_digests().map(|(name, digest)| (name.clone(), digest)).collect();
        self.shared.ports.catalog.digests_seen(digests);
    }

    /// The first of those who serve shows the pins, once all who live have the same.
    fn assign_mirror(&self) {
        let view = self.shared.lookup.view.load();
        let first = view.alive().find(|member| member.state == MemberState::Serving && !member.observer);
        let own = self.shared.gossip.catalog_digest.load(Ordering::Acquire);
        let mine = first.is_some_and(|member| member.name == self.shared.context.name)
            && self.roster.catalog_digests().all(|(_, digest)| digest == own);
        let duty = mine.then_some(own);
        self.mirror.send_if_modified(|before| std::mem::replace(before, duty) != duty);
    }

    /// Records another digest of the catalog, if it has changed.
    fn tell_catalog(&self) {
        let digest = Some(self.shared.gossip.catalog_digest.load(Ordering::Acquire));
        self.facts.send_if_modified(|facts| std::mem::replace(&mut facts.catalog, digest) != digest);
    }
}

fn observation(name: NodeName, record: MemberRecord) -> Observation {
    let MemberRecord { incarnation, address, facts } = record;
    Observation { name, incarnation, address, alive: true, facts }
}

/// Keeps this node's record in etcd, and tells the actor of the others'.
struct Session {
    shared: Arc<Shared>,
    etcd: EtcdConfig,
    layout: Layout,
    incarnation: u64,
    announced: watch::Receiver<NodeInfo>,
    membership: ActorRef<Message>,
    lease: Option<i64>,
    /// Since when another node has had the name.
    taken_since: Option<Instant>,
}

impl Session {
    async fn run(mut self) {
        for attempt in 0.. {
            let Err(error) = Box::pin(self.once(attempt)).await;
            match &error {
                EtcdError::LeaseLost => self.lease = None,
                EtcdError::NameInUse { at } => {
                    let since = *self.taken_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > self.etcd.lease_ttl + NAME_GRACE {
                        let name = self.shared.context.name.clone();
                        self.shared.peers.net.refuse(HelloRefusal::NameInUse { name, at: *at });
                    }
                }
                _ => {}
            }
            if self.membership.send_message(Message::Broken(error)).is_err() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn once(&mut self, attempt: usize) -> Result<Infallible, EtcdError> {
        let (mut connection, ..) = Connection::open(&self.etcd, attempt).await?;
        let lease = self.take_lease(&mut connection).await?;
        self.check_name(&mut connection).await?;
        let revision = self.list(&mut connection).await?;
        self.record(&mut connection, lease).await?;
        let mut watch = connection.watch(&self.layout.members(), revision + 1).await?;
        let mut renewals = interval(self.etcd.lease_ttl / 3);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                events = watch.next() => {
                    let entries = events?.entries;
                    let lost_record = self.is_record_lost(&entries)?;
                    self.tell(entries, false).await;
                    if lost_record {
                        self.record(&mut connection, lease).await?;
                    }
                }
                _ = renewals.tick() => connection.renew_lease(lease).await?,
                changed = self.announced.changed() => {
                    // The actor is gone, and so will this task be.
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.record(&mut connection, lease).await?;
                }
            }
        }
    }

    /// The lease of an earlier connection, if it still stands.
    async fn take_lease(&mut self, connection: &mut Connection) -> Result<i64, EtcdError> {
        if let Some(lease) = self.lease {
            connection.renew_lease(lease).await?;
            return Ok(lease);
        }
        let lease = connection.grant_lease(self.etcd.lease_ttl).await?;
        self.lease = Some(lease);
        Ok(lease)
    }

    async fn list(&self, connection: &mut Connection) -> Result<i64, EtcdError> {
        let mut all = Vec::new();
        let prefix = self.layout.members();
        let take = |mut entries| {
            all.append(&mut entries);
            std::future::ready(())
        };
        let revision = list(connection, &prefix, 0, take).await?;
        self.tell(all, true).await;
        Ok(revision)
    }

    /// Whether this node's record may be put. Another node's record goes with its lease if that
    /// node is gone. One of the same address is a former self's, whose socket this node has now.
    async fn check_name(&mut self, connection: &mut Connection) -> Result<(), EtcdError> {
        let name = self.layout.member(&self.shared.context.name);
        let standing = connection.read(&name).await?.and_then(|value| MemberRecord::parse(&value));
        if let Some(at) = standing.and_then(|record| self.name_conflict(&record)) {
            return Err(EtcdError::NameInUse { at });
        }
        self.taken_since = None;
        Ok(())
    }

    fn name_conflict(&self, record: &MemberRecord) -> Option<std::net::SocketAddr> {
        let other = record.incarnation != self.incarnation && record.address != self.shared.peers.net.advertise();
        other.then_some(record.address)
    }

    /// Whether another program deleted this node's record; an error if it was replaced.
    fn is_record_lost(&self, entries: &[Entry]) -> Result<bool, EtcdError> {
        let name = self.layout.member(&self.shared.context.name);
        let Some(own) = entries.iter().rfind(|entry| entry.name == name.as_bytes()) else { return Ok(false) };
        let Some(record) = own.value.as_deref().and_then(MemberRecord::parse) else { return Ok(true) };
        self.name_conflict(&record).map_or(Ok(false), |at| Err(EtcdError::NameInUse { at }))
    }

    async fn record(&mut self, connection: &mut Connection, lease: i64) -> Result<(), EtcdError> {
        let facts = self.announced.borrow_and_update().clone();
        let record = MemberRecord {
            incarnation: self.incarnation,
            address: self.shared.peers.net.advertise(),
            facts: facts.clone(),
        };
        connection.put_leased(&self.layout.member(&self.shared.context.name), record.to_json(), lease).await?;
        let left = matches!(facts.state, AdvertisedState::Left | AdvertisedState::Away);
        let _ = self.membership.send_message(Message::Recorded(facts));
        if left {
            connection.revoke_lease(lease).await?;
            let _ = self.membership.send_message(Message::Unregistered);
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    /// Waits until the actor has taken it in.
    async fn tell(&self, entries: Vec<Entry>, listing: bool) {
        let (taken, done) = oneshot::channel();
        let _ = self.membership.send_message(Message::Seen { entries, listing, taken });
        let _ = done.await;
    }
}
