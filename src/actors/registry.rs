//! The registry actor: owns this node's ledger, follows everybody else's, keeps the index.
//!
//! Supervised by the node; a failure brings the whole set back under a new incarnation with an empty ledger and a new
//! scan, since a version must never be given out twice. *In*: claims from updater, router and scan; views and ledger
//! marks from membership; deltas from followers and pulls. *Out*: the index, which everybody reads; changed keys to the
//! balancer; deltas to whoever follows this node.
//!
//! ```text
//!   live member appears --> follow task: position? -> feed -> Received, Received, ... (again after a broken feed)
//!   a mark stays ahead  --> pull from somebody else:  A's claims reach C through B when A and C cannot talk
//!   a member is gone    --> the same, now and then:   what it said last reaches all, also those that came too late
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{rngs::StdRng, seq::IndexedRandom};
use tokio::{sync::oneshot, task::yield_now as let_others_run};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info, warn};

use crate::{
    core::{
        membership::{Announced, LedgerMark},
        registry::{
            ClaimState, Delta, HolderState, Incarnation, IndexChange, IndexWriter, LedgerOptions, LedgerWriter,
            Position, Replica,
        },
    },
    key::{Key, NodeName},
    net::CallError,
    operations::pull::pull_through,
    provider::Provider,
    runtime::{
        Shared,
        gossip::SharedMark,
        mailbox::{Envelope, Mailbox, receives},
        ports::{
            ledgers,
            registry::{NotRecorded, Request, Summary},
        },
    },
};

/// Changes in one delta. Well below a millisecond of work, unless a table grows, and far below the largest frame.
const DELTA_CHANGES_MAX: usize = 128;
/// Keys of the first scan that are claimed in one go, and how long a part of them may wait for company.
const SCAN_BATCH_KEYS: usize = 128;
const SCAN_BATCH_WAIT: Duration = Duration::from_millis(20);
/// A scan that broke off starts again after this.
const SCAN_RETRY: Duration = Duration::from_secs(5);
/// How often a long scan says how far it is.
const SCAN_NEWS: Duration = Duration::from_secs(5);
/// Pause before a broken feed is taken up again.
const FOLLOW_RETRY: Duration = Duration::from_millis(200);
/// A ledger that stays behind its mark for so many rounds of gossip is pulled from somebody else.
const ROUNDS_BEFORE_PULL: u32 = 5;
/// A joining node that hears of nobody serves alone after so many rounds of gossip; with seeds to wait for, and without.
const ALONE_ROUNDS: u32 = 15;

pub(crate) enum Message {
    /// What others ask.
    Asked(Envelope<Request>),
    /// What gossip and the streams between nodes ask.
    OfLedgers(Envelope<ledgers::Request>),
    /// A pull from another member ended. If it got to the end: when it began.
    Pulled { node: NodeName, complete: Option<Duration> },
}

receives!(Message: Asked(Request), OfLedgers(ledgers::Request));

pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    pub(crate) incarnation: u64,
    pub(crate) mark: Arc<SharedMark>,
}

pub(crate) struct Registry;

pub(crate) struct State {
    shared: Arc<Shared>,
    writer: LedgerWriter,
    index: IndexWriter,
    replicas: BTreeMap<NodeName, Replica>,
    follows: BTreeMap<NodeName, (u64, AbortOnDropHandle<()>)>,
    marks: BTreeMap<NodeName, (u64, LedgerMark)>,
    behind: BTreeMap<NodeName, Behind>,
    /// Whose ledgers were read to the end as somebody else knows them, and when that began last.
    pulled: BTreeMap<NodeName, Duration>,
    /// The gone member that somebody was asked about last.
    asked_about: Option<NodeName>,
    mark: Arc<SharedMark>,
    rounds_alone: u32,
    serving: bool,
    rng: StdRng,
    _scan: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug, Default)]
struct Behind {
    /// Incarnation and version up to which it is known, and for how many rounds that has been so.
    position: (u64, u64),
    rounds: u32,
    pulling: bool,
}

