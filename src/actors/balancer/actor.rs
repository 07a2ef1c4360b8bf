//! The balancer actor: which keys to look at, and carrying out what the plan says.
//!
//! Supervised by the node and restarted alone; it can find out again everything that it keeps,
//! except the keys that it vouched for in the last half minute. *In*: changed keys, finished
//! updates, sweeps (after membership changed, and at intervals), the free space on the disk. *Out*:
//! work for the updater pool; before a copy is dropped, a question to every other owner.
//!
//! ```text
//!  keys changed --> dirty --+                        /--> queue --plan again--> Ensure --> updater
//!  sweep: registry.Keys ----+--> slice of keys --> plan
//!  retry / trim timers -----+                        \--> Vouch --> owners --yes from all--> Release, Remove
//!  the disk is full --> the best to give up --------------^                 (or from one, if there is no room)
//!                              \--the only copies--> the origin --has it--> Release, Remove        (see eviction)
//! ```
//!
//! Invariants: a slice is bounded, and between slices other messages are handled; work in the pool
//! that came from here is bounded and leaves room for requests; a node that vouched for a key does
//! not drop it while other nodes may still rely on its word.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{RngExt, rngs::StdRng};
use tokio::task::yield_now;
use tracing::{debug, info};

use super::{
    candidates::{self, Found},
    eviction,
    observation::KeyObservation,
};
use crate::{
    core::{
        balancer::{
            Action, Blockers, Candidate, DiskPressure, EvictionBackoff, EvictionReason, PlanInput, PlannedAction,
            Queue, Shortages, Urgency, planned_action,
            readiness::{Next, Readiness, Sweep, is_joining},
        },
        registry::HolderState,
        updater::Origin,
    },
    key::{Key, NodeName},
    net::wire::calls::Vouch,
    operations::disk_watch::look,
    provider::UpdateReason,
    runtime::{
        Shared,
        mailbox::{Envelope, receives},
        ports::balancer::{Request, Summary},
    },
    util::timers::Timers,
};

/// Keys that one slice looks at: well below a millisecond of work.
const SLICE_KEYS: usize = 256;
/// Changed keys that the actor remembers one by one; if there are more, it looks at all keys.
const DIRTY_MAX: usize = 65_536;
/// How long an owner that vouched keeps its replica, and how long a trim may take after the last
/// owner vouched.
const VOUCH_HOLD: Duration = Duration::from_secs(30);
const VOUCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys in one question to an owner.
const VOUCH_KEYS_MAX: usize = SLICE_KEYS;
/// How often the actor looks at its timers.
const TICK: Duration = Duration::from_millis(250);
/// How often the node measures the free space on its disk.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

pub(crate) enum Message {
    /// A request from another actor.
    Asked(Envelope<Request>),
    /// The registry answered with a part of all keys.
    Swept { keys: Vec<Key> },
    /// Go on with what is waiting.
    Proceed,
    /// Look at timers.
    Tick,
    /// Enough of the other owners vouched for these keys, in time.
    Vouched { keys: Vec<(Key, EvictionReason)>, until: Duration },
    /// The node has measured its free space. If its disk is full, the message says how many keys it
    /// holds.
    Looked { held: usize },
    /// These keys may be given up, because the disk is full.
    Found(Found),
    /// The origin was asked about the only copies that were found.
    OriginsAsked,
}

receives!(Message: Asked(Request));

pub(crate) struct Balancer;

pub(crate) struct State {
    shared: Arc<Shared>,
    myself: ActorRef<Message>,
    dirty: BTreeSet<Key>,
    sweep: Sweep,
    proceeding: bool,
    queue: Queue,
    readiness: Readiness,
    rng: StdRng,
    shortages: Shortages,
    /// Until when the balancer leaves failed keys alone.
    back_off: Timers,
    /// From when on surplus keys may go.
    trim_at: Timers,
    /// Until when others rely on these.
    vouched_until: Timers,
    relief: Relief,
}

