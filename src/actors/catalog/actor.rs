//! The catalog actor, which writes intents down.
//!
//! Supervised by the node and restarted alone: it reads its journal again. It is an actor of its own beside the registry
//! because its work is waiting for a disk, which no claim should have to wait for, and because its failure must not cost
//! the node its incarnation. Nothing else ever waits for it on the way of a request: readers have [`PolicyIndex`].
//!
//! *In*: writes from clients, records and pages from peers, digests from membership, completed
//! forgets. *Out*: the published intents and digest, keys to look at for the balancer, removals for
//! the updater.
//!
//! Invariants: the actor answers a write only once it is durable; a forget stays pending until this
//! node's copy is gone, even across restarts. Awaiting the disk in a handler is deliberate: steps
//! are durable in the order in which they are taken.
//!
//! [`PolicyIndex`]: crate::core::catalog::Intents

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{rngs::StdRng, seq::IndexedRandom};
use tokio::sync::oneshot;
use tracing::{debug, error, info};

use super::journal::Journal;
use crate::{
    core::catalog::{
        Catalog, Entry, HlcTimestamp, HybridClock, Intent, IntentError, Page, Pin, Record, Stamp, is_pattern,
    },
    key::{Key, NodeName},
    net::{CallError, wire::calls::PullCatalog},
    runtime::{
        Shared,
        lifecycle::ActorKind,
        mailbox::{Envelope, receives},
        ports::catalog::Request,
    },
};

/// Records that a catalog may have before new intents are refused: some ten megabytes on disk and in memory.
const RECORDS_MAX: usize = 65_536;
/// Patterns that may be pinned: every lookup of a key's owners compares the key with each pattern.
const PATTERNS_MAX: usize = 256;
/// Minimum age of a tombstone before it is dropped, in milliseconds: a week is longer than members
/// are usually away.
const RETENTION_MS: u64 = 7 * 24 * 3600 * 1000;
/// How often the actor looks for garbage.
const COLLECT_INTERVAL: Duration = Duration::from_secs(3600);
/// Rounds of gossip for which a digest has to differ before its catalog is pulled: a write on its way needs no pull.
const ROUNDS_BEFORE_PULL: u32 = 3;
const PULL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the actor takes up pending forgets again, and how many at a time.
const TICK: Duration = Duration::from_secs(1);
/// How often the actor tries again to write a log that failed, while no new intent makes it do so.
const MEND_INTERVAL: Duration = Duration::from_secs(5);
const EXECUTE_MAX: usize = 64;

pub(crate) enum Message {
    /// A request from another actor.
    Asked(Envelope<Request>),
    /// Another member's records of the keys after `after`.
    TakePage { after: Option<Key>, page: Box<Page>, reply: oneshot::Sender<()> },
    /// A pull ended, whether or not every record was taken in.
    Pulled { complete: bool },
    /// Take up the pending forgets again.
    Tick,
}

receives!(Message: Asked(Request));

pub(crate) struct CatalogKeeper;

pub(crate) struct State {
    shared: Arc<Shared>,
    catalog: Catalog,
    journal: Journal,
    clock: HybridClock,
    differing: BTreeMap<NodeName, u32>,
    pulling: bool,
    next_collect: Duration,
    next_mend: Duration,
    rng: StdRng,
}

impl Actor for CatalogKeeper {
    type Msg = Message;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(&self, myself: ActorRef<Message>, shared: Arc<Shared>) -> Result<State, ActorProcessingErr> {
        let (journal, catalog) = Journal::open(shared.context.world.disk()).await?;
        shared.lifecycle.set_degraded(ActorKind::Catalog, journal.damage().map(ToString::to_string));
        if catalog.len() > 0 {
            info!(intents = catalog.len(), pending = catalog.pending().count(), "the catalog is read");
        }
        shared.lookup.policy.show_all(&catalog);
        myself.send_interval(TICK, || Message::Tick);
        let rng = shared.context.rng();
        let next_collect = shared.context.uptime() + COLLECT_INTERVAL;
        let mut state = State {
            shared,
            catalog,
            journal,
            clock: HybridClock::default(),
            differing: BTreeMap::new(),
            pulling: false,
            next_collect,
            next_mend: Duration::ZERO,
            rng,
        };
        state.follow_all();
        state.publish_digest();
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
            Message::TakePage { after, page, reply } => {
                state.take_page(after, *page).await;
                let _ = reply.send(());
            }
            Message::Pulled { complete } => {
                state.pulling = false;
                if complete {
                    state.heal();
                }
            }
            Message::Tick => {
                state.execute_pending();
                state.mend().await;
            }
        }
        Ok(())
    }
}

