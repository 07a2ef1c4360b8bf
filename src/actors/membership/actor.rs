//! The membership actor.
//!
//! Supervised by the node; a failure brings the whole set back under a new incarnation, because
//! chitchat's identity contains it. *In*: ticks, announcements, resolved seeds. *Out*: the
//! published [`View`](crate::View), and to the registry the marks of the others' ledgers.
//! Invariants: only this actor publishes views; the actor trusts what gossip says of other members,
//! and never takes the state of this node from them.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use tokio::sync::{mpsc, oneshot};

use super::{
    departed::{self, Asking},
    gossip::{Gossip, QuicTransport},
    identities::Identities,
    message::Message,
    outlook::Outlook,
    reaper::Reaper,
    seeking::{Seeking, is_lonely},
};
use crate::{
    config::Profile,
    core::membership::{AdvertisedState, GONE_GRACE, MemberState, NodeInfo, Observation},
    key::NodeName,
    runtime::{Shared, gossip::SharedMark, ports::membership::Request},
};

/// Gossip intervals between two checks whether a member remembers other dead members than this node
/// does.
const GONE_TICKS: u32 = 5;
/// Rounds of gossip in which a goodbye can spread.
const GOODBYE_ROUNDS: u32 = 2;

pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    pub(crate) incarnation: u64,
    pub(crate) facts: NodeInfo,
    pub(crate) inbox: mpsc::Receiver<Gossip>,
    pub(crate) mark: Arc<SharedMark>,
}

pub(crate) struct Membership;

pub(crate) struct State {
    outlook: Outlook,
    chitchat: ChitchatHandle,
    rng: StdRng,
    ticks: u32,
    seeking: Seeking,
    departed: Asking,
    reaper: Reaper,
}

impl Actor for Membership {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, args: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { shared, incarnation, facts, inbox, mark } = args;
        let (identity, profile) = (own_identity(&shared, incarnation), &shared.context.config.profile);
        let identities = Identities::new(identity.clone(), gossip_memory(profile));
        let transport = QuicTransport::new(shared.peers.net.clone(), inbox, identities);
        let pairs = facts.to_pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let chitchat = spawn_chitchat(chitchat_config(identity, profile), pairs, &transport).await?;
        let interval = shared.context.config.profile.gossip_interval;
        myself.send_interval(interval, || Message::Tick);
        let rng = shared.context.rng();
        let outlook = Outlook::new(shared, incarnation, facts, mark);
        let (seeking, departed, reaper) = (Seeking::default(), Asking::default(), Reaper::default());
        let mut state = State { outlook, chitchat, rng, ticks: 0, seeking, departed, reaper };
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
                state.outlook.shared.lifecycle.check_incarnation(state.outlook.incarnation)?;
                state.tick(&myself).await;
            }
            Message::Asked(asked) => state.asked(asked.open()).await,
            Message::SeedsResolved(resolved) => {
                let addresses = state.seeking.resolved(&state.outlook.shared, &myself, resolved);
                state.contact(&addresses);
            }
            Message::SeedsTried(seeds) => state.seeking.tried(&state.outlook.shared, seeds),
            Message::GoneHeard(heard) => state.departed.heard(&mut state.outlook, heard),
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
        // This also runs when the actor was killed or panicked, where `post_stop` does not run.
        self.chitchat.abort();
    }
}

/// How long chitchat remembers an identity that is dead; it tells of it for half of that. Its
/// messages grow with what it tells of, so this is short. It is longer than the others need to find
/// a member dead, and longer than a restart takes.
pub(super) fn gossip_memory(profile: &Profile) -> Duration {
    Duration::from_secs(20) + profile.gossip_interval * 60
}

fn own_identity(shared: &Shared, incarnation: u64) -> ChitchatId {
    ChitchatId::new(shared.context.name.as_str(), incarnation, shared.peers.net.advertise())
}

