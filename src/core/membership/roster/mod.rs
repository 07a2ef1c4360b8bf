//! The pure core of membership: observations from gossip go in; the members and the ring come out.
//!
//! Rules that everything else relies on:
//!
//! 1. Of several observations of one name, the live one with the highest incarnation counts, else the highest.
//! 2. A member that died stays on the ring for `repair_delay`: until then its keys have the same owners, so that a
//!    restart moves nothing. If too many died with it, it stays longer (see [`super::mass_failure`]). One that said goodbye
//!    leaves the ring at once.
//! 3. A member that is joining is put on the ring when it serves, unless it still has its place.
//! 4. The ring depends on the set of members on it alone, never on the order of events.
//! 5. A member that was dead before this node came is a member only after `repair_delay`: until then it may just not have
//!    been heard of yet. It has no place on the ring, but what it had is worth knowing.
//! 6. What others tell of the dead comes with its age, so that a member's death is as old here as where it was seen.
//! 7. A removed dead member is not a member, whichever node still tells of it, until it shows a
//!    sign of life (see [`super::removals`]).
//! 8. A member that takes no new keys stays on the ring: it keeps what it has, and the view passes it over for the rest.

mod entry;
mod gone;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    config::NodeConfig,
    core::{
        membership::{
            gone::GONE_MAX,
            mass_failure::{MassFailure, MassFailurePolicy},
            node_info::{AdvertisedState, LedgerDigest, Role},
            observation::{Departed, Observation},
            removals::Removals,
            roster::entry::Entry,
            serves::Serves,
            view::{Member, MemberState, View},
        },
        placement::{Ring, RingOptions},
    },
    key::{Key, NodeName},
};

/// How long those are remembered that said goodbye. A member that died may still have what others do not, or what was
/// forgotten since, so it is remembered for longer.
pub(crate) const GONE_GRACE: Duration = Duration::from_secs(24 * 3600);
/// How long a node remembers observers that are gone, for operators who read the list of members.
/// Observers had no keys.
const OBSERVER_GRACE: Duration = Duration::from_secs(60);

/// All members that one node knows of.
#[derive(Debug)]
pub(crate) struct Roster {
    me: NodeName,
    /// What this node serves, if it says.
    serves: Option<Serves>,
    repair_delay: Duration,
    brake_policy: MassFailurePolicy,
    brake: Option<MassFailure>,
    braked_at: Option<Duration>,
    entries: BTreeMap<NodeName, Entry>,
    /// Members that others remember and that were never heard from here, and since when this node knows.
    unconfirmed: BTreeMap<NodeName, (Duration, Departed)>,
    removals: Removals,
    /// Whether something has changed that the last view does not show.
    is_stale: bool,
    ring: Arc<Ring>,
    on_ring: Vec<(NodeName, u32)>,
    /// Those on the ring that take no new keys.
    full: Vec<NodeName>,
    /// How many replicas more than usual hot keys should have: the most that a live member says.
    extra_replicas: Arc<BTreeMap<Key, u8>>,
    since: Duration,
}

impl Roster {
    /// A roster without members, which treats losses as `config` says.
    pub(crate) fn of(me: &NodeName, config: &NodeConfig) -> Self {
        let brake = MassFailurePolicy { share: config.mass_failure_share, pause: config.mass_failure_pause };
        Self::new(me.clone(), config.repair_delay, brake)
    }

    fn new(me: NodeName, repair_delay: Duration, brake_policy: MassFailurePolicy) -> Self {
        Self {
            me,
            serves: None,
            repair_delay,
            brake_policy,
            brake: None,
            braked_at: None,
            entries: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            removals: Removals::default(),
            is_stale: false,
            ring: Arc::new(Ring::build([], RingOptions::default())),
            on_ring: Vec::new(),
            full: Vec::new(),
            extra_replicas: Arc::default(),
            since: Duration::ZERO,
        }
    }

    /// Members that serve something else than this neither keep its keys nor leave theirs to it.
    pub(crate) fn serving(self, serves: Option<Serves>) -> Self {
        Self { serves, ..self }
    }

