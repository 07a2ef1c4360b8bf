//! The membership actor.
//!
//! Supervised by the node; a failure brings the whole set back under a new incarnation, because chitchat's identity
//! contains it. *In*: ticks, announcements, resolved seeds. *Out*: the published [`View`], and to the registry the marks
//! of the others' ledgers. Invariants: only this actor publishes views; what gossip says of other members is taken as
//! it is (members are trusted), what it says of this node is never taken from others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat};
use futures::future::join_all;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::{
    Announced, Facts, Gossip, LedgerMark, MemberState, Role, View,
    clocks::{self, Clocks},
    gossip::QuicTransport,
    identities::Identities,
    roster::{GONE_GRACE, GONE_MAX, Observation, Roster},
    seeds::{SeedStatus, Unanswered},
};
use crate::{
    balancer::actor as balancer,
    catalog::actor as catalog,
    config::Profile,
    key::{Key, NodeName},
    net::{
        DialError,
        wire::{Call, GoneMember, HelloRefusal, REVISION_RELAY, Reply},
    },
    node::{ActorKind, Shared},
    registry::actor as registry,
};

/// How often seeds are contacted although others are known: it joins clusters that were apart.
const SEED_INTERVAL: Duration = Duration::from_secs(5);
/// How often a lonely node contacts its seeds, in gossip intervals.
const LONELY_SEED_TICKS: u32 = 2;
/// Between two looks at whether a member remembers other dead ones than this node does, in gossip intervals.
const GONE_TICKS: u32 = 5;
const GONE_TIMEOUT: Duration = Duration::from_secs(5);
/// Rounds of gossip that a goodbye is given to spread.
const GOODBYE_ROUNDS: u32 = 2;

pub(crate) enum Message {
    /// Look at gossip again.
    Tick,
    /// Change what this node says of itself.
    Announce(Announced),
    /// Whether this node takes new keys, or which keys are hot here, may have changed.
    LoadChanged,
    /// Seed names were resolved, in the order of the settings; or why not, in words.
    SeedsResolved(Vec<Result<Vec<SocketAddr>, String>>),
    /// Every seed was tried.
    SeedsTried(Vec<SeedStatus>),
    /// What a member remembers of those that are gone; `None` if it did not answer.
    GoneHeard(Option<Vec<GoneMember>>),
    /// Announce the end, for good or until soon, and reply when others had a chance to hear it.
    Leave { goodbye: Announced, reply: oneshot::Sender<()> },
    /// Fail, for tests of the supervisor.
    Panic,
}

pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    pub(crate) incarnation: u64,
    pub(crate) facts: Facts,
    pub(crate) inbox: mpsc::Receiver<Gossip>,
    pub(crate) mark: Arc<SharedMark>,
}

/// The mark of this node's own ledger: written by the registry at every change, read at every tick. Behind a lock, for a
/// version with the digest of another one would look like a broken copy to everybody who has that version.
#[derive(Debug, Default)]
pub(crate) struct SharedMark(Mutex<LedgerMark>);

impl SharedMark {
    pub(crate) fn store(&self, mark: LedgerMark) {
        *self.0.lock().expect("no panic under this lock") = mark;
    }

    fn load(&self) -> LedgerMark {
        *self.0.lock().expect("no panic under this lock")
    }
}

pub(crate) struct Membership;

pub(crate) struct State {
    shared: Arc<Shared>,
    chitchat: ChitchatHandle,
    incarnation: u64,
    facts: Facts,
    mark: Arc<SharedMark>,
    roster: Roster,
    rng: StdRng,
    ticks: u32,
    /// Whether the seeds are being resolved.
    resolving: bool,
    /// Whether they are being tried, which takes longer where they do not answer.
    trying: bool,
    clocks: Clocks,
    /// When the own clock was told last.
    clock_told: Duration,
    /// Whether a member is being asked which ones are gone.
    asking_of_gone: bool,
}