impl Actor for Registry {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, args: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { shared, incarnation, mark } = args;
        shared.disk.scanned.store(shared.context.provider.is_none(), Ordering::Release);
        let scan = shared.context.provider.clone().map(|provider| {
            AbortOnDropHandle::new(shared.context.tasks.spawn(scan(shared.clone(), provider, Mailbox::of(&myself))))
        });
        let mut state = State {
            writer: LedgerWriter::new(Incarnation(incarnation), LedgerOptions::default()),
            index: IndexWriter::take_over(&shared.lookup.index),
            replicas: BTreeMap::new(),
            follows: BTreeMap::new(),
            marks: BTreeMap::new(),
            behind: BTreeMap::new(),
            pulled: BTreeMap::new(),
            asked_about: None,
            mark,
            rounds_alone: 0,
            serving: false,
            rng: shared.context.rng(),
            _scan: scan,
            shared,
        };
        if state.shared.context.provider.is_none() {
            state.writer.mark_scanned();
        }
        state.advanced();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Asked(asked) => state.asked(asked.open(), &myself).await,
            Message::OfLedgers(asked) => state.asked_of_ledgers(asked.open(), &myself).await,
            Message::Pulled { node, complete } => {
                if let Some(began) = complete {
                    state.pulled.insert(node.clone(), began);
                }
                state.pulled(&node);
            }
        }
        Ok(())
    }
}

impl State {
    async fn asked(&mut self, request: Request, myself: &ActorRef<Message>) {
        match request {
            Request::Claim { key, state: claim, reply } => self.claim(&key, claim, reply),
            Request::Release { key, reply } => self.release(&key, reply),
            Request::WithdrawFetching => self.withdraw_fetching(),
            Request::Found { keys, reply } => {
                self.found(keys, reply);
                let_others_run().await;
            }
            Request::ScanEnded => self.scan_ended(),
            Request::MembersChanged => self.members_changed(myself).await,
            Request::Keys { after, prefix, limit, reply } => {
                let _ = reply.send(self.index.keys_after(after.as_ref(), &prefix, limit));
            }
            Request::Summarize(reply) => drop(reply.send(self.summarize())),
        }
    }

    async fn asked_of_ledgers(&mut self, request: ledgers::Request, myself: &ActorRef<Message>) {
        match request {
            ledgers::Request::MarksSeen(marks) => self.marks_seen(marks, myself).await,
            ledgers::Request::Received { node, delta, reply } => {
                let _ = reply.send(self.received(&node, *delta));
                let_others_run().await;
            }
            ledgers::Request::DeltaSince { node, position, reply } => {
                self.delta_since(node, &position, reply);
                let_others_run().await;
            }
            ledgers::Request::PositionOf { node, reply } => drop(reply.send(self.position_of(&node))),
        }
    }

    fn claim(&mut self, key: &Key, claim: ClaimState, reply: Option<oneshot::Sender<Result<(), NotRecorded>>>) {
        let key = self.index.interned(key.clone());
        let tag = claim.tag();
        if self.writer.set(&key, claim).is_some() {
            self.changed_own(&key, Some(tag));
        }
        if let Some(reply) = reply {
            let _ = reply.send(Ok(()));
        }
    }

