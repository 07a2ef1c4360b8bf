//! The state that a node announces of itself, and the view that it forms of the others, whether it
//! gossips or observes.
//!
//! A member sees the others through gossip, an observer through the members that it follows. Both
//! produce observations, and this part does the rest: it keeps the roster, publishes views,
//! compares clocks, notices a second node of the same name, and tells the registry and the catalog
//! how far the others are.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tracing::{info, warn};

use crate::{
    core::membership::{AdvertisedState, Clocks, NodeInfo, Observation, Roster, clocks},
    operations::publish::publish,
    runtime::{Shared, gossip::SharedMark, lifecycle::ActorKind},
};

/// One start of this node among the others.
pub(super) struct Outlook {
    pub(super) shared: Arc<Shared>,
    pub(super) incarnation: u64,
    pub(super) facts: NodeInfo,
    pub(super) roster: Roster,
    mark: Arc<SharedMark>,
    clocks: Clocks,
    /// When this node last announced its clock.
    clock_told: Duration,
}

impl Outlook {
    pub(super) fn new(shared: Arc<Shared>, incarnation: u64, facts: NodeInfo, mark: Arc<SharedMark>) -> Self {
        let roster = Roster::of(&shared.context.name, &shared.context.config).serving(facts.serves.clone());
        let (clocks, clock_told) = (Clocks::default(), Duration::ZERO);
        Self { shared, incarnation, facts, roster, mark, clocks, clock_told }
    }

    /// Updates the state that this node announces. Returns whether it has changed.
    pub(super) fn refresh_facts(&mut self) -> bool {
        let fresh = NodeInfo {
            ledger: self.mark.load(),
            catalog: Some(self.shared.gossip.catalog_digest.load(Ordering::Acquire)),
            accepting: self.shared.disk.accepts(),
            hot: self.shared.traffic.extra_replicas(),
            gone: Some(self.roster.gone_digest(self.shared.context.uptime())),
            clock: self.clock_to_tell(),
            ..self.facts.clone()
        };
        let changed = fresh != self.facts;
        self.facts = fresh;
        changed
    }

    /// Announces a state, unless a later one was announced before: a node that drains or has left
    /// stays so until it is started again. Returns whether the state has changed.
    pub(super) fn announce(&mut self, announced: AdvertisedState) -> bool {
        let news = announced > self.facts.state;
        if news {
            info!(state = ?announced, "announced");
            self.facts.state = announced;
        }
        news
    }

    /// Takes in the present observations of the others, adds this node, and publishes the result.
    pub(super) fn take_in(&mut self, mut observations: Vec<Observation>) {
        self.check_for_name_conflict(&observations);
        self.compare_clocks(&observations);
        observations.retain(|seen| seen.name != self.shared.context.name);
        observations.push(Observation {
            name: self.shared.context.name.clone(),
            incarnation: self.incarnation,
            address: self.shared.peers.net.advertise(),
            alive: true,
            facts: self.facts.clone(),
        });
        if *self.shared.gossip.sightings.load().as_ref() != observations {
            self.shared.gossip.sightings.publish(Arc::new(observations.clone()));
        }
        let now = self.shared.context.uptime();
        if let Some(view) = self.roster.observe(now, observations) {
            publish(&self.shared, view);
        }
        // Whether this node has joined depends on its clock too, which makes no new view.
        self.shared.lifecycle.note_members(&self.shared.lookup.view.load());
        let marks = self.roster.ledger_marks().map(|(name, incarnation, mark)| (name.clone(), incarnation, mark));
        self.shared.ports.ledgers.marks_seen(marks.collect());
        let digests = self.roster.catalog_digests().map(|(name, digest)| (name.clone(), digest)).collect();
        self.shared.ports.catalog.digests_seen(digests);
    }

    /// Returns the clock reading to announce: the last announced one, unless that is too old.
    fn clock_to_tell(&mut self) -> Option<u64> {
        let now = self.shared.context.uptime();
        if self.facts.clock.is_none() || now >= self.clock_told + clocks::TOLD_EVERY {
            self.clock_told = now;
            return Some(self.shared.context.world.unix_ms());
        }
        self.facts.clock
    }

    /// Compares the clocks of the other nodes with this node's, and warns about those that are far
    /// from it.
    fn compare_clocks(&mut self, observations: &[Observation]) {
        let live = observations.iter().filter(|seen| seen.alive && seen.name != self.shared.context.name);
        let live: Vec<_> = live.filter_map(|seen| Some((&seen.name, seen.facts.clock?))).collect();
        self.clocks.observe(self.shared.context.world.unix_ms(), &live);
        let (far, before) = (self.clocks.far(), self.shared.gossip.clocks.snapshot());
        if far != *before {
            for other in far.iter().filter(|other| before.iter().all(|known| known.node != other.node)) {
                warn!(member = %other.node, ahead_seconds = other.ahead_seconds, "its clock is far from this node's");
            }
            self.shared.gossip.clocks.publish(Arc::new(far));
        }
    }

    /// Another node uses this node's name: it started when no member that knew both of them could refuse it.
    fn check_for_name_conflict(&self, observations: &[Observation]) {
        let name_conflict = observations.iter().find(|seen| {
            seen.name == self.shared.context.name && seen.alive && seen.address != self.shared.peers.net.advertise()
        });
        let trouble = name_conflict
            .map(|other| format!("another live node, at {}, has this node's name; stop one of them", other.address));
        if self.shared.lifecycle.set_degraded(ActorKind::Membership, trouble.clone())
            && let Some(trouble) = trouble
        {
            warn!("{trouble}");
        }
    }
}