impl Actor for Membership {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, args: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { shared, incarnation, facts, inbox, mark } = args;
        let identities = Identities::new(own_identity(&shared, incarnation), gossip_memory(&shared.config.profile));
        let transport = QuicTransport::new(shared.net.clone(), inbox, identities);
        let pairs = facts.to_pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let chitchat = spawn_chitchat(chitchat_config(&shared, incarnation), pairs, &transport).await?;
        let interval = shared.config.profile.gossip_interval;
        myself.send_interval(interval, || Message::Tick);
        let roster = Roster::of(&shared.name, &shared.config);
        let rng = crate::world::rng(&*shared.world);
        let mut state = State {
            shared,
            chitchat,
            incarnation,
            facts,
            mark,
            roster,
            rng,
            ticks: 0,
            resolving: false,
            trying: false,
            clocks: Clocks::default(),
            clock_told: Duration::ZERO,
            asking_of_gone: false,
        };
        state.look().await;
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
                state.shared.check_incarnation(state.incarnation)?;
                state.tick(&myself).await;
            }
            Message::Announce(announced) => state.announce(announced).await,
            Message::LoadChanged => state.refresh().await,
            Message::SeedsResolved(resolved) => state.resolved(&myself, resolved),
            Message::SeedsTried(seeds) => state.tried(seeds),
            Message::GoneHeard(gone) => state.hear_of_gone(gone.unwrap_or_default()),
            Message::Leave { goodbye, reply } => state.leave(goodbye, reply).await,
            Message::Panic => panic!("membership was told to fail"),
        }
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.chitchat.abort();
        Ok(())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Also when the actor was killed or panicked, where `post_stop` does not run.
        self.chitchat.abort();
    }
}

/// How long chitchat remembers an identity that is dead; it tells of it for half of that. Its messages grow with what it
/// tells of, so this is short. More than a member needs to be found dead, and a restart to be over.
fn gossip_memory(profile: &Profile) -> Duration {
    Duration::from_secs(20) + profile.gossip_interval * 60
}

fn own_identity(shared: &Shared, incarnation: u64) -> ChitchatId {
    ChitchatId::new(shared.name.as_str(), incarnation, shared.net.advertise())
}

