//! The registry actor on etcd.
//!
//! Supervised by the node like the one that feeds and follows ledgers, with its messages. *In*: claims from updater,
//! router and scan; what its session sees below `registry/`. *Out*: the index; changed keys to the balancer; work that
//! somebody assigned to this node, to the updater; transactions to etcd. Invariants: those of [`Claims`]; what a node
//! found on its disk is a fact, recorded as soon as etcd is there; what it is about to do (fetch a key, give one up) is
//! an intent, and goes ahead only once etcd has it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::{
    EtcdConfig, EtcdError, Layout, RETRY,
    claims::{Claims, Effects, IndexChange},
    connection::{Connection, Entry},
    session::{News, Session, Told},
};
use crate::{
    core::{
        membership::AdvertisedState,
        registry::{
            ClaimState, IndexWriter,
            follow::{Arrival, Company},
        },
        updater::Origin,
    },
    key::Key,
    net::wire::Ensured,
    operations::scan::scan,
    provider::UpdateReason,
    runtime::{
        Shared,
        lifecycle::ActorKind,
        mailbox::{Envelope, Mailbox, receives},
        ports::registry::{NotRecorded, Request, Summary},
    },
};

/// Transactions under way. More do not make etcd faster, and fewer keys share one.
const WRITES_MAX: usize = 4;
/// Assigned keys that are with the updater at once; the others wait in etcd's own words.
const ASSIGNED_MAX: usize = 256;
/// Pause before work that found no room is offered again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an intent waits for etcd to come back: longer than an election takes.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) enum Message {
    /// What others ask.
    Asked(Envelope<Request>),
    /// From the session.
    Told(Told),
    /// A transaction over the `connections`-th connection ended.
    Written { connections: u64, keys: Vec<Key>, outcome: Result<Option<i64>, EtcdError> },
    /// What came of an assignment.
    CarriedOut { key: Key, ensured: Option<Ensured> },
    /// It is time to offer this assigned key to the updater again.
    Offer(Key),
    /// Intents have waited for etcd for long enough, unless it is back.
    LosePatience,
    /// Tell membership that this node serves, as it was not there yet to be told.
    Serve,
}

receives!(Message: Asked(Request));

impl From<Told> for Message {
    fn from(told: Told) -> Self {
        Self::Told(told)
    }
}

pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    pub(crate) etcd: EtcdConfig,
    pub(crate) incarnation: u64,
}

pub(crate) struct Registry;

pub(crate) struct State {
    shared: Arc<Shared>,
    myself: ActorRef<Message>,
    claims: Claims,
    index: IndexWriter,
    connection: Option<Connection>,
    /// How many there have been.
    connections: u64,
    /// Since when etcd has not had all that this node had to say, and would not or could not take it.
    away_since: Option<Instant>,
    writes: usize,
    intents: BTreeMap<Key, Intent>,
    assigned: VecDeque<Key>,
    carrying_out: BTreeSet<Key>,
    listed: bool,
    arrival: Arrival,
    renew: Arc<Notify>,
    _scan: Option<AbortOnDropHandle<()>>,
    _session: AbortOnDropHandle<()>,
}

/// A change that waits for etcd, and how it is undone.
struct Intent {
    before: Option<ClaimState>,
    replies: Vec<Reply>,
}

enum Reply {
    Claim(oneshot::Sender<Result<(), NotRecorded>>),
    /// Dropped, if it does not come to it.
    Release(oneshot::Sender<()>),
}

impl Actor for Registry {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, args: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { shared, etcd, incarnation } = args;
        shared.disk.scanned.store(shared.context.provider.is_none(), Ordering::Release);
        let scan = shared.context.provider.clone().map(|provider| {
            let scan = scan(shared.clone(), provider, Mailbox::of(&myself));
            AbortOnDropHandle::new(shared.context.tasks.spawn(scan))
        });
        let layout = Layout::new(&etcd.prefix);
        let renew = Arc::new(Notify::new());
        let session = Session::new(&shared.context.name, etcd, layout.clone(), myself.clone(), renew.clone());
        let mut claims = Claims::new(shared.context.name.clone(), incarnation, layout);
        if shared.context.provider.is_none() {
            claims.mark_scanned();
        }
        Ok(State {
            claims,
            index: IndexWriter::take_over(&shared.lookup.index),
            connection: None,
            connections: 0,
            away_since: Some(Instant::now()),
            writes: 0,
            intents: BTreeMap::new(),
            assigned: VecDeque::new(),
            carrying_out: BTreeSet::new(),
            listed: false,
            arrival: Arrival::default(),
            renew,
            _scan: scan,
            _session: AbortOnDropHandle::new(shared.context.tasks.spawn(session.run())),
            myself,
            shared,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Asked(asked) => state.asked(asked.open()),
            Message::Told(Told { news, taken }) => {
                state.learn(news);
                let _ = taken.send(());
            }
            Message::Written { connections, keys, outcome } => state.written(connections, keys, outcome),
            Message::CarriedOut { key, ensured } => state.carried_out(key, ensured.as_ref()),
            Message::Offer(key) => state.assigned.push_back(key),
            Message::LosePatience => state.lose_patience(),
            Message::Serve => state.consider_serving(),
        }
        state.carry_out();
        state.write();
        Ok(())
    }
}