/// Measures the free space, and frees some.
#[derive(Debug, Default)]
struct Relief {
    looking: bool,
    next_look: Duration,
    /// Whether free space was low at the last look.
    tight: bool,
    pace: EvictionBackoff,
    /// Whether a task is looking for keys to give up, or asking their origins about them.
    finding: bool,
    /// The key after which the next search begins.
    after: Option<Key>,
    /// When this node last gave up a copy because only the origin has to have the key.
    evicted: Option<Duration>,
}

impl Actor for Balancer {
    type Msg = Message;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(&self, myself: ActorRef<Message>, shared: Arc<Shared>) -> Result<State, ActorProcessingErr> {
        myself.send_interval(TICK, || Message::Tick);
        // Requests keep one updater to themselves.
        let queue =
            Queue::new(shared.context.config.repairs.min(shared.context.config.updaters.saturating_sub(1)).max(1));
        let readiness = Readiness::new(&shared.context.config, &shared.lookup.view.load());
        let sweep = Sweep::new(shared.context.uptime(), shared.context.config.balance_interval);
        let rng = shared.context.rng();
        Ok(State {
            shared,
            myself,
            dirty: BTreeSet::new(),
            sweep,
            proceeding: false,
            queue,
            readiness,
            rng,
            shortages: Shortages::default(),
            back_off: Timers::default(),
            trim_at: Timers::default(),
            vouched_until: Timers::default(),
            relief: Relief::default(),
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
            Message::Swept { keys } => {
                state.swept(&keys);
                yield_now().await;
            }
            Message::Proceed => {
                state.proceed();
                yield_now().await;
            }
            Message::Tick => state.tick(),
            Message::Vouched { keys, until } => state.trim(keys, until),
            Message::Looked { held } => state.looked(held),
            Message::Found(found) => state.found(found),
            Message::OriginsAsked => state.relief.finding = false,
        }
        Ok(())
    }
}

impl State {
    fn asked(&mut self, request: Request) {
        match request {
            Request::KeysChanged(keys) => self.mark_dirty(keys),
            Request::Sweep => self.start_sweep(),
            Request::UpdateFinished(key) => self.update_finished(key),
            Request::RetryAfter(key, pause) => self.retry_after(key, pause),
            Request::Vouch { keys, reply } => drop(reply.send(self.vouch(keys))),
            Request::Explain { key, reply } => drop(reply.send(self.explain(&key))),
            Request::Shortages { prefix, limit, reply } => drop(reply.send(self.shortages.first(&prefix, limit))),
            Request::Summarize(reply) => drop(reply.send(self.summarize())),
        }
    }

    fn mark_dirty(&mut self, keys: impl IntoIterator<Item = Key>) {
        if is_joining(&self.shared.lookup.view.load()) {
            // The node looks at everything once it serves.
            self.sweep.schedule(self.shared.context.uptime());
            return;
        }
        self.dirty.extend(keys);
        if self.dirty.len() > DIRTY_MAX {
            self.dirty.clear();
            self.start_sweep();
        }
        self.wake();
    }

    /// Makes sure that `Proceed` comes, once.
    fn wake(&mut self) {
        if !self.proceeding && !self.dirty.is_empty() && self.is_settled() {
            self.proceeding = true;
            let _ = self.myself.send_message(Message::Proceed);
        }
    }

    fn proceed(&mut self) {
        self.proceeding = false;
        let mut surplus = Vec::new();
        for _ in 0..SLICE_KEYS {
            let Some(key) = self.dirty.pop_first() else { break };
            self.look_at(key, &mut surplus);
        }
        self.ask_owners(surplus);
        self.launch();
        self.wake();
    }

    fn is_settled(&self) -> bool {
        self.readiness.is_settled(&self.shared.lookup.view.load(), self.shared.context.uptime())
    }

    fn start_sweep(&mut self) {
        if !self.is_settled() {
            self.sweep.schedule(self.shared.lookup.settled_at());
            return;
        }
        let begins = self.sweep.begin(self.shared.context.uptime());
        self.add_pinned();
        if begins {
            self.ask_for_keys(None);
        }
    }

