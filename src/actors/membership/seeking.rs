//! Looks up the configured seeds and tries them, again and again.
//!
//! Both kinds of membership do this: a member to join separate parts of a cluster, an observer to
//! find a member that it can follow. Names are looked up and addresses dialled in tasks of their
//! own, which report back as messages: a name server or a seed that does not answer blocks no other
//! work.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use ractor::ActorRef;
use tracing::{info, warn};

use super::message::Message;
use crate::{
    core::membership::{Member, MemberState, SeedStatus, Unanswered},
    net::{DialError, wire::HelloRefusal},
    runtime::Shared,
};

/// How often a node contacts seeds although it knows other members: this joins clusters that were
/// separate.
const SEED_INTERVAL: Duration = Duration::from_secs(5);
/// How often a lonely node contacts its seeds, in gossip intervals.
const LONELY_SEED_TICKS: u32 = 2;

/// The tasks that are running.
#[derive(Debug, Default)]
pub(super) struct Seeking {
    /// Whether a task is resolving the seeds.
    resolving: bool,
    /// Whether a task is trying them, which takes longer if they do not answer.
    trying: bool,
}

impl Seeking {
    /// Looks up the seeds if it is due at the tick of this number.
    pub(super) fn seek(&mut self, shared: &Arc<Shared>, ticks: u32, myself: &ActorRef<Message>) {
        let profile = &shared.context.config.profile;
        let every = if is_lonely(shared) {
            LONELY_SEED_TICKS
        } else {
            u32::try_from(SEED_INTERVAL.as_millis() / profile.gossip_interval.as_millis().max(1)).unwrap_or(1).max(1)
        };
        let seeds = shared.context.config.seeds.clone();
        if seeds.is_empty() || self.resolving || !(ticks == 1 || ticks.is_multiple_of(every)) {
            return;
        }
        self.resolving = true;
        let myself = myself.clone();
        shared.context.spawn(async move {
            // Side by side: a name server that does not answer for one of them keeps none of the others waiting.
            let resolved = join_all(seeds.iter().map(|seed| async move {
                let found = tokio::net::lookup_host(seed).await.map_err(|error| error.to_string())?;
                Ok(found.collect())
            }));
            let _ = myself.send_message(Message::SeedsResolved(resolved.await));
        });
    }

    /// Takes in the addresses of the seeds, and tries them unless a task already does. Returns the
    /// addresses of other nodes.
    pub(super) fn resolved(
        &mut self,
        shared: &Arc<Shared>,
        myself: &ActorRef<Message>,
        resolved: Vec<Result<Vec<SocketAddr>, String>>,
    ) -> Vec<SocketAddr> {
        self.resolving = false;
        let own = shared.peers.net.advertise();
        let others = resolved.iter().flatten().flatten().copied().filter(|address| *address != own).collect();
        if self.trying {
            return others;
        }
        self.trying = true;
        let (myself, trying) = (myself.clone(), shared.clone());
        shared.context.spawn(async move {
            let seeds = trying.context.config.seeds.iter().zip(resolved);
            let seeds = join_all(seeds.map(|(seed, resolved)| try_seed(&trying, seed, resolved))).await;
            let _ = myself.send_message(Message::SeedsTried(seeds));
        });
        others
    }

    /// Takes in which seeds answered, and publishes it.
    pub(super) fn tried(&mut self, shared: &Shared, seeds: Vec<SeedStatus>) {
        self.trying = false;
        let before = shared.lifecycle.seeds.snapshot();
        let is_stopping = |member: &Member| matches!(member.state, MemberState::Leaving | MemberState::Away);
        let expected = shared.lookup.view.load().members().any(is_stopping);
        for (seed, before) in seeds.iter().zip(before.iter()).filter(|(seed, before)| seed != before) {
            match &seed.reason {
                // A member has said that it will be back.
                Some(reason) if expected && before.answers => {
                    info!(seed = %seed.address, %reason, "a seed does not answer")
                }
                Some(reason) => warn!(seed = %seed.address, %reason, "a seed does not answer"),
                None => info!(seed = %seed.address, was = before.reason, "a seed answers"),
            }
        }
        if *before != seeds {
            shared.lifecycle.seeds.publish(Arc::new(seeds));
        }
    }
}

/// Whether no other member is known to be alive.
pub(super) fn is_lonely(shared: &Shared) -> bool {
    shared.lookup.view.load().alive().count() <= 1
}

/// Connects to every address of a seed, or finds that it is connected.
async fn try_seed(shared: &Arc<Shared>, seed: &str, resolved: Result<Vec<SocketAddr>, String>) -> SeedStatus {
    let addresses = match resolved {
        Ok(addresses) => addresses,
        Err(error) => return SeedStatus::unresolved(seed, &error),
    };
    let own = shared.peers.net.advertise();
    let tried = addresses.into_iter().map(|address| async move {
        if address == own {
            return Err(Unanswered::Itself);
        }
        match shared.peers.net.peer(address, None).await {
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