    fn release(&mut self, key: &Key, reply: Option<oneshot::Sender<()>>) {
        if self.writer.remove(key).is_some() {
            self.changed_own(key, None);
        }
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    fn changed_own(&mut self, key: &Key, after: Option<HolderState>) {
        self.index.set(key, &self.shared.context.name, after);
        self.advanced();
        self.shared.ports.balancer.keys_changed(vec![key.clone()]);
    }

    /// Lets gossip and the feeds know that the own ledger has grown.
    fn advanced(&self) {
        let ledger = self.writer.ledger();
        self.mark.store(LedgerMark { version: ledger.version().0, digest: ledger.digest() });
        self.shared.gossip.ledger_version.send_replace((ledger.incarnation().0, ledger.version().0));
    }

    fn withdraw_fetching(&mut self) {
        let fetching: Vec<Key> = self
            .writer
            .ledger()
            .claims()
            .filter(|(_, _, state)| **state == ClaimState::Fetching)
            .map(|(key, ..)| key.clone())
            .collect();
        for key in fetching {
            self.release(&key, None);
        }
    }

    fn found(&mut self, keys: Vec<Key>, reply: oneshot::Sender<()>) {
        // What is to be forgotten is still on disk, but no more to be had.
        for key in keys {
            if !self.shared.lookup.intents.standing(&key).pending {
                self.claim(&key, ClaimState::Ready, None);
            }
        }
        let _ = reply.send(());
    }

    fn scan_ended(&mut self) {
        self.writer.mark_scanned();
        self.advanced();
        self.shared.disk.scanned.store(true, Ordering::Release);
        info!(keys = self.writer.ledger().len(), "the local data is registered");
        self.shared.ports.balancer.sweep();
    }

    /// Follows every live member that can hold keys, and nobody else.
    async fn members_changed(&mut self, myself: &ActorRef<Message>) {
        let view = self.shared.lookup.view.snapshot();
        let wanted: BTreeMap<&NodeName, u64> = view
            .alive()
            .filter(|member| member.name != self.shared.context.name && !member.observer)
            .map(|member| (&member.name, member.incarnation))
            .collect();
        self.follows.retain(|name, (incarnation, task)| wanted.get(name) == Some(incarnation) && !task.is_finished());
        for (name, incarnation) in wanted {
            if !self.follows.contains_key(name) {
                let task = follow(self.shared.clone(), name.clone(), Mailbox::of(myself));
                let task = AbortOnDropHandle::new(self.shared.context.tasks.spawn(task));
                self.follows.insert(name.clone(), (incarnation, task));
            }
        }
        self.forget_strangers(&view).await;
    }

    /// Drops the ledgers of nodes that membership no longer remembers.
    async fn forget_strangers(&mut self, view: &crate::core::membership::View) {
        let strangers: Vec<NodeName> =
            self.replicas.keys().filter(|name| view.member(name).is_none()).cloned().collect();
        for name in strangers {
            self.drop_replica(&name).await;
        }
        self.pulled.retain(|name, _| view.member(name).is_some());
    }

    /// In parts, for it may be large.
    async fn drop_replica(&mut self, name: &NodeName) {
        let Some(replica) = self.replicas.remove(name) else { return };
        let mut keys = replica.states().map(|(key, _)| key.clone());
        loop {
            let part: Vec<Key> = keys.by_ref().take(DELTA_CHANGES_MAX).collect();
            if part.is_empty() {
                break;
            }
            for key in &part {
                self.index.set(key, name, None);
            }
            // Nobody may have them now, so that they are not among those that a sweep looks at.
            self.shared.ports.balancer.keys_changed(part);
            let_others_run().await;
        }
    }

    async fn marks_seen(&mut self, marks: Vec<(NodeName, u64, LedgerMark)>, myself: &ActorRef<Message>) {
        self.marks = marks.into_iter().map(|(name, incarnation, mark)| (name, (incarnation, mark))).collect();
        let (mut pulls, mut differing) = (Vec::new(), Vec::new());
        for (name, (incarnation, mark)) in &self.marks {
            let ledger = self.replicas.get(name).map(Replica::ledger);
            let position = ledger.map(crate::core::registry::Ledger::position).unwrap_or_default();
            let known = (position.incarnation.0, position.version.0);
            if known >= (*incarnation, mark.version) {
                self.behind.remove(name);
                if known == (*incarnation, mark.version)
                    && ledger.is_some_and(|l| l.is_complete() && l.digest() != mark.digest)
                {
                    differing.push(name.clone());
                }
                continue;
            }
            let behind = self.behind.entry(name.clone()).or_default();
            if behind.position != known {
                (behind.position, behind.rounds) = (known, 0);
            }
            behind.rounds += 1;
            if behind.rounds > ROUNDS_BEFORE_PULL && !behind.pulling {
                behind.pulling = true;
                pulls.push(name.clone());
            }
        }
        pulls.extend(self.next_gone());
        for name in pulls {
            self.pull(name, myself);
        }
        for name in differing {
            self.start_over(&name, myself).await;
        }
        self.consider_serving();
    }

    /// The member to ask about this time of those that are gone, unless an answer is still awaited. What it said last may
    /// have reached only some, and those that came after it was gone know nothing of it.
    fn next_gone(&mut self) -> Option<NodeName> {
        let view = self.shared.lookup.view.snapshot();
        let gone = || view.members().filter(|member| !member.state.is_alive() && !member.observer);
        let next = gone().find(|member| self.asked_about.as_ref() < Some(&member.name)).or_else(|| gone().next());
        let name = next?.name.clone();
        let behind = self.behind.entry(name.clone()).or_default();
        let idle = !std::mem::replace(&mut behind.pulling, true);
        self.asked_about = Some(name.clone());
        idle.then_some(name)
    }

    /// Same version, other content: a defect somewhere. Better to read it all again than to believe it.
    async fn start_over(&mut self, name: &NodeName, myself: &ActorRef<Message>) {
        error!(member = %name, "the copy of this member's ledger does not match its digest; reading it anew");
        self.drop_replica(name).await;
        self.follows.remove(name);
        self.members_changed(myself).await;
    }

    /// Asks a random other member for what it knows of `name`'s ledger.
    fn pull(&mut self, name: NodeName, myself: &ActorRef<Message>) {
        let view = self.shared.lookup.view.snapshot();
        let others: Vec<NodeName> = view
            .alive()
            .filter(|member| member.name != name && member.name != self.shared.context.name)
            .map(|member| member.name.clone())
            .collect();
        let Some(relay) = others.choose(&mut self.rng).cloned() else {
            self.pulled(&name);
            return;
        };
        let (shared, myself) = (self.shared.clone(), myself.clone());
        self.shared.context.spawn(async move {
            let began = shared.context.uptime();
            let pulled = pull_through(&shared, &name, &relay).await;
            if let Err(error) = &pulled {
                debug!(member = %name, %relay, %error, "pull failed");
            }
            let complete = pulled.is_ok().then_some(began);
            let _ = myself.send_message(Message::Pulled { node: name, complete });
        });
    }

    fn pulled(&mut self, name: &NodeName) {
        if !self.marks.contains_key(name) {
            self.behind.remove(name);
        } else if let Some(behind) = self.behind.get_mut(name) {
            behind.pulling = false;
        }
    }

    /// Takes in a part of the ledger of `node`. Whether it fits.
    fn received(&mut self, node: &NodeName, mut delta: Delta) -> bool {
        if self.shared.lookup.view.load().member(node).is_none() {
            // It was forgotten while this was on its way.
            return false;
        }
        for change in &mut delta.changes {
            change.key = self.index.interned(change.key.clone());
        }
        let replica = self.replicas.entry(node.clone()).or_default();
        let applied = replica.apply(delta);
        let fits = applied.is_ok();
        match applied {
            Ok(changes) if !changes.is_empty() => self.index_changes(node, changes),
            Ok(_) => {}
            Err(error) => debug!(member = %node, %error, "a part of its ledger does not fit"),
        }
        self.consider_serving();
        fits
    }

    fn index_changes(&mut self, node: &NodeName, changes: Vec<IndexChange>) {
        for IndexChange { key, after } in &changes {
            self.index.set(key, node, *after);
        }
        let keys = changes.into_iter().map(|change| change.key).collect();
        self.shared.ports.balancer.keys_changed(keys);
    }

    fn delta_since(&self, node: Option<NodeName>, position: &Position, reply: oneshot::Sender<Option<Delta>>) {
        let ledger = match &node {
            Some(name) if *name != self.shared.context.name => self.replicas.get(name).map(Replica::ledger),
            _ => Some(self.writer.ledger()),
        };
        let _ = reply.send(ledger.and_then(|ledger| ledger.delta_since(position, DELTA_CHANGES_MAX)));
    }

    fn position_of(&self, node: &NodeName) -> Position {
        self.replicas.get(node).map(|replica| replica.ledger().position()).unwrap_or_default()
    }

    fn is_caught_up(&self) -> bool {
        self.marks.iter().all(|(name, (incarnation, mark))| {
            let position = self.position_of(name);
            (position.incarnation.0, position.version.0) >= (*incarnation, mark.version)
        })
    }

    /// A joining node serves once it knows what the others hold; or alone, if there is nobody to ask.
    fn consider_serving(&mut self) {
        if self.serving {
            return;
        }
        let alone = self.shared.lookup.view.load().alive().count() <= 1;
        let patience = if self.shared.context.config.seeds.is_empty() { 0 } else { ALONE_ROUNDS };
        self.rounds_alone += u32::from(alone);
        let settled = self.shared.context.uptime() >= self.shared.lookup.settled_at();
        let ready = if alone { self.rounds_alone > patience } else { settled && self.is_caught_up() };
        if ready {
            // Membership may not be reachable yet while the set starts; the next round comes by here again.
            self.serving = self.shared.ports.membership.announce(Announced::Serving).is_ok();
            if self.serving && alone && patience > 0 {
                warn!("no seed answers; serving alone until one does");
            }
        }
    }

    fn summarize(&self) -> Summary {
        let view = self.shared.lookup.view.load();
        let own = self.writer.ledger();
        let mut ready = BTreeMap::from([(self.shared.context.name.clone(), own.count(HolderState::Ready))]);
        let mut fetching = own.count(HolderState::Fetching);
        for (name, replica) in &self.replicas {
            ready.insert(name.clone(), replica.count(HolderState::Ready) + replica.count(HolderState::Presumed));
            if view.is_alive(name) {
                fetching += replica.count(HolderState::Fetching);
            }
        }
        Summary { ready, fetching, caught_up: self.is_caught_up(), published: true, pulled: self.pulled.clone() }
    }
}

/// Walks over the local data once and registers it.
pub(crate) async fn scan(shared: Arc<Shared>, provider: Arc<dyn Provider>, registry: Mailbox<Request>) {
    loop {
        shared.disk.scan_found.store(0, Ordering::Release);
        let walk = std::panic::AssertUnwindSafe(walk(&shared, &*provider, &registry)).catch_unwind();
        match walk.await {
            Ok(true) => break,
            Ok(false) => return,
            Err(_) => error!("the provider panicked while listing its keys; trying again in {SCAN_RETRY:?}"),
        }
        tokio::time::sleep(SCAN_RETRY).await;
    }
    registry.scan_ended();
}

/// Whether the walk got to its end; `false` if the registry is gone.
async fn walk(shared: &Shared, provider: &dyn Provider, registry: &Mailbox<Request>) -> bool {
    let batches = tokio_stream::StreamExt::chunks_timeout(provider.keys(), SCAN_BATCH_KEYS, SCAN_BATCH_WAIT);
    let mut batches = std::pin::pin!(batches);
    let (began, mut told) = (shared.context.uptime(), shared.context.uptime());
    while let Some(batch) = batches.next().await {
        let keys: Vec<Key> = batch
            .into_iter()
            .filter_map(|item| item.inspect_err(|error| warn!(%error, "an entry of the local data is unusable")).ok())
            .collect();
        let found = shared.disk.scan_found.fetch_add(keys.len(), Ordering::AcqRel) + keys.len();
        if registry.found(keys).await.is_err() {
            return false;
        }
        let now = shared.context.uptime();
        if now >= told + SCAN_NEWS {
            told = now;
            info!(found, took = ?(now - began), "reading the local data goes on");
        }
    }
    info!(found = shared.disk.scan_found.load(Ordering::Acquire), took = ?(shared.context.uptime() - began), "the local data was read");
    true
}

/// Follows one member's ledger until it is aborted.
async fn follow(shared: Arc<Shared>, name: NodeName, registry: Mailbox<ledgers::Request>) {
    loop {
        if let Err(error) = follow_once(&shared, &name, &registry).await {
            debug!(member = %name, %error, "its feed broke");
        }
        tokio::time::sleep(FOLLOW_RETRY).await;
    }
}

async fn follow_once(
    shared: &Arc<Shared>,
    name: &NodeName,
    registry: &Mailbox<ledgers::Request>,
) -> Result<(), CallError> {
    let gone = |_| CallError::Broken("the registry is gone".into());
    let peer = shared.peers.peer(name).await?;
    let position = registry.position_of(name.clone()).await.map_err(gone)?;
    let mut deltas = std::pin::pin!(peer.follow(position).await?);
    while let Some(delta) = deltas.next().await {
        if !registry.received(name.clone(), Box::new(delta?)).await.map_err(gone)? {
            return Err(CallError::Broken("it does not continue what is known".into()));
        }
    }
    Ok(())
}