    /// The registry does not know pinned keys that no node has.
    fn add_pinned(&mut self) {
        let pinned = self.shared.lookup.policy.pinned_keys();
        self.dirty.extend(pinned.into_iter().filter(|key| !self.shared.lookup.index.contains(key)));
        self.wake();
    }

    fn ask_for_keys(&self, after: Option<Key>) {
        let (shared, myself) = (self.shared.clone(), self.myself.clone());
        self.shared.context.spawn(async move {
            let keys = shared.ports.registry.keys(after, "", SLICE_KEYS).await.unwrap_or_default();
            let _ = myself.send_message(Message::Swept { keys });
        });
    }

    fn swept(&mut self, keys: &[Key]) {
        if !self.is_settled() {
            // The members changed meanwhile; begin again when they have settled.
            self.sweep.interrupt();
            self.start_sweep();
            return;
        }
        let mut surplus = Vec::new();
        for key in keys {
            self.look_at(key.clone(), &mut surplus);
        }
        self.ask_owners(surplus);
        self.launch();
        let last = keys.last().filter(|_| keys.len() == SLICE_KEYS);
        match self.sweep.seen(last.cloned()) {
            Next::After(last) => self.ask_for_keys(Some(last)),
            Next::Over { again } => {
                debug!(under_replicated = self.shortages.len(), "looked at all keys");
                if again {
                    self.ask_for_keys(None);
                }
            }
        }
    }

    fn tick(&mut self) {
        let now = self.shared.context.uptime();
        let over = self.back_off.take_due(now, SLICE_KEYS);
        // These stay until they are looked at.
        let ripe: Vec<Key> = self.trim_at.due(now).take(SLICE_KEYS).cloned().collect();
        self.vouched_until.take_due(now, SLICE_KEYS);
        self.mark_dirty(over.into_iter().chain(ripe));
        if self.relief.evicted.is_some() && !self.is_evicting() {
            // Looks again at keys that were not copied because the space was left to new keys.
            self.relief.evicted = None;
            self.sweep.schedule(now);
        }
        if self.sweep.is_due(now) || self.queue.take_turned_away() {
            self.start_sweep();
        }
        self.launch();
        if self.shared.traffic.judge_heat() {
            self.shared.ports.membership.load_changed();
        }
        if now >= self.relief.next_look && !self.relief.looking {
            self.look_at_room();
        }
    }

    fn look_at_room(&mut self) {
        self.relief.looking = true;
        let (shared, myself) = (self.shared.clone(), self.myself.clone());
        self.shared.context.spawn(async move {
            look(&shared, false).await;
            let held = if shared.disk.watermarks().pressure() == DiskPressure::Full {
                candidates::held(&shared).await
            } else {
                0
            };
            let _ = myself.send_message(Message::Looked { held });
        });
    }

    fn looked(&mut self, held: usize) {
        let (now, room) = (self.shared.context.uptime(), self.shared.disk.watermarks());
        self.relief.looking = false;
        self.relief.next_look = now + LOOK_INTERVAL;
        let was_tight = std::mem::replace(&mut self.relief.tight, room.pressure() != DiskPressure::Low);
        if was_tight && !self.relief.tight {
            // Looks again at keys that were not copied because the disk was full.
            self.start_sweep();
        }
        if self.relief.finding || !self.is_settled() || !self.may_drop() {
            return;
        }
        // The other copies that it gives up are first made elsewhere, which takes time.
        let urgent = self.is_evicting() && eviction::is_due(&self.shared);
        if let Some(count) = self.relief.pace.begin(now, &room, held, urgent) {
            debug!(count, held, "looking for keys to give up");
            self.relief.finding = true;
            let (shared, myself, after) = (self.shared.clone(), self.myself.clone(), self.relief.after.take());
            self.shared.context.spawn(async move {
                let found = candidates::find(&shared, after, count).await;
                let _ = myself.send_message(Message::Found(found));
            });
        }
    }