impl State {
    async fn asked(&mut self, request: Request, myself: &ActorRef<Message>) {
        match request {
            Request::Write { key, intent, after, reply } => drop(reply.send(self.write(key, intent, after).await)),
            Request::Take { records, reply } => drop(reply.send(self.take_from_peer(records).await)),
            Request::PageAfter { after, reply } => drop(reply.send(self.catalog.page(after.as_ref()))),
            Request::DigestsSeen(digests) => self.digests_seen(digests, myself).await,
            Request::PendingOf { key, reply } => drop(reply.send(self.pending_of(&key))),
            Request::Executed { key, stamp, reply } => {
                self.executed(key, stamp).await;
                let _ = reply.send(());
            }
            Request::ForgetOf { key, reply } => drop(reply.send(self.catalog.forget_of(&key))),
            Request::Pins(reply) => drop(reply.send(self.pins())),
        }
    }

    async fn write(&mut self, key: Key, intent: Intent, after: HlcTimestamp) -> Result<Record, IntentError> {
        self.check_room(&key, intent)?;
        let physical = self.physical();
        let time = self.clock.after(physical, self.catalog.latest(&key).max(after));
        let record = Record { key, stamp: Stamp { time, node: self.shared.context.name.clone() }, intent };
        if self.shared.context.provider.is_some() {
            self.take_in(vec![record.clone()]).await.map_err(IntentError::Disk)?;
        }
        Ok(record)
    }

    fn check_room(&self, key: &Key, intent: Intent) -> Result<(), IntentError> {
        let is_new_pattern = matches!(intent, Intent::Pin { .. })
            && is_pattern(key)
            && !self.catalog.pins().any(|(pinned, _)| pinned == key);
        let patterns = || self.catalog.pins().filter(|(key, _)| is_pattern(key)).count();
        let full = |limit| Err(IntentError::Full { limit });
        if self.catalog.len() >= RECORDS_MAX && !self.catalog.contains(key) {
            return full(RECORDS_MAX);
        }
        if is_new_pattern && patterns() >= PATTERNS_MAX { full(PATTERNS_MAX) } else { Ok(()) }
    }

    /// Returns the time of what is known here of the same keys and is later, if anything is.
    async fn take_from_peer(&mut self, records: Vec<Record>) -> Result<Option<HlcTimestamp>, String> {
        let physical = self.physical();
        records.iter().for_each(|record| self.clock.follow(physical, record.stamp.time));
        self.take_in(records.clone()).await?;
        let refused = records.iter().find(|record| !self.catalog.knows(record));
        if let Some(record) = refused {
            return Err(format!("what is as old as this of {} was dropped here", record.key));
        }
        let known = records.iter().map(|record| (self.catalog.latest(&record.key), record.stamp.time));
        Ok(known.filter(|(latest, offered)| latest > offered).map(|(latest, _)| latest).max())
    }

    /// Takes records in, and returns when they are durable.
    async fn take_in(&mut self, records: Vec<Record>) -> Result<(), String> {
        let news: Vec<Record> = records.into_iter().filter(|record| self.catalog.apply(record)).collect();
        let persisted = self.persist(&news).await;
        // The records are shown even if the disk failed: other members may pull them from here, so
        // they hold here as well.
        self.announce(&news);
        persisted
    }

    /// Writes down the records that were taken in and the work that follows from them.
    async fn persist(&mut self, news: &[Record]) -> Result<(), String> {
        let mut entries: Vec<Entry> = news.iter().cloned().map(Entry::Record).collect();
        if self.shared.context.provider.is_some() {
            for Record { key, stamp, .. } in news.iter().filter(|record| record.intent == Intent::Forget) {
                self.catalog.set_pending(key, stamp);
                entries.push(Entry::Pending { key: key.clone(), stamp: stamp.clone() });
            }
        }
        self.append(&entries).await
    }