fn chitchat_config(shared: &Shared, incarnation: u64) -> ChitchatConfig {
    let profile = &shared.config.profile;
    let address = shared.net.advertise();
    ChitchatConfig {
        chitchat_id: own_identity(shared, incarnation),
        cluster_id: "datad".into(),
        gossip_interval: profile.gossip_interval,
        listen_addr: address,
        // Seeds are contacted from here: chitchat's own loop would outlive the node.
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: profile.phi_threshold,
            sampling_window_size: 1000,
            // A longer silence, after a pause of either side, says nothing about the usual interval.
            max_interval: profile.gossip_interval * 10,
            initial_interval: profile.first_interval,
            dead_node_grace_period: gossip_memory(profile),
        },
        marked_for_deletion_grace_period: GONE_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

impl State {
    async fn tick(&mut self, myself: &ActorRef<Message>) {
        self.ticks = self.ticks.wrapping_add(1);
        self.refresh().await;
        self.seek_seeds(myself);
        self.seek_gone();
        self.ask_of_gone(myself);
    }

    /// Gossips to a member that is gone, at times: after a partition, that is how the parts find each other again. The
    /// more there are, the more often, as chitchat does for those that it still remembers.
    fn seek_gone(&mut self) {
        let view = self.shared.view.load();
        let gone: Vec<SocketAddr> = view
            .members()
            .filter(|member| matches!(member.state, MemberState::Dead | MemberState::Away) && !member.observer)
            .map(|member| member.address)
            .collect();
        let alive = view.alive().count();
        if !gone.is_empty()
            && self.rng.random_range(0..=alive) < gone.len()
            && let Some(address) = gone.choose(&mut self.rng)
        {
            let _ = self.chitchat.gossip(*address);
        }
    }

    /// Asks a member that remembers other dead ones than this node does, one at a time, every few rounds.
    fn ask_of_gone(&mut self, myself: &ActorRef<Message>) {
        if self.asking_of_gone || !self.ticks.is_multiple_of(GONE_TICKS) {
            return;
        }
        let Some(name) = self.roster.remembering_others().choose(&mut self.rng).cloned() else { return };
        self.asking_of_gone = true;
        let (myself, shared) = (myself.clone(), self.shared.clone());
        self.shared.spawn(async move {
            let asked = async {
                let peer = shared.peer(&name).await.ok().filter(|peer| peer.revision >= REVISION_RELAY)?;
                match peer.call(Call::PullGone, GONE_TIMEOUT).await {
                    Ok(Reply::Gone(gone)) => Some(gone),
                    _ => None,
                }
            };
            let _ = myself.send_message(Message::GoneHeard(asked.await));
        });
    }

    fn hear_of_gone(&mut self, gone: Vec<GoneMember>) {
        self.asking_of_gone = false;
        let observed = gone.into_iter().take(GONE_MAX).map(|gone| gone.into_observation()).collect();
        self.roster.hear_of_gone(self.shared.uptime(), observed);
    }

    /// Says what has become different of this node, and looks at the others.
    async fn refresh(&mut self) {
        let ledger = self.mark.load();
        let catalog = Some(self.shared.catalog_digest.load(Ordering::Acquire));
        let fresh = Facts {
            ledger,
            catalog,
            accepting: self.shared.accepts(),
            hot: self.shared.extras(),
            gone: Some(self.roster.gone_digest()),
            clock: self.clock_to_tell(),
            ..self.facts.clone()
        };
        if fresh != self.facts {
            self.facts = fresh;
            self.gossip_facts().await;
        }
        self.look().await;
    }

    /// What is told of the own clock: what it said when it was told last, unless that is a while ago.
    fn clock_to_tell(&mut self) -> Option<u64> {
        let now = self.shared.uptime();
        if self.facts.clock.is_none() || now >= self.clock_told + clocks::TOLD_EVERY {
            self.clock_told = now;
            return Some(self.shared.world.unix_ms());
        }
        self.facts.clock
    }

    /// Compares the others' clocks with the own one, and says which are far from it.
    fn compare_clocks(&mut self, observations: &[Observation]) {
        let live = observations.iter().filter(|seen| seen.alive && seen.name != self.shared.name);
        let live: Vec<_> = live.filter_map(|seen| Some((&seen.name, seen.facts.clock?))).collect();
        self.clocks.observe(self.shared.world.unix_ms(), &live);
        let (far, before) = (self.clocks.far(), self.shared.clocks.snapshot());
        if far != *before {
            for other in far.iter().filter(|other| before.iter().all(|known| known.node != other.node)) {
                warn!(member = %other.node, ahead_seconds = other.ahead_seconds, "its clock is far from this node's");
            }
            self.shared.clocks.publish(Arc::new(far));
        }
    }

    async fn announce(&mut self, announced: Announced) {
        // A node that drains or has left stays so until it is started again.
        if announced > self.facts.state {
            info!(state = ?announced, "announced");
            self.facts.state = announced;
            self.gossip_facts().await;
            self.look().await;
        }
    }

    async fn leave(&mut self, goodbye: Announced, reply: oneshot::Sender<()>) {
        self.announce(goodbye).await;
        let view = self.shared.view.snapshot();
        let me = &self.shared.name;
        for member in view.alive().filter(|member| member.name != *me) {
            let _ = self.chitchat.gossip(member.address);
        }
        let patience = self.shared.config.profile.gossip_interval * GOODBYE_ROUNDS;
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            let _ = reply.send(());
        });
    }

    async fn gossip_facts(&self) {
        let pairs = self.facts.to_pairs();
        self.chitchat
            .with_chitchat(|chitchat| {
                let own = chitchat.self_node_state();
                for (key, value) in &pairs {
                    own.set(key, value);
                }
            })
            .await;
    }

    /// Takes in what gossip shows now, and tells those who need to know.
    async fn look(&mut self) {
        let mut observations = self.observations().await;
        self.check_for_usurper(&observations);
        self.compare_clocks(&observations);
        observations.retain(|seen| seen.name != self.shared.name);
        observations.push(Observation {
            name: self.shared.name.clone(),
            incarnation: self.incarnation,
            address: self.shared.net.advertise(),
            alive: true,
            facts: self.facts.clone(),
        });
        let now = self.shared.uptime();
        if let Some(view) = self.roster.observe(now, observations) {
            publish(&self.shared, view);
        }
        let marks = self.roster.ledger_marks().map(|(name, incarnation, mark)| (name.clone(), incarnation, mark));
        let _ = self.shared.registry.send(registry::Message::MarksSeen(marks.collect()));
        let digests = self.roster.catalog_digests().map(|(name, digest)| (name.clone(), digest)).collect();
        let _ = self.shared.catalog.send(catalog::Message::DigestsSeen(digests));
    }

    async fn observations(&self) -> Vec<Observation> {
        self.chitchat
            .with_chitchat(|chitchat| {
                let silent = chitchat.scheduled_for_deletion_nodes().count();
                let told = chitchat.node_states().len().saturating_sub(silent);
                self.shared.gossip_identities.store(told, Ordering::Relaxed);
                let live: BTreeSet<ChitchatId> = chitchat.live_nodes().cloned().collect();
                let states = chitchat.node_states().iter();
                states.filter_map(|(id, state)| observation(id, state, live.contains(id))).collect()
            })
            .await
    }

    /// Somebody else uses this node's name: it started when nobody who knew both of us could refuse it.
    fn check_for_usurper(&self, observations: &[Observation]) {
        let usurper = observations
            .iter()
            .find(|seen| seen.name == self.shared.name && seen.alive && seen.address != self.shared.net.advertise());
        let trouble = usurper
            .map(|other| format!("another live node, at {}, has this node's name; stop one of them", other.address));
        if self.shared.set_trouble(ActorKind::Membership, trouble.clone())
            && let Some(trouble) = trouble
        {
            warn!("{trouble}");
        }
    }

    fn seek_seeds(&mut self, myself: &ActorRef<Message>) {
        let profile = &self.shared.config.profile;
        let lonely = self.shared.view.load().alive().count() <= 1;
        let every = if lonely {
            LONELY_SEED_TICKS
        } else {
            u32::try_from(SEED_INTERVAL.as_millis() / profile.gossip_interval.as_millis().max(1)).unwrap_or(1).max(1)
        };
        let seeds = self.shared.config.seeds.clone();
        if seeds.is_empty() || self.resolving || !(self.ticks == 1 || self.ticks.is_multiple_of(every)) {
            return;
        }
        self.resolving = true;
        let myself = myself.clone();
        self.shared.spawn(async move {
            // Side by side: a name server that does not answer for one of them keeps none of the others waiting.
            let resolved = join_all(seeds.iter().map(|seed| async move {
                let found = tokio::net::lookup_host(seed).await.map_err(|error| error.to_string())?;
                Ok(found.collect())
            }));
            let _ = myself.send_message(Message::SeedsResolved(resolved.await));
        });
    }

    fn resolved(&mut self, myself: &ActorRef<Message>, resolved: Vec<Result<Vec<SocketAddr>, String>>) {
        self.resolving = false;
        let addresses: Vec<SocketAddr> = resolved.iter().flatten().flatten().copied().collect();
        self.contact(&addresses);
        if self.trying {
            return;
        }
        self.trying = true;
        let (myself, shared) = (myself.clone(), self.shared.clone());
        self.shared.spawn(async move {
            let seeds = shared.config.seeds.iter().zip(resolved);
            let seeds = join_all(seeds.map(|(seed, resolved)| try_seed(&shared, seed, resolved))).await;
            let _ = myself.send_message(Message::SeedsTried(seeds));
        });
    }

    fn tried(&mut self, seeds: Vec<SeedStatus>) {
        self.trying = false;
        let before = self.shared.seeds.snapshot();
        for (seed, before) in seeds.iter().zip(before.iter()).filter(|(seed, before)| seed != before) {
            match &seed.reason {
                Some(reason) => warn!(seed = %seed.address, %reason, "a seed does not answer"),
                None => info!(seed = %seed.address, was = before.reason, "a seed answers"),
            }
        }
        if *before != seeds {
            self.shared.seeds.publish(Arc::new(seeds));
        }
    }

    /// All seeds when alone, else one: enough to join what was apart.
    fn contact(&mut self, addresses: &[SocketAddr]) {
        let own = self.shared.net.advertise();
        let others: Vec<SocketAddr> = addresses.iter().copied().filter(|address| *address != own).collect();
        let lonely = self.shared.view.load().alive().count() <= 1;
        let chosen: Vec<SocketAddr> =
            if lonely { others } else { others.choose(&mut self.rng).copied().into_iter().collect() };
        for address in chosen {
            let _ = self.chitchat.gossip(address);
        }
    }
}