/// How chitchat is set up for the node that it knows by `identity`.
pub(super) fn chitchat_config(identity: ChitchatId, profile: &Profile) -> ChitchatConfig {
    ChitchatConfig {
        cluster_id: "datad".into(),
        gossip_interval: profile.gossip_interval,
        listen_addr: identity.gossip_advertise_addr,
        chitchat_id: identity,
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
    async fn asked(&mut self, request: Request) {
        match request {
            Request::Announce(announced) => self.announce(announced).await,
            Request::LoadChanged => self.refresh().await,
            Request::TellGone(reply) => drop(reply.send(departed::told(&self.outlook))),
            Request::Remove { name, reply } => {
                let removed = departed::remove(&mut self.outlook, &name);
                // The caller finds it off the list.
                self.look().await;
                let _ = reply.send(removed);
            }
            Request::Leave { goodbye, reply } => self.leave(goodbye, reply).await,
        }
    }

    async fn tick(&mut self, myself: &ActorRef<Message>) {
        self.ticks = self.ticks.wrapping_add(1);
        self.refresh().await;
        self.seeking.seek(&self.outlook.shared, self.ticks, myself);
        self.seek_gone();
        self.departed.ask(&self.outlook, self.ticks, GONE_TICKS, &mut self.rng, myself);
        self.reaper.look(&self.outlook);
    }

    /// Gossips to a member that is gone, at times: this is how the parts find each other again
    /// after a partition. The more members are gone, the more often, as chitchat does for the
    /// members that it still remembers.
    fn seek_gone(&mut self) {
        let view = self.outlook.shared.lookup.view.load();
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

    /// Announces the changes of this node, and looks at the other members.
    async fn refresh(&mut self) {
        if self.outlook.refresh_facts() {
            self.gossip_facts().await;
        }
        self.look().await;
    }

    async fn announce(&mut self, announced: AdvertisedState) {
        if self.outlook.announce(announced) {
            self.gossip_facts().await;
            self.look().await;
        }
    }

    async fn leave(&mut self, goodbye: AdvertisedState, reply: oneshot::Sender<()>) {
        self.announce(goodbye).await;
        let view = self.outlook.shared.lookup.view.snapshot();
        let me = &self.outlook.shared.context.name;
        for member in view.alive().filter(|member| member.name != *me) {
            let _ = self.chitchat.gossip(member.address);
        }
        let patience = self.outlook.shared.context.config.profile.gossip_interval * GOODBYE_ROUNDS;
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            let _ = reply.send(());
        });
    }

    async fn gossip_facts(&self) {
        let pairs = self.outlook.facts.to_pairs();
        self.chitchat
            .with_chitchat(|chitchat| {
                let own = chitchat.self_node_state();
                for (key, value) in &pairs {
                    own.set(key, value);
                }
            })
            .await;
    }

    /// Takes in the members as gossip shows them now.
    async fn look(&mut self) {
        let observations = self.observations().await;
        self.outlook.take_in(observations);
    }

    async fn observations(&self) -> Vec<Observation> {
        self.chitchat
            .with_chitchat(|chitchat| {
                let silent = chitchat.scheduled_for_deletion_nodes().count();
                let told = chitchat.node_states().len().saturating_sub(silent);
                self.outlook.shared.gossip.identities.store(told, Ordering::Relaxed);
                let live: BTreeSet<ChitchatId> = chitchat.live_nodes().cloned().collect();
                let states = chitchat.node_states().iter();
                states.filter_map(|(id, state)| observation(id, state, live.contains(id))).collect()
            })
            .await
    }

    /// Returns all seeds if the node is alone, else one, which is enough to join parts that were
    /// separate.
    fn contact(&mut self, addresses: &[SocketAddr]) {
        let chosen: Vec<SocketAddr> = if is_lonely(&self.outlook.shared) {
            addresses.to_vec()
        } else {
            addresses.choose(&mut self.rng).copied().into_iter().collect()
        };
        for address in chosen {
            let _ = self.chitchat.gossip(address);
        }
    }
}

fn observation(id: &ChitchatId, state: &NodeState, alive: bool) -> Option<Observation> {
    Some(Observation {
        name: NodeName::new(&*id.node_id).ok()?,
        incarnation: id.generation_id,
        address: id.gossip_advertise_addr,
        alive,
        facts: NodeInfo::parse(|key| state.get(key))?,
    })
}