    fn found(&mut self, found: Found) {
        self.relief.after = found.next;
        let is_last = |candidate: &Candidate| candidate.grounds == EvictionReason::LastCopy;
        let (last, shared): (Vec<_>, Vec<_>) = found.candidates.into_iter().partition(is_last);
        self.ask_owners(shared.into_iter().map(|Candidate { key, grounds, .. }| (key, grounds)).collect());
        self.ask_origins(last.into_iter().map(|candidate| candidate.key).collect());
    }

    /// Asks the origins whether they still have these keys, which no other node has. A key that its
    /// origin confirms is dropped at once.
    fn ask_origins(&self, keys: Vec<Key>) {
        let (shared, myself) = (self.shared.clone(), self.myself.clone());
        self.shared.context.spawn(async move {
            eviction::confirm(&shared, keys, |key| {
                let until = shared.context.uptime() + VOUCH_HOLD / 2;
                let _ = myself.send_message(Message::Vouched { keys: vec![(key, EvictionReason::LastCopy)], until });
            })
            .await;
            let _ = myself.send_message(Message::OriginsAsked);
        });
    }

    /// Whether the free space should be left to new keys.
    fn is_short_for_new_keys(&self) -> bool {
        self.is_evicting() && self.shared.disk.watermarks().pressure() != DiskPressure::Low
    }

    /// Whether this node has lately given up only copies. While free space is low, it then makes no
    /// replicas of keys that are not pinned: they would take the space of the copies that it gave
    /// up.
    fn is_evicting(&self) -> bool {
        let now = self.shared.context.uptime();
        self.relief.evicted.is_some_and(|evicted| now < evicted + eviction::AFTERMATH)
    }

    /// A node that drains or stops drops nothing: it may come back with the keys that it has.
    fn may_drop(&self) -> bool {
        !self.shared.lifecycle.is_on_its_way_out()
    }

    fn update_finished(&mut self, key: Key) {
        self.queue.finished(&key);
        self.mark_dirty([key]);
        self.launch();
    }

    /// Not all nodes should begin to repair at once, so each waits a random moment when the ring
    /// has lost a node.
    fn may_begin(&mut self) -> bool {
        let (view, now) = (self.shared.lookup.view.snapshot(), self.shared.context.uptime());
        self.readiness.may_begin(&view, now, || self.rng.random())
    }

    /// Hands waiting keys to the updater, as far as it has room and their time has come. The plan
    /// for each key is made only now.
    fn launch(&mut self) {
        if !self.may_begin() {
            return;
        }
        for _ in 0..SLICE_KEYS {
            let Some(key) = self.queue.next() else { return };
            match self.plan(&key) {
                // With all its replicas elsewhere, the key only moves here; missing ones are more urgent.
                (Action::Copy, false, _) => self.ensure(key, Origin::Never, UpdateReason::Rebalance),
                (Action::Copy, true, _) => self.ensure(key, Origin::Never, UpdateReason::Repair),
                (Action::Fetch, _, _) => self.ensure(key, Origin::Heeding, UpdateReason::Repair),
                (Action::Nothing | Action::Trim, _, _) => self.queue.finished(&key),
            }
        }
    }

    fn retry_after(&mut self, key: Key, pause: Duration) {
        self.back_off.set(&key, self.shared.context.uptime() + pause);
    }

    /// Decides about one key and sets in motion what can be done at once.
    fn look_at(&mut self, key: Key, surplus: &mut Vec<(Key, EvictionReason)>) {
        let (action, can_be_repaired, asked) = self.plan(&key);
        self.shortages.note(self.shared.context.uptime(), &key, asked);
        if action != Action::Trim {
            self.trim_at.remove(&key);
        }
        match action {
            Action::Nothing => self.queue.forget(&key),
            Action::Copy if !can_be_repaired => self.queue.want(key, Urgency::Move),
            Action::Copy | Action::Fetch => self.queue.want(key, Urgency::Repair),
            Action::Trim => {
                self.queue.forget(&key);
                let now = self.shared.context.uptime();
                match self.trim_at.get(&key) {
                    Some(at) if now >= at => surplus.push((key, EvictionReason::Surplus)),
                    Some(_) => {}
                    None => self.trim_at.set(&key, now + self.shared.context.config.trim_delay),
                }
            }
        }
    }