/// Connects to every address of a seed, or finds that it is connected.
async fn try_seed(shared: &Arc<Shared>, seed: &str, resolved: Result<Vec<SocketAddr>, String>) -> SeedStatus {
    let addresses = match resolved {
        Ok(addresses) => addresses,
        Err(error) => return SeedStatus::unresolved(seed, &error),
    };
    let own = shared.net.advertise();
    let tried = addresses.into_iter().map(|address| async move {
        if address == own {
            return Err(Unanswered::Itself);
        }
        match shared.net.peer(address, None).await {
            Ok(_) => Ok(()),
            // Its own name at its own address: the node has reached itself on another way.
            Err(DialError::Refused { refusal: HelloRefusal::NameInUse { at, .. }, .. }) if at == own => {
                Err(Unanswered::Itself)
            }
            Err(DialError::Refused { refusal, .. }) => Err(Unanswered::Because(format!("refused: {refusal}"))),
            Err(DialError::Unreachable { reason, .. }) => Err(Unanswered::Because(reason)),
            Err(error) => Err(Unanswered::Because(error.to_string())),
        }
    });
    SeedStatus::tried(seed, &join_all(tried).await)
}

/// The members that are gone, as far as this node remembers; not observers, which had nothing.
pub(crate) fn gone_members(view: &View) -> Vec<GoneMember> {
    let gone = view.members().filter(|member| !member.state.is_alive() && !member.observer);
    gone.map(|member| GoneMember {
        name: member.name.clone(),
        incarnation: member.incarnation,
        address: member.address,
        weight: member.weight,
        left: member.state == MemberState::Left,
    })
    .take(GONE_MAX)
    .collect()
}

