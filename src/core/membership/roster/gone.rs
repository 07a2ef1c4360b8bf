//! The half of the roster that knows of those that are gone: what others tell of them, removals, and what is told on.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    core::membership::{
        gone::{GONE_MAX, GoneMember, GoneMembers, RemovedMember, digest_of},
        node_info::AdvertisedState,
        observation::Departed,
        removals::RemoveError,
        roster::Roster,
        view::{Member, MemberState},
    },
    key::NodeName,
};

/// Sets deaths apart from removals in a digest.
const DEAD: u64 = 0x676f_6e65;

impl Roster {
    /// Takes in at `now` what another member remembers of those that are gone.
    pub(crate) fn hear_of_gone(&mut self, now: Duration, gone: Vec<Departed>) {
        for departed in gone {
            let seen = &departed.seen;
            if seen.name == self.me || self.removals.covers(&seen.name, seen.incarnation) {
                continue;
            }
            // It was there after it was removed, if it was.
            self.removals.lift(&seen.name);
            let left = seen.facts.state == AdvertisedState::Left;
            match self.entries.get_mut(&seen.name) {
                // It said goodbye, which was not heard here.
                Some(entry) if left && entry.member.incarnation == seen.incarnation && entry.gone_at.is_some() => {
                    self.is_stale |= entry.member.state != MemberState::Left;
                    entry.member.state = MemberState::Left;
                    entry.settled = false;
                }
                Some(entry) if entry.gone_at.is_some() && entry.member.incarnation < seen.incarnation => {
                    let (name, age) = (seen.name.clone(), departed.age);
                    self.take_in(now, departed.seen);
                    if let Some(entry) = self.entries.get_mut(&name).filter(|entry| entry.gone_at.is_some()) {
                        entry.gone_before = age;
                    }
                }
                Some(_) => {}
                // A goodbye of a stranger means nothing here.
                None if left || self.unconfirmed.len() >= GONE_MAX => {}
                None => {
                    let heard = self.unconfirmed.get(&seen.name).map(|(heard, known)| (*heard, known.seen.incarnation));
                    if heard.is_none_or(|(_, incarnation)| incarnation < seen.incarnation) {
                        let since = heard.map_or(now, |(since, _)| since);
                        self.unconfirmed.insert(seen.name.clone(), (since, departed));
                    }
                }
            }
        }
    }

    /// Takes in at `now` which members another one knows to be removed, up to which start, and how long ago.
    pub(crate) fn hear_of_removals(&mut self, now: Duration, removed: Vec<(NodeName, u64, Duration)>) {
        for (name, incarnation, age) in removed {
            let known = self.entries.get(&name).map(|entry| &entry.member);
            let rumoured = self.unconfirmed.get(&name).is_some_and(|(_, known)| known.seen.incarnation > incarnation);
            let outlives = known.is_some_and(|known| known.state.is_alive() || known.incarnation > incarnation);
            let outlives = outlives || rumoured;
            if name != self.me && !outlives && self.removals.learn(now, &name, incarnation, age) {
                self.drop_gone(&name);
            }
        }
    }

    /// Takes a member that is gone off the list, here at once and at the others as they hear of it. It comes back by
    /// itself when it is started again.
    ///
    /// # Errors
    /// See [`RemoveError`]; nothing was changed.
    pub(crate) fn remove(&mut self, now: Duration, name: &NodeName) -> Result<(), RemoveError> {
        let known = self.entries.get(name).ok_or_else(|| RemoveError::Unknown(name.clone()))?;
        if known.member.state.is_alive() {
            return Err(RemoveError::Alive(name.clone()));
        }
        self.removals.learn(now, name, known.member.incarnation, Duration::ZERO);
        self.drop_gone(name);
        Ok(())
    }

    fn drop_gone(&mut self, name: &NodeName) {
        self.is_stale |= self.entries.remove(name).is_some();
        self.unconfirmed.remove(name);
    }

    /// Members that have been dead for this long and have no place on the ring any more, and since when this node itself lists
    /// them as gone.
    pub(crate) fn dead_for(&self, now: Duration, age: Duration) -> BTreeMap<NodeName, Duration> {
        let dead = self.entries.values().filter(|entry| entry.member.state == MemberState::Dead && !entry.is_on_ring());
        let long = dead.filter(|entry| entry.gone_for(now).is_some_and(|gone| gone >= age));
        long.filter_map(|entry| Some((entry.member.name.clone(), entry.gone_at?))).collect()
    }

    /// The members that are gone, as far as this node remembers, without observers, which had nothing; and the removals.
    pub(crate) fn departed(&self, now: Duration) -> GoneMembers {
        let gone = self.entries.values().filter(|entry| !entry.member.observer);
        let gone = gone.filter_map(|entry| {
            let Member { name, incarnation, address, weight, state, .. } = &entry.member;
            let (name, left, age_s) = (name.clone(), *state == MemberState::Left, entry.gone_for(now)?.as_secs());
            Some(GoneMember { name, incarnation: *incarnation, address: *address, weight: *weight, left, age_s })
        });
        let removed = self.removals.told(now).map(|(name, incarnation, age)| {
            let (name, age_s) = (name.clone(), age.as_secs());
            RemovedMember { name, incarnation, age_s }
        });
        GoneMembers { gone: gone.take(GONE_MAX).collect(), removed: removed.collect() }
    }

    /// A member that others remember as dead is one here as well, if it has not been heard from for `repair_delay`.
    pub(crate) fn believe_unconfirmed(&mut self, now: Duration) {
        let delay = self.repair_delay;
        self.unconfirmed.retain(|name, _| !self.entries.contains_key(name));
        let due = |(heard, _): &(Duration, Departed)| now >= *heard + delay;
        let believed: Vec<NodeName> =
            self.unconfirmed.iter().filter(|(_, rumour)| due(rumour)).map(|(name, _)| name.clone()).collect();
        for name in believed {
            if let Some((heard, Departed { seen, age })) = self.unconfirmed.remove(&name)
                && self.gone_count() < GONE_MAX
            {
                self.insert(now, seen, MemberState::Dead, false);
                if let Some(entry) = self.entries.get_mut(&name) {
                    entry.gone_before = age.saturating_add(now.saturating_sub(heard));
                }
            }
        }
    }

    fn gone_count(&self) -> usize {
        self.entries.values().filter(|entry| entry.gone_at.is_some()).count()
    }

    /// Digest of the dead that are remembered here at `now`, rumours included, and of the removals: names with incarnations.
    pub(crate) fn gone_digest(&self, now: Duration) -> u64 {
        let dead = self.entries.values().filter(|entry| entry.is_missed() && !entry.member.observer);
        let dead = dead.map(|entry| (&entry.member.name, entry.member.incarnation));
        let unconfirmed = self.unconfirmed.values().map(|(_, rumour)| (&rumour.seen.name, rumour.seen.incarnation));
        let each = dead.chain(unconfirmed).map(|(name, incarnation)| digest_of(DEAD, name, incarnation));
        each.fold(self.removals.digest(now), |digest, hash| digest ^ hash)
    }

    /// Live members that remember other dead ones than this node does.
    pub(crate) fn remembering_others(&self, now: Duration) -> Vec<NodeName> {
        let own = self.gone_digest(now);
        let others = self.entries.values().filter(|entry| entry.member.name != self.me && !entry.member.observer);
        let live = others.filter(|entry| entry.member.state.is_alive());
        live.filter(|entry| entry.gone.is_some_and(|gone| gone != own)).map(|entry| entry.member.name.clone()).collect()
    }
}