    /// What to do about `key`, whether that would restore a replica, and how many were asked for if it has fewer.
    fn plan(&self, key: &Key) -> (Action, bool, Option<usize>) {
        let sight = KeyObservation::of(&self.shared, key);
        let situation = sight.situation(&self.shared, self.back_off.get(key).is_some());
        // A node that drains or stops takes no keys either.
        let action = match situation.action() {
            _ if !self.may_drop() => Action::Nothing,
            Action::Copy
                if self.is_short_for_new_keys()
                    && self.shared.lookup.policy.pinned(key).is_none()
                    && sight.stays_ready(|name| self.shared.lookup.view.load().is_staying(name)) =>
            {
                Action::Nothing
            }
            action => action,
        };
        (self.or_withdraw(key, action, &sight), situation.is_under_replicated(), sight.shortage())
    }

    fn explain(&self, key: &Key) -> PlannedAction {
        let (now, shared) = (self.shared.context.uptime(), &self.shared);
        let sight = KeyObservation::of(shared, key);
        let unhindered = PlanInput { scanned: true, room: DiskPressure::Low, ..sight.situation(shared, false) };
        let left = |until: Duration| (until > now).then(|| until - now);
        let obstacles = Blockers {
            draining: !self.may_drop(),
            scanning: !shared.disk.scanned.load(Ordering::Acquire),
            settling: left(self.readiness.settled_at(&self.shared.lookup.view.load())),
            holding: left(self.readiness.held_until()),
            back_off: self.back_off.get(key).and_then(left),
            trim: self.trim_at.get(key).map(|at| at.saturating_sub(now)),
            running: self.queue.is_running(key),
            ahead: self.queue.ahead_of(key),
        };
        planned_action::intention(
            unhindered.action(),
            unhindered.is_under_replicated(),
            shared.disk.watermarks().pressure(),
            obstacles,
        )
    }

    /// Takes back a failed claim on a key that no node has ever had, once its back-off is over.
    fn or_withdraw(&self, key: &Key, action: Action, KeyObservation { known, live, .. }: &KeyObservation) -> Action {
        let mine_failed = live.contains(&(self.shared.context.name.clone(), HolderState::Failed));
        let fetching = live.iter().any(|(_, state)| *state == HolderState::Fetching);
        if mine_failed && !known && !fetching && self.back_off.get(key).is_none() {
            self.shared.ports.registry.note_release(key.clone());
        }
        action
    }

    fn ensure(&self, key: Key, origin: Origin, reason: UpdateReason) {
        debug!(%key, ?origin, ?reason, "a replica is missing here");
        self.shared.ports.updater.note_ensure(key, origin, reason);
    }

    /// Asks the other owners of each key whether they have it and will keep it: for a surplus copy
    /// all of them must vouch; if the disk is full, one is enough.
    fn ask_owners(&mut self, keys: Vec<(Key, EvictionReason)>) {
        if keys.is_empty() {
            return;
        }
        let now = self.shared.context.uptime();
        let view = self.shared.lookup.view.snapshot();
        let mut questions: BTreeMap<NodeName, Vec<Key>> = BTreeMap::new();
        let mut wanting: BTreeMap<Key, (EvictionReason, usize)> = BTreeMap::new();
        for (key, grounds) in keys {
            let mut owners = self.shared.lookup.owners(&view, &key);
            owners.retain(|owner| *owner != self.shared.context.name);
            let enough = match grounds {
                // No owner vouches for the key.
                EvictionReason::LastCopy => continue,
                EvictionReason::Surplus => {
                    // Asked again only if this attempt comes to nothing.
                    self.trim_at.set(&key, now + self.shared.context.config.trim_delay);
                    owners.len().max(1)
                }
                EvictionReason::NoRoom => 1,
            };
            for owner in owners {
                questions.entry(owner).or_default().push(key.clone());
            }
            wanting.insert(key, (grounds, enough));
        }
        let (shared, myself) = (self.shared.clone(), self.myself.clone());
        self.shared.context.spawn(async move {
            for (owner, keys) in questions {
                let answers = ask_to_vouch(&shared, &owner, keys.clone()).await;
                for (key, _) in keys.iter().zip(answers).filter(|(_, yes)| *yes) {
                    wanting.entry(key.clone()).and_modify(|(_, wanted)| *wanted = wanted.saturating_sub(1));
                }
            }
            let vouched = wanting.into_iter().filter(|(_, (_, wanted))| *wanted == 0);
            let keys = vouched.map(|(key, (grounds, _))| (key, grounds)).collect();
            let _ = myself.send_message(Message::Vouched { keys, until: now + VOUCH_HOLD / 2 });
        });
    }

