//! The registry actor: owns this node's ledger, follows every other node's, keeps the index.
//!
//! Supervised by the node; a failure brings the whole set back under a new incarnation with an
//! empty ledger and a new scan, since a version must never be given out twice. *In*: claims from
//! updater, router and scan; views and ledger marks from membership; deltas from followers and
//! pulls. *Out*: the index, which all actors read; changed keys to the balancer; deltas to the
//! nodes that follow this one.
//!
//! ```text
//!   live member appears --> follow task: position? -> feed -> Received, Received, ... (again after a broken feed)
//!   a mark stays ahead  --> pull from another member: A's claims reach C through B when A and C cannot talk
//!   a member is gone    --> the same, now and then:   what it said last reaches all, also those that came too late
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{rngs::StdRng, seq::IndexedRandom};
use tokio::{sync::oneshot, task::yield_now};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info, warn};

use crate::{
    core::{
        membership::{AdvertisedState, LedgerDigest},
        registry::{
            ClaimState, Delta, HolderState, Incarnation, IndexChange, IndexWriter, LedgerOptions, LedgerWriter,
            Position, Replica,
            follow::{Arrival, Company, Following, Known, Steps, relays, to_follow},
        },
    },
    key::{Key, NodeName},
    net::CallError,
    operations::pull::pull_through,
    operations::scan::scan,
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
/// Pause before a broken feed is opened again.
const FOLLOW_RETRY: Duration = Duration::from_millis(200);

pub(crate) enum Message {
    /// A request from another actor.
    Asked(Envelope<Request>),
    /// A request from gossip or from a stream of another node.
    OfLedgers(Envelope<ledgers::Request>),
    /// A pull from another member ended. If it was complete, it says when it began.
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
    following: Following,
    arrival: Arrival,
    mark: Arc<SharedMark>,
    rng: StdRng,
    _scan: Option<AbortOnDropHandle<()>>,
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
            following: Following::default(),
            arrival: Arrival::default(),
            mark,
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
            Message::Pulled { node, complete } => state.following.pull_ended(&node, complete),
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
                yield_now().await;
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
                yield_now().await;
            }
            ledgers::Request::DeltaSince { node, position, reply } => {
                self.delta_since(node, &position, reply);
                yield_now().await;
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

    /// Tells gossip and the feeds that this node's ledger has grown.
    fn advanced(&self) {
        let ledger = self.writer.ledger();
        self.mark.store(LedgerDigest { version: ledger.version().0, digest: ledger.digest() });
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
        // A key that is to be forgotten is still on disk, but the node no longer offers it.
        for key in keys {
            if !self.shared.lookup.policy.standing(&key).pending {
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

    /// Follows every live member that can hold keys, and no other node.
    async fn members_changed(&mut self, myself: &ActorRef<Message>) {
        let view = self.shared.lookup.view.snapshot();
        let wanted = to_follow(&view);
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
        self.following.forget_strangers(view);
    }

    /// The scan is sent in parts, because it may be large.
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
            // No node may have these keys now, so a sweep would not look at them.
            self.shared.ports.balancer.keys_changed(part);
            yield_now().await;
        }
    }

    async fn marks_seen(&mut self, marks: Vec<(NodeName, u64, LedgerDigest)>, myself: &ActorRef<Message>) {
        let view = self.shared.lookup.view.snapshot();
        let Steps { pull, start_over } = self.following.marks_seen(marks, &view, |name| known(&self.replicas, name));
        for name in pull {
            self.pull(name, myself);
        }
        for name in start_over {
            self.start_over(&name, myself).await;
        }
        self.consider_serving();
    }

    /// Two ledgers have the same version and different content, which is a defect. The node reads
    /// the ledger again from the start.
    async fn start_over(&mut self, name: &NodeName, myself: &ActorRef<Message>) {
        error!(member = %name, "the copy of this member's ledger does not match its digest; reading it anew");
        self.drop_replica(name).await;
        self.follows.remove(name);
        self.members_changed(myself).await;
    }

    /// Asks a random other member for its copy of `name`'s ledger.
    fn pull(&mut self, name: NodeName, myself: &ActorRef<Message>) {
        let others = relays(&self.shared.lookup.view.load(), &name);
        let Some(relay) = others.choose(&mut self.rng).cloned() else {
            self.following.pull_ended(&name, None);
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

    /// Takes in a part of the ledger of `node`. Returns whether it fits.
    fn received(&mut self, node: &NodeName, mut delta: Delta) -> bool {
        if self.shared.lookup.view.load().member(node).is_none() {
            // The member was forgotten while this delta was on its way.
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
        self.following.is_caught_up(|name| known(&self.replicas, name))
    }

    /// A joining node serves once it knows which keys the others hold, or at once if it is alone.
    fn consider_serving(&mut self) {
        let alone = || self.shared.lookup.view.load().alive().count() <= 1;
        let has_seeds = !self.shared.context.config.seeds.is_empty();
        let settled = || self.shared.context.uptime() >= self.shared.lookup.settled_at();
        let company = || {
            if alone() {
                Company::Nobody { expected: has_seeds }
            } else {
                let is_caught_up = || self.following.is_caught_up(|name| known(&self.replicas, name));
                Company::Others { told: settled() && is_caught_up() }
            }
        };
        // Membership may not be reachable yet while the set starts; the next round tries again.
        if self.arrival.is_due(company) && self.shared.ports.membership.announce(AdvertisedState::Serving).is_ok() {
            self.arrival.announced();
            if has_seeds && alone() {
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
        Summary {
            ready,
            fetching,
            caught_up: self.is_caught_up(),
            published: true,
            pulled: self.following.pulled().clone(),
        }
    }
}

/// Returns the position up to which this node knows the ledger of `name`.
fn known(replicas: &BTreeMap<NodeName, Replica>, name: &NodeName) -> Known {
    Known::of(replicas.get(name).map(Replica::ledger))
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