    /// Takes in what gossip shows at `now` (any monotonic origin). Returns a view if it differs from the last one.
    pub(crate) fn observe(&mut self, now: Duration, observations: Vec<Observation>) -> Option<View> {
        let mut best: BTreeMap<NodeName, Observation> = BTreeMap::new();
        for seen in observations {
            match best.get(&seen.name) {
                Some(known) if known.rank() >= seen.rank() => {}
                _ => {
                    best.insert(seen.name.clone(), seen);
                }
            }
        }
        self.removals.expire(now);
        let before: Vec<Member> = self.entries.values().map(|entry| entry.member.clone()).collect();
        self.entries.retain(|name, entry| {
            if best.contains_key(name) {
                return true;
            }
            entry.mark_gone(now, MemberState::Dead);
            if entry.member.state == MemberState::Away
                && entry.gone_at.is_some_and(|gone| now >= gone + self.repair_delay)
            {
                entry.member.state = MemberState::Dead;
            }
            let is_missed = entry.is_missed() && !entry.member.observer;
            let grace = if entry.member.observer { OBSERVER_GRACE } else { GONE_GRACE };
            is_missed || entry.gone_at.is_none_or(|gone| now < gone + grace)
        });
        for seen in best.into_values() {
            self.take_in(now, seen);
        }
        self.believe_unconfirmed(now);
        self.forget_oldest();
        let brake = self.brake;
        self.brake = self.judge_losses(now);
        self.braked_at = self.brake.map(|_| now).or(self.braked_at);
        // Not `||`: both have to be done.
        let ring_changed = self.rebuild_ring(now) | self.note_full();
        let alive = |members: &mut dyn Iterator<Item = &Member>| -> Vec<(NodeName, u64)> {
            // A node that keeps no keys moves none.
            let alive = members.filter(|member| member.state.is_alive() && !member.observer);
            alive.map(|member| (member.name.clone(), member.incarnation)).collect()
        };
        if ring_changed || alive(&mut before.iter()) != alive(&mut self.entries.values().map(|entry| &entry.member)) {
            self.since = now;
        }
        let heat_changed = self.note_heat();
        let changed = std::mem::take(&mut self.is_stale)
            || ring_changed
            || heat_changed
            || self.brake != brake
            || !self.entries.values().map(|entry| &entry.member).eq(before.iter());
        changed.then(|| self.view())
    }

    /// The ledger marks of the other live members, as gossiped. Observers keep no keys, so no node
    /// follows their ledgers.
    pub(crate) fn ledger_marks(&self) -> impl Iterator<Item = (&NodeName, u64, LedgerDigest)> {
        self.entries
            .values()
            .filter(|entry| entry.member.name != self.me && entry.member.state.is_alive() && !entry.member.observer)
            .map(|entry| (&entry.member.name, entry.member.incarnation, entry.ledger))
    }

    /// Digests of the catalogs of the other live members, as gossiped. Excludes observers, because
    /// nodes may not ask them for a catalog.
    pub(crate) fn catalog_digests(&self) -> impl Iterator<Item = (&NodeName, u64)> {
        let others = self.entries.values().filter(|entry| entry.member.name != self.me && !entry.member.observer);
        let live = others.filter(|entry| entry.member.state.is_alive());
        live.filter_map(|entry| Some((&entry.member.name, entry.catalog?)))
    }

    fn view(&self) -> View {
        let members = self.entries.iter().map(|(name, entry)| (name.clone(), entry.member.clone())).collect();
        View::new(self.me.clone(), members, self.ring.clone(), self.since)
            .with_brake(self.brake)
            .with_extras(self.extra_replicas.clone())
    }

    fn take_in(&mut self, now: Duration, seen: Observation) {
        let state = match (seen.facts.state, seen.alive) {
            (AdvertisedState::Left, _) => MemberState::Left,
            (AdvertisedState::Away, _) => self.away_or_dead(now, &seen.name),
            (_, false) => MemberState::Dead,
            (AdvertisedState::Leaving, true) => MemberState::Leaving,
            (AdvertisedState::Joining, true) => MemberState::Joining,
            (AdvertisedState::Serving, true) => MemberState::Serving,
            (AdvertisedState::Draining, true) => MemberState::Draining,
        };
        if !state.is_alive() && self.removals.covers(&seen.name, seen.incarnation) {
            return;
        }
        self.removals.lift(&seen.name);
        let known = self.entries.get(&seen.name);
        if known.is_none() && !state.is_alive() {
            // It may just not have been heard from yet.
            if seen.facts.role != Role::Observer && state == MemberState::Dead && self.unconfirmed.len() < GONE_MAX {
                let (name, age) = (seen.name.clone(), Duration::ZERO);
                self.unconfirmed.entry(name).or_insert((now, Departed { seen, age }));
            }
            return;
        }
        if known.is_some_and(|known| known.member.incarnation > seen.incarnation) {
            return;
        }
        let settled = match state {
            MemberState::Serving => true,
            MemberState::Draining | MemberState::Left => false,
            MemberState::Joining | MemberState::Leaving | MemberState::Away | MemberState::Dead => {
                known.is_some_and(|known| known.settled)
            }
        };
        self.insert(now, seen, state, settled);
    }