impl State {
    fn asked(&mut self, request: Request) {
        match request {
            Request::Claim { key, state, reply } => self.claim(key, state, reply),
            Request::Release { key, reply } => self.release(&key, reply),
            Request::WithdrawFetching => {
                for key in self.claims.own_in(&ClaimState::Fetching) {
                    self.set(&key, None);
                }
            }
            Request::Found { keys, reply } => {
                for key in keys {
                    self.claim(key, ClaimState::Ready, None);
                }
                let _ = reply.send(());
            }
            Request::ScanEnded => self.scan_ended(),
            Request::MembersChanged => self.members_changed(),
            Request::Keys { after, prefix, limit, reply } => {
                let _ = reply.send(self.index.keys_after(after.as_ref(), &prefix, limit));
            }
            Request::Summarize(reply) => drop(reply.send(self.summarize())),
        }
    }

    fn learn(&mut self, news: News) {
        match news {
            News::ListingBegins => self.claims.begin_listing(),
            News::Listed(entries) => self.take_in(&entries),
            News::ListingEnds(revision) => {
                let gone = self.claims.end_listing(revision);
                self.apply(gone);
                self.listed = true;
                self.settle_intents();
            }
            News::Watching(connection) => {
                debug!("watching the registry in etcd");
                self.connection = Some(connection);
                self.connections += 1;
                self.consider_serving();
            }
            News::Changed(entries, revision) => {
                self.take_in(&entries);
                self.claims.reached(revision);
                self.settle_intents();
            }
            News::Broken(error) => self.broken(&error),
        }
    }

    fn claim(&mut self, key: Key, claim: ClaimState, reply: Option<oneshot::Sender<Result<(), NotRecorded>>>) {
        let key = self.index.interned(key);
        match reply {
            Some(reply) if claim == ClaimState::Fetching => self.intend(&key, Some(claim), Reply::Claim(reply)),
            reply => {
                self.set(&key, Some(claim));
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
            }
        }
    }

    fn release(&mut self, key: &Key, reply: Option<oneshot::Sender<()>>) {
        match reply {
            Some(reply) => self.intend(key, None, Reply::Release(reply)),
            None => self.set(key, None),
        }
    }

    /// Makes a change that counts once etcd has it, unless etcd is away for longer than a moment.
    fn intend(&mut self, key: &Key, claim: Option<ClaimState>, reply: Reply) {
        if self.is_out_of_patience() {
            refuse(vec![reply], &self.trouble());
            return;
        }
        let before = self.claims.claim(key).cloned();
        self.set(key, claim);
        let intent = self.intents.entry(key.clone()).or_insert(Intent { before, replies: Vec::new() });
        intent.replies.push(reply);
        self.settle_intent(key);
    }

    fn is_out_of_patience(&self) -> bool {
        self.away_since.is_some_and(|since| since.elapsed() >= PATIENCE)
    }

    /// Why nothing can be recorded at the moment.
    fn trouble(&self) -> String {
        self.shared.lifecycle.degraded_reason().unwrap_or_else(|| "etcd has not been reached yet".into())
    }

    fn set(&mut self, key: &Key, claim: Option<ClaimState>) {
        let tag = claim.as_ref().map(ClaimState::tag);
        if self.claims.set(key, claim) {
            self.index.set(key, &self.shared.context.name, tag);
            self.shared.ports.balancer.keys_changed(vec![key.clone()]);
        }
    }

    fn scan_ended(&mut self) {
        self.claims.mark_scanned();
        self.shared.disk.scanned.store(true, Ordering::Release);
        info!("the local data is registered");
        self.shared.ports.balancer.sweep();
    }

    fn members_changed(&mut self) {
        let view = self.shared.lookup.view.snapshot();
        let others = view.members().filter(|member| member.name != self.shared.context.name);
        let changes = self.claims.members(others.map(|member| (member.name.clone(), member.incarnation)).collect());
        self.apply(changes);
    }

    fn take_in(&mut self, entries: &[Entry]) {
        let mut effects = Effects::default();
        for entry in entries {
            self.claims.take_in(entry, |key| self.index.interned(key), &mut effects);
        }
        self.apply(effects.changes);
        for key in effects.assigned {
            info!(%key, "assigned to this node through etcd");
            self.assigned.push_back(key);
        }
    }

    fn apply(&mut self, changes: Vec<IndexChange>) {
        if changes.is_empty() {
            return;
        }
        for (key, node, state) in &changes {
            self.index.set(key, node, *state);
        }
        let keys = changes.into_iter().map(|(key, ..)| key).collect();
        self.shared.ports.balancer.keys_changed(keys);
    }

    fn settle_intents(&mut self) {
        let settled: Vec<Key> = self.intents.keys().filter(|key| self.claims.is_recorded(key)).cloned().collect();
        for key in settled {
            self.settle_intent(&key);
        }
    }