    async fn append(&mut self, entries: &[Entry]) -> Result<(), String> {
        let written = self.journal.append(entries, &self.catalog).await;
        self.note(written)
    }

    async fn rewrite(&mut self) -> Result<(), String> {
        let written = self.journal.rewrite(&self.catalog).await;
        self.note(written)
    }

    /// Makes the status say while the log is not written, and why.
    fn note(&mut self, written: std::io::Result<()>) -> Result<(), String> {
        if self.journal.is_broken() {
            self.next_mend = self.shared.context.uptime() + MEND_INTERVAL;
        }
        let unwritten = written.as_ref().err().map(|error| format!("the catalog cannot be written to disk: {error}"));
        let trouble = unwritten.or_else(|| self.journal.damage().map(ToString::to_string));
        if self.shared.lifecycle.set_degraded(ActorKind::Catalog, trouble) {
            match &written {
                Err(error) => error!(%error, "the catalog cannot be written to disk"),
                Ok(()) => info!("the catalog is on disk"),
            }
        }
        written.map_err(|error| error.to_string())
    }

    /// Another member has sent all its records, or has the same ones.
    fn heal(&mut self) {
        if self.journal.damage().is_some() && !self.journal.is_broken() {
            info!("what a damaged log may have lost was taken from another member");
            self.journal.heal();
            self.shared.lifecycle.set_degraded(ActorKind::Catalog, None);
        }
    }

    /// Writes the records that could not be written before: peers may have pulled them from here
    /// and count on them being kept.
    async fn mend(&mut self) {
        if self.journal.is_broken() && self.shared.context.uptime() >= self.next_mend {
            let _ = self.rewrite().await;
        }
    }

    /// Publishes to readers, and tells the actors that have work to do.
    fn announce(&self, news: &[Record]) {
        self.shared.lookup.policy.show(&self.catalog, news.iter().map(|record| &record.key));
        self.publish_digest();
        for Record { key, stamp, intent } in news {
            debug!(%key, ?intent, by = %stamp.node, "intent");
            if is_pattern(key) {
                self.shared.ports.balancer.sweep();
            } else {
                self.shared.ports.balancer.keys_changed(vec![key.clone()]);
            }
        }
        self.execute_pending();
    }

    fn publish_digest(&self) {
        self.shared.gossip.catalog_digest.store(self.catalog.digest(), Ordering::Release);
    }

    /// The updater knows what else is going on with a key; it asks back what there is to do.
    fn execute_pending(&self) {
        if self.shared.disk.scanned.load(Ordering::Acquire) {
            for (key, _) in self.catalog.pending().take(EXECUTE_MAX) {
                self.shared.ports.updater.remove(key.clone());
            }
        }
    }

    fn pending_of(&self, key: &Key) -> Option<Stamp> {
        self.catalog.pending_of(key).cloned()
    }

    async fn executed(&mut self, key: Key, stamp: Stamp) {
        if self.catalog.set_executed(&key, &stamp) {
            // If this fails, the forget is carried out once more after a restart; that costs a copy.
            let _ = self.append(&[Entry::Executed { key: key.clone(), stamp }]).await;
            self.shared.lookup.policy.show(&self.catalog, [&key]);
            self.shared.ports.balancer.keys_changed(vec![key]);
        }
    }

    async fn take_page(&mut self, after: Option<Key>, page: Page) {
        let physical = self.physical();
        page.records.iter().for_each(|record| self.clock.follow(physical, record.stamp.time));
        let merged = self.catalog.merge(after.as_ref(), &page);
        let raised = page.next.is_none() && page.floor > self.catalog.floor();
        if raised {
            self.catalog.raise_floor(page.floor);
        }
        let mut persisted = self.persist(&merged.news).await;
        if raised || !merged.dropped.is_empty() {
            info!(dropped = merged.dropped.len(), "what others have long dropped from their catalogs is dropped here");
            persisted = self.rewrite().await;
            self.shared.lookup.policy.show(&self.catalog, &merged.dropped);
        }
        if let Err(error) = persisted {
            error!(%error, "what was pulled into the catalog is not on disk");
        }
        self.announce(&merged.news);
    }