    /// Whether this node is a ready owner of each key by its own view; if so, it will keep it for a while.
    fn vouch(&mut self, keys: Vec<Key>) -> Vec<bool> {
        let view = self.shared.lookup.view.snapshot();
        let stays = !self.shared.lifecycle.is_on_its_way_out();
        let until = self.shared.context.uptime() + VOUCH_HOLD;
        keys.into_iter()
            .take(VOUCH_KEYS_MAX)
            .map(|key| {
                let owner = self.shared.lookup.owners(&view, &key).contains(&self.shared.context.name);
                let ready = self.shared.lookup.own_claim(&key) == Some(HolderState::Ready);
                let vouched = owner && ready && stays;
                if vouched {
                    self.vouched_until.set(&key, until);
                }
                vouched
            })
            .collect()
    }

    fn trim(&mut self, keys: Vec<(Key, EvictionReason)>, until: Duration) {
        let now = self.shared.context.uptime();
        for (key, grounds) in keys {
            let held_for_others = self.vouched_until.get(&key).is_some_and(|until| now < until);
            if now < until && !held_for_others && self.stands(&key, grounds) {
                match grounds {
                    EvictionReason::Surplus => info!(%key, "surplus: all its owners have it"),
                    EvictionReason::NoRoom => info!(%key, "given up: there is no room, and another owner has it"),
                    EvictionReason::LastCopy => {
                        info!(%key, "given up: no node has room, and the origin has it");
                        self.relief.evicted = Some(now);
                    }
                }
                self.trim_at.remove(&key);
                self.drop_replica(key);
            }
        }
    }

    /// Whether it is still right to drop the copy.
    fn stands(&self, key: &Key, grounds: EvictionReason) -> bool {
        match grounds {
            EvictionReason::Surplus => self.plan(key).0 == Action::Trim,
            EvictionReason::NoRoom | EvictionReason::LastCopy => {
                let full = self.shared.disk.watermarks().pressure() == DiskPressure::Full;
                let candidate = candidates::candidate(&self.shared, key);
                full && self.may_drop() && candidate.is_some_and(|candidate| candidate.grounds == grounds)
            }
        }
    }

    /// The claim is withdrawn before the data is removed.
    fn drop_replica(&self, key: Key) {
        let shared = self.shared.clone();
        self.shared.context.spawn(async move {
            if shared.ports.registry.release(key.clone()).await.is_ok() {
                shared.ports.updater.remove(key);
            }
        });
    }

    fn summarize(&self) -> Summary {
        let idle = self.is_settled()
            && self.dirty.is_empty()
            && self.queue.is_empty()
            && self.trim_at.is_empty()
            && self.sweep.is_idle();
        Summary {
            under_replicated: self.shortages.len(),
            most_asked: self.shortages.most_asked(),
            idle,
            waiting: self.queue.waiting(),
            running: self.queue.running(),
        }
    }
}

async fn ask_to_vouch(shared: &Arc<Shared>, owner: &NodeName, keys: Vec<Key>) -> Vec<bool> {
    let Ok(peer) = shared.peers.peer(owner).await else { return Vec::new() };
    let ring = shared.lookup.view.load().ring().fingerprint();
    peer.call(Vouch { keys, ring }, VOUCH_TIMEOUT).await.unwrap_or_default()
}
