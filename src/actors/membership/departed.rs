//! The exchange between members about members that are gone or were removed.
//!
//! Gossip tells of live members, and for half a minute of a member that died. The longer memory is
//! each node's roster, whose digest is gossiped; a node whose digest differs from another's asks
//! that one:
//!
//! ```text
//!   digest of A != own --PullGone--> A              (one at a time, every few rounds)
//!   roster (pure)      <--GoneMembers---- the dead with the age of their death, the removals with theirs
//! ```

use std::{collections::BTreeMap, time::Duration};

use ractor::ActorRef;
use rand::{rngs::StdRng, seq::IndexedRandom};
use tracing::info;

use super::{message::Message, outlook::Outlook};
use crate::{
    core::membership::{
        AdvertisedState, Departed, GONE_MAX, GoneMember, GoneMembers, LedgerDigest, NodeInfo, Observation,
        REMOVALS_MAX, RemoveError, RemovedMember, Role,
    },
    key::NodeName,
    net::wire::calls::PullGone,
};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks other members about the members that are gone.
#[derive(Debug, Default)]
pub(super) struct Asking {
    under_way: bool,
}

impl Asking {
    /// Asks a member that remembers other gone members than this node does: one at a time, every
    /// `every` rounds.
    pub(super) fn ask(
        &mut self,
        outlook: &Outlook,
        ticks: u32,
        every: u32,
        rng: &mut StdRng,
        myself: &ActorRef<Message>,
    ) {
        if self.under_way || !ticks.is_multiple_of(every) {
            return;
        }
        let differing = outlook.roster.remembering_others(outlook.shared.context.uptime());
        let Some(name) = differing.choose(rng).cloned() else { return };
        self.under_way = true;
        let (myself, shared) = (myself.clone(), outlook.shared.clone());
        outlook.shared.context.spawn(async move {
            let asked = async {
                let peer = shared.peers.peer(&name).await.ok()?;
                peer.call(PullGone, ANSWER_TIMEOUT).await.ok()
            };
            let _ = myself.send_message(Message::GoneHeard(asked.await));
        });
    }

    /// Takes in the answer, if there was one.
    pub(super) fn heard(&mut self, outlook: &mut Outlook, heard: Option<GoneMembers>) {
        self.under_way = false;
        let Some(GoneMembers { gone, removed }) = heard else { return };
        let now = outlook.shared.context.uptime();
        let removed = removed.into_iter().take(REMOVALS_MAX);
        let removed = removed.map(|RemovedMember { name, incarnation, age_s }| (name, incarnation, seconds(age_s)));
        outlook.roster.hear_of_removals(now, removed.collect());
        outlook.roster.hear_of_gone(now, gone.into_iter().take(GONE_MAX).map(GoneMember::into_departed).collect());
    }
}

/// The gone members that this node remembers.
pub(super) fn told(outlook: &Outlook) -> GoneMembers {
    outlook.roster.departed(outlook.shared.context.uptime())
}

/// Takes `name` off the list.
pub(super) fn remove(outlook: &mut Outlook, name: &NodeName) -> Result<(), RemoveError> {
    if outlook.shared.context.provider.is_none() {
        return Err(RemoveError::Observer(name.clone()));
    }
    outlook.roster.remove(outlook.shared.context.uptime(), name)?;
    info!(member = %name, "removed from the list of members; the others hear of it");
    Ok(())
}

fn seconds(age_s: u64) -> Duration {
    Duration::from_secs(age_s)
}

impl GoneMember {
    fn into_departed(self) -> Departed {
        let facts = NodeInfo {
            state: if self.left { AdvertisedState::Left } else { AdvertisedState::Serving },
            role: Role::Holder,
            weight: self.weight,
            accepting: false,
            http: None,
            ledger: LedgerDigest::default(),
            catalog: None,
            hot: BTreeMap::new(),
            gone: None,
            clock: None,
            serves: None,
        };
        let Self { name, incarnation, address, .. } = self;
        let seen = Observation { name, incarnation, address, alive: false, facts };
        Departed { seen, age: seconds(self.age_s) }
    }
}