    async fn digests_seen(&mut self, digests: Vec<(NodeName, u64)>, myself: &ActorRef<Message>) {
        let own = self.catalog.digest();
        let others: BTreeMap<NodeName, u64> = digests.into_iter().collect();
        if others.values().any(|digest| *digest == own) {
            self.heal();
        }
        self.differing.retain(|name, _| others.get(name).is_some_and(|digest| *digest != own));
        for name in others.iter().filter(|(_, digest)| **digest != own).map(|(name, _)| name) {
            *self.differing.entry(name.clone()).or_default() += 1;
        }
        let ripe: Vec<NodeName> =
            self.differing.iter().filter(|(_, rounds)| **rounds > ROUNDS_BEFORE_PULL).map(|(n, _)| n.clone()).collect();
        if let Some(name) = ripe.choose(&mut self.rng).filter(|_| !self.pulling).cloned() {
            self.pulling = true;
            self.differing.insert(name.clone(), 0);
            self.pull(name, myself.clone());
        }
        if self.shared.context.uptime() >= self.next_collect {
            self.next_collect = self.shared.context.uptime() + COLLECT_INTERVAL;
            self.collect(&others).await;
        }
    }

    fn pull(&self, name: NodeName, myself: ActorRef<Message>) {
        let shared = self.shared.clone();
        self.shared.context.spawn(async move {
            let pulled = pull_all(&shared, &name, &myself).await;
            if let Err(error) = &pulled {
                debug!(member = %name, %error, "its catalog cannot be pulled");
            }
            let _ = myself.send_message(Message::Pulled { complete: pulled.is_ok() });
        });
    }

    /// Drops old tombstones, unless a member that may still need them is away.
    async fn collect(&mut self, others: &BTreeMap<NodeName, u64>) {
        let view = self.shared.lookup.view.snapshot();
        let own = self.catalog.digest();
        let mut expected = view.members().filter(|member| {
            member.name != self.shared.context.name
                && !member.observer
                && member.state != crate::core::membership::MemberState::Left
        });
        let all_agree = expected.all(|member| member.state.is_alive() && others.get(&member.name) == Some(&own));
        let floor = HlcTimestamp { ms: self.physical().saturating_sub(RETENTION_MS), count: 0 };
        // A member that is away may know the records that a damaged log lost, so no tombstone is
        // dropped before the log is healed.
        if !all_agree || self.journal.damage().is_some() {
            return;
        }
        let dropped = self.catalog.collect(floor);
        let _ = self.append(&[Entry::Floor(floor)]).await;
        self.shared.lookup.policy.show(&self.catalog, &dropped);
        self.publish_digest();
        debug!(dropped = dropped.len(), "old tombstones are dropped from the catalog");
    }

    fn pins(&self) -> Vec<Pin> {
        let pins = self.catalog.pins();
        pins.map(|(key, replicas)| Pin { key: key.clone(), replicas: replicas.into() }).collect()
    }

    fn follow_all(&mut self) {
        let physical = self.physical();
        for record in self.catalog.records() {
            self.clock.follow(physical, record.stamp.time);
        }
    }

    fn physical(&mut self) -> u64 {
        self.clock.physical(self.shared.context.world.unix_ms(), self.shared.context.uptime())
    }
}

async fn pull_all(shared: &Arc<Shared>, name: &NodeName, catalog: &ActorRef<Message>) -> Result<(), CallError> {
    let gone = || CallError::Broken("the catalog is gone".into());
    let peer = shared.peers.peer(name).await?;
    let mut after = None;
    loop {
        let page = peer.call(PullCatalog { after: after.clone() }, PULL_TIMEOUT).await?;
        let next = page.next.clone();
        let (port, taken) = oneshot::channel();
        catalog.send_message(Message::TakePage { after, page, reply: port }).map_err(|_| gone())?;
        taken.await.map_err(|_| gone())?;
        match next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
