//! The membership of a node that only consumes: it follows the view of a few members instead of gossiping.
//!
//! ```text
//!   seeds, later any live member --StreamHeader::Watch--> all that it sees, then what changes
//!        two of them at a time                                |
//!                        followed.rs: as one --> roster (pure) --View--> everyone, lock-free
//! ```
//!
//! So thousands of observers cost the members a stream each and gossip nothing. Takes the place of
//! [`super::actor::Membership`], with the same messages, the same supervisor and the same outputs. Invariants: the members do
//! not list an observer; a node that one of the followed members sees alive is alive; while none can be followed for
//! [`LOST_ROUNDS`], no member counts as alive, and the seeds are tried again.

use std::{collections::BTreeMap, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{rngs::StdRng, seq::IndexedRandom};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::{
    departed::{self, Asking},
    message::Message,
    outlook::Outlook,
    seeking::Seeking,
};
use crate::{
    core::membership::{NodeInfo, TOLD_EVERY},
    net::{CallError, wire::REVISION_RELAY},
    operations::followed::{Told, merge},
    runtime::{Shared, gossip::SharedMark, ports::membership::Request},
};

/// Members that an observer follows at once: one may be cut off from the others, or die.
const FOLLOWED: usize = 2;
/// Rounds of gossip without a member to follow after which no member counts as alive.
const LOST_ROUNDS: u32 = 15;
/// Rounds of gossip between two checks whether a member remembers other dead members than this
/// observer does. There may be thousands of observers, and none of them needs the answer soon.
const GONE_TICKS: u32 = 100;
/// A member tells of its own clock every [`TOLD_EVERY`]. The observer gives up a member that has
/// been silent for longer than this.
const SILENCE_MAX: Duration = TOLD_EVERY.saturating_mul(4);

pub(crate) struct Arguments {
    pub(crate) shared: Arc<Shared>,
    pub(crate) incarnation: u64,
    pub(crate) facts: NodeInfo,
    pub(crate) mark: Arc<SharedMark>,
}

pub(crate) struct Observer;

pub(crate) struct State {
    outlook: Outlook,
    rng: StdRng,
    ticks: u32,
    seeking: Seeking,
    departed: Asking,
    /// Addresses of the seeds, as last resolved.
    seeds: Vec<SocketAddr>,
    followed: BTreeMap<SocketAddr, Followed>,
    /// The merged view of the followed members.
    seen: Told,
    /// Rounds since a followed member last sent anything.
    lost: u32,
}

/// A member that this observer follows, or is about to.
struct Followed {
    told: watch::Receiver<Option<Told>>,
    task: AbortOnDropHandle<()>,
}

impl Actor for Observer {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, args: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { shared, incarnation, facts, mark } = args;
        myself.send_interval(shared.context.config.profile.gossip_interval, || Message::Tick);
        let rng = shared.context.rng();
        let mut state = State {
            outlook: Outlook::new(shared, incarnation, facts, mark),
            rng,
            ticks: 0,
            seeking: Seeking::default(),
            departed: Asking::default(),
            seeds: Vec::new(),
            followed: BTreeMap::new(),
            seen: Told::default(),
            lost: 0,
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
                state.outlook.shared.lifecycle.check_incarnation(state.outlook.incarnation)?;
                state.tick(&myself);
            }
            Message::Asked(asked) => state.asked(asked.open()),
            Message::SeedsResolved(resolved) => {
                state.seeds = state.seeking.resolved(&state.outlook.shared, &myself, resolved);
                state.follow_more();
            }
            Message::SeedsTried(seeds) => state.seeking.tried(&state.outlook.shared, seeds),
            Message::GoneHeard(heard) => state.departed.heard(&mut state.outlook, heard),
        }
        Ok(())
    }
}

impl State {
    fn asked(&mut self, request: Request) {
        match request {
            Request::Announce(announced) => {
                if self.outlook.announce(announced) {
                    self.look();
                }
            }
            // No member keeps state of an observer.
            Request::Leave { reply, .. } => drop(reply.send(())),
            Request::TellGone(reply) => drop(reply.send(departed::told(&self.outlook))),
            Request::Remove { name, reply } => drop(reply.send(departed::remove(&mut self.outlook, &name))),
            Request::LoadChanged => {}
        }
    }

    fn tick(&mut self, myself: &ActorRef<Message>) {
        self.ticks = self.ticks.wrapping_add(1);
        self.followed.retain(|_, followed| !followed.task.is_finished());
        self.seeking.seek(&self.outlook.shared, self.ticks, myself);
        self.follow_more();
        self.departed.ask(&self.outlook, self.ticks, GONE_TICKS, &mut self.rng, myself);
        self.outlook.refresh_facts();
        self.look();
    }

    /// Takes in the present view of the followed members.
    fn look(&mut self) {
        let told: Vec<_> = self.followed.values().map(|followed| followed.told.borrow()).collect();
        if told.iter().any(|told| told.is_some()) {
            (self.seen, self.lost) = (merge(told.iter().filter_map(|told| told.as_ref())), 0);
        } else if self.lost < LOST_ROUNDS {
            self.lost += 1;
        } else {
            self.seen = std::mem::take(&mut self.seen).lost();
        }
        self.outlook.take_in(self.seen.clone().into());
    }

    /// Follows further members until there are [`FOLLOWED`] of them: any that is alive, or a seed while none is known.
    fn follow_more(&mut self) {
        let view = self.outlook.shared.lookup.view.snapshot();
        let me = &self.outlook.shared.context.name;
        let members = view.alive().filter(|member| member.name != *me && !member.observer);
        let mut candidates: Vec<SocketAddr> = members.map(|member| member.address).collect();
        if candidates.is_empty() {
            candidates.clone_from(&self.seeds);
        }
        candidates.retain(|address| !self.followed.contains_key(address));
        let wanted = FOLLOWED.saturating_sub(self.followed.len());
        for address in candidates.sample(&mut self.rng, wanted).copied() {
            let (send, told) = watch::channel(None);
            let shared = self.outlook.shared.clone();
            let task = self.outlook.shared.context.tasks.spawn(follow(shared, address, send));
            self.followed.insert(address, Followed { told, task: AbortOnDropHandle::new(task) });
        }
    }
}

/// Follows the member at `address` until it cannot be followed any more.
async fn follow(shared: Arc<Shared>, address: SocketAddr, told: watch::Sender<Option<Told>>) {
    match follow_once(&shared, address, &told).await {
        Ok(()) => info!(%address, "the member at this address does not let itself be followed any more"),
        Err(error) if told.borrow().is_some() => info!(%address, %error, "a member is not followed any more"),
        Err(error) => debug!(%address, %error, "cannot follow the member at this address"),
    }
}

async fn follow_once(
    shared: &Arc<Shared>,
    address: SocketAddr,
    told: &watch::Sender<Option<Told>>,
) -> Result<(), CallError> {
    let peer = shared.peers.net.peer(address, None).await?;
    if peer.revision < REVISION_RELAY {
        warn!(member = %peer.name, "it runs a version that observers cannot follow; upgrade the members first");
        return Err(CallError::Broken("its version is too old".into()));
    }
    let mut news = pin!(peer.watch().await?);
    let mut seen = Told::default();
    loop {
        let part = tokio::time::timeout(SILENCE_MAX, news.next()).await;
        let Some(part) = part.map_err(|_| CallError::Timeout(SILENCE_MAX))? else { return Ok(()) };
        let part = part?;
        let more = part.more;
        seen.apply(part);
        if !more {
            told.send_replace(Some(seen.clone()));
        }
    }
}