    fn settle_intent(&mut self, key: &Key) {
        if !self.claims.is_recorded(key) {
            return;
        }
        for reply in self.intents.remove(key).map(|intent| intent.replies).unwrap_or_default() {
            match reply {
                Reply::Claim(reply) => drop(reply.send(Ok(()))),
                Reply::Release(reply) => drop(reply.send(())),
            }
        }
    }

    /// Takes back what etcd has not got.
    fn lose_patience(&mut self) {
        if !self.is_out_of_patience() {
            return;
        }
        let trouble = self.trouble();
        for (key, Intent { before, replies }) in std::mem::take(&mut self.intents) {
            self.set(&key, before);
            refuse(replies, &trouble);
        }
    }

    fn broken(&mut self, error: &EtcdError) {
        if self.shared.lifecycle.set_degraded(ActorKind::Registry, Some(error.to_string())) {
            warn!(%error, "nothing can be registered in etcd; serving from what is known");
        }
        self.connection = None;
        self.writes = 0;
        self.claims.disconnected();
        self.away_since.get_or_insert_with(Instant::now);
        self.myself.send_after(PATIENCE, || Message::LosePatience);
    }

    /// Writes what etcd does not have yet.
    fn write(&mut self) {
        while self.writes < WRITES_MAX {
            let Some(connection) = &self.connection else { return };
            let Some((keys, writes)) = self.claims.next_batch() else { break };
            self.writes += 1;
            let (mut connection, connections, myself) = (connection.clone(), self.connections, self.myself.clone());
            self.shared.context.spawn(async move {
                let outcome = connection.write(&writes).await;
                let _ = myself.send_message(Message::Written { connections, keys, outcome });
            });
        }
        // Nothing is waiting to be refused.
        if self.writes == 0 && self.away_since.take().is_some() {
            self.shared.lifecycle.set_degraded(ActorKind::Registry, None);
            info!("etcd knows all that this node has to say");
        }
    }

    fn written(&mut self, connections: u64, keys: Vec<Key>, outcome: Result<Option<i64>, EtcdError>) {
        if connections != self.connections || self.connection.is_none() {
            // Of a connection that was given up. Whether it was carried out, the watch will tell.
            return;
        }
        self.writes -= 1;
        match outcome {
            Ok(revision) => {
                self.claims.written(keys, revision);
                self.settle_intents();
            }
            Err(error) => {
                self.broken(&error);
                self.renew.notify_one();
            }
        }
    }

    /// Hands assigned keys to the updater, a bounded number at a time.
    fn carry_out(&mut self) {
        while self.carrying_out.len() < ASSIGNED_MAX {
            let Some(key) = self.assigned.pop_front() else { return };
            if self.carrying_out.contains(&key) {
                // Set again meanwhile: once more after this time.
                self.offer_later(key);
                continue;
            }
            let held = self.claims.claim(&key) == Some(&ClaimState::Ready);
            self.carrying_out.insert(key.clone());
            let updater = &self.shared.ports.updater;
            // Asked for now, in the order in which they were assigned.
            let ensured = if held {
                updater.join_refresh(key.clone(), Vec::new())
            } else {
                updater.join(key.clone(), Origin::Heeding, UpdateReason::Request)
            };
            let myself = self.myself.clone();
            self.shared.context.spawn(async move {
                let _ = myself.send_message(Message::CarriedOut { key, ensured: ensured.await.ok() });
            });
        }
    }

    fn carried_out(&mut self, key: Key, ensured: Option<&Ensured>) {
        self.carrying_out.remove(&key);
        let unresolved =
            matches!(ensured, None | Some(Ensured::Failed { .. } | Ensured::Later { .. } | Ensured::Pending));
        if unresolved && self.claims.claim(&key).is_none() {
            debug!(%key, ?ensured, "assigned, but not updated; trying again");
            self.offer_later(key);
        } else {
            self.claims.done_with(&key);
        }
    }

    fn offer_later(&self, key: Key) {
        self.myself.send_after(PAUSE, || Message::Offer(key));
    }

    /// A joining node serves once it knows what the others hold.
    fn consider_serving(&mut self) {
        if self.arrival.is_due(|| Company::Others { told: self.listed }) {
            // Membership is started after this actor, and etcd may be quicker.
            match self.shared.ports.membership.announce(AdvertisedState::Serving) {
                Ok(()) => self.arrival.announced(),
                Err(_) => drop(self.myself.send_after(RETRY, || Message::Serve)),
            }
        }
    }

    fn summarize(&self) -> Summary {
        let view = self.shared.lookup.view.load();
        let (ready, fetching) = self.claims.count(|name| view.is_alive(name));
        Summary { ready, fetching, caught_up: self.listed, published: self.claims.is_idle(), pulled: BTreeMap::new() }
    }
}

fn refuse(replies: Vec<Reply>, trouble: &str) {
    for reply in replies {
        if let Reply::Claim(reply) = reply {
            let _ = reply.send(Err(NotRecorded(trouble.to_owned())));
        }
    }
}