impl GoneMember {
    fn into_observation(self) -> Observation {
        let facts = Facts {
            state: if self.left { Announced::Left } else { Announced::Serving },
            role: Role::Holder,
            weight: self.weight,
            accepting: false,
            http: None,
            ledger: LedgerMark::default(),
            catalog: None,
            hot: BTreeMap::new(),
            gone: None,
            clock: None,
        };
        Observation { name: self.name, incarnation: self.incarnation, address: self.address, alive: false, facts }
    }
}

fn observation(id: &ChitchatId, state: &NodeState, alive: bool) -> Option<Observation> {
    Some(Observation {
        name: NodeName::new(&*id.node_id).ok()?,
        incarnation: id.generation_id,
        address: id.gossip_advertise_addr,
        alive,
        facts: Facts::parse(|key| state.get(key))?,
    })
}

/// Makes `view` the one that the node goes by, and tells who has to do something about it.
pub(crate) fn publish(shared: &Shared, view: View) {
    let old = shared.view.snapshot();
    log_changes(&old, &view);
    shared.note_members(&view);
    let moves_keys = (old.since(), old.brake()) != (view.since(), view.brake());
    shared.view.publish(Arc::new(view));
    let _ = shared.registry.send(registry::Message::MembersChanged);
    if moves_keys {
        let _ = shared.balancer.send(balancer::Message::Sweep);
    }
    tell_of_heat(shared, &old);
}

/// The balancer looks at keys that have become hot, or are not any more.
fn tell_of_heat(shared: &Shared, old: &View) {
    let view = shared.view.load();
    let differs = |key: &&Key| old.extra(key) != view.extra(key);
    let keys: BTreeSet<Key> = old.extras().keys().chain(view.extras().keys()).filter(differs).cloned().collect();
    for key in &keys {
        info!(%key, extra = view.extra(key), "a hot key has another number of extra replicas");
    }
    if !keys.is_empty() {
        let _ = shared.balancer.send(balancer::Message::KeysChanged(keys.into_iter().collect()));
    }
}

fn log_changes(old: &View, new: &View) {
    match (old.brake(), new.brake()) {
        (None, Some(brake)) => warn!(
            "{} of {} members were lost at once; nothing is copied on account of it until some return",
            brake.lost, brake.members
        ),
        (Some(_), None) => info!("so many members are not missing any more; repairs go on"),
        _ => {}
    }
    for member in new.members() {
        let before = old.member(&member.name);
        if before.map(|before| (before.state, before.incarnation)) != Some((member.state, member.incarnation)) {
            let was = before.map(|before| before.state);
            match member.state {
                MemberState::Dead => warn!(member = %member.name, "member is dead"),
                state => info!(member = %member.name, ?state, ?was, incarnation = member.incarnation, "member changed"),
            }
        } else if before.is_some_and(|before| before.accepting != member.accepting) {
            info!(member = %member.name, accepting = member.accepting, "member changed its mind about new keys");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_and_the_digest_of_a_mark_are_always_of_one_ledger() {
        const LAST: u64 = 1_000_000;
        let mark = SharedMark::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=LAST).for_each(|number| mark.store(LedgerMark { version: number, digest: number })));
            loop {
                let LedgerMark { version, digest } = mark.load();
                assert_eq!(version, digest);
                if version == LAST {
                    break;
                }
            }
        });
    }
}