    /// A member that said that it will be back is away until it ought to be.
    fn away_or_dead(&self, now: Duration, name: &NodeName) -> MemberState {
        let gone_at = self.entries.get(name).and_then(|known| known.gone_at).unwrap_or(now);
        if now < gone_at + self.repair_delay { MemberState::Away } else { MemberState::Dead }
    }

    fn insert(&mut self, now: Duration, seen: Observation, state: MemberState, settled: bool) {
        let known = self.entries.get(&seen.name);
        let both = self.serves.as_ref().zip(seen.facts.serves.as_ref());
        let differs = both.is_some_and(|(own, theirs)| !own.agrees(theirs));
        let member = Member {
            name: seen.name.clone(),
            incarnation: seen.incarnation,
            address: seen.address,
            http: seen.facts.http,
            state,
            weight: seen.facts.weight,
            accepting: seen.facts.accepting,
            observer: seen.facts.role == Role::Observer,
            serves_other: differs,
        };
        // A later start that is gone as well has died since.
        let same = known.filter(|known| known.member.incarnation == seen.incarnation && !state.is_alive());
        let gone_at = (!state.is_alive()).then(|| same.and_then(|known| known.gone_at).unwrap_or(now));
        let gone_before =
            same.filter(|known| known.gone_at.is_some()).map_or(Duration::ZERO, |known| known.gone_before);
        self.entries.insert(
            seen.name,
            Entry {
                member,
                ledger: seen.facts.ledger,
                catalog: seen.facts.catalog,
                hot: seen.facts.hot,
                gone: seen.facts.gone,
                settled,
                gone_at,
                gone_before,
            },
        );
    }

    /// Observers first: they had nothing.
    fn forget_oldest(&mut self) {
        let age = |entry: &Entry| Some((!entry.member.observer, entry.gone_at?, entry.member.name.clone()));
        let mut gone: Vec<_> = self.entries.values().filter_map(age).collect();
        if gone.len() > GONE_MAX {
            gone.sort();
            for (.., name) in gone.drain(..gone.len() - GONE_MAX) {
                self.entries.remove(&name);
            }
        }
    }

    /// Counts only members that have not lost their place yet: the others were dealt with.
    fn judge_losses(&self, now: Duration) -> Option<MassFailure> {
        let keepers = || self.entries.values().filter(|entry| entry.settled && entry.member.is_eligible());
        let alive = keepers().filter(|entry| entry.member.state.is_alive()).count();
        let dead = keepers().filter(|entry| entry.is_missed());
        self.brake_policy.judge(now, alive, dead.filter_map(|entry| entry.gone_at))
    }

    fn rebuild_ring(&mut self, now: Duration) -> bool {
        // When enough have returned, the others are given the usual time to do so too.
        let braked = self.braked_at.is_some_and(|braked| now < braked + self.repair_delay);
        let keeps_place =
            |gone: Duration| now < gone + self.repair_delay || braked && self.brake_policy.is_news(now, gone);
        for entry in self.entries.values_mut().filter(|entry| entry.is_missed()) {
            entry.settled &= entry.gone_at.is_some_and(keeps_place);
        }
        let on_ring: Vec<(NodeName, u32)> = self
            .entries
            .values()
            .filter(|entry| entry.is_on_ring())
            .map(|entry| (entry.member.name.clone(), entry.member.weight))
            .collect();
        let changed = on_ring != self.on_ring;
        if changed {
            self.ring = Arc::new(Ring::build(on_ring.iter().cloned(), RingOptions::default()));
            self.on_ring = on_ring;
        }
        changed
    }

    /// Sees which keys are hot; whether that is news.
    fn note_heat(&mut self) -> bool {
        let mut extra_replicas: BTreeMap<Key, u8> = BTreeMap::new();
        let live = self.entries.values().filter(|entry| entry.member.state.is_alive());
        for (key, extra) in live.flat_map(|entry| &entry.hot) {
            let most = extra_replicas.entry(key.clone()).or_default();
            *most = (*most).max(*extra);
        }
        let changed = extra_replicas != *self.extra_replicas;
        if changed {
            self.extra_replicas = Arc::new(extra_replicas);
        }
        changed
    }

    /// Notes which nodes on the ring are full. Returns whether that has changed.
    fn note_full(&mut self) -> bool {
        let is_full = |name: &&NodeName| self.entries.get(*name).is_some_and(|entry| !entry.member.accepting);
        let full: Vec<NodeName> = self.on_ring.iter().map(|(name, _)| name).filter(is_full).cloned().collect();
        let changed = full != self.full;
        self.full = full;
        changed
    }
}
