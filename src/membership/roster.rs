//! The pure core of membership: what gossip shows, in; who the members are and who stands on the ring, out.
//!
//! Rules that everything else relies on:
//!
//! 1. Of several observations of one name, the live one with the highest incarnation counts, else the highest.
//! 2. A member that died stays on the ring for `repair_delay`: until then its keys have the same owners, so that a
//!    restart moves nothing. If too many died with it, it stays longer (see [`super::brake`]). One that said goodbye
//!    leaves the ring at once.
//! 3. A member that is joining is put on the ring when it serves, unless it still has its place.
//! 4. The ring depends on the set of members on it alone, never on the order of events.
//! 5. A member that was dead before this node came is a member only after `repair_delay`: until then it may just not have
//!    been heard of yet. It has no place on the ring, but what it had is worth knowing.
//! 6. What others tell of the dead comes with its age, so that a member's death is as old here as where it was seen.
//! 7. A dead member that was removed is none, whoever still tells of it, until it shows a sign of life (see
//!    [`super::removals`]).
//! 8. A member that takes no new keys stays on the ring: it keeps what it has, and the view passes it over for the rest.

use std::{collections::BTreeMap, hash::Hasher, net::SocketAddr, sync::Arc, time::Duration};

use siphasher::sip::SipHasher13;

use super::{
    brake::{Brake, BrakePolicy},
    gone::{GoneMember, GoneMembers, RemovedMember},
    removals::{Removals, RemoveError},
    serves::Serves,
    view::{Member, MemberState, View},
};
use crate::{
    config::NodeConfig,
    key::{Key, NodeName},
    placement::{Ring, RingOptions},
};

/// Members that are remembered after they died or left; beyond, those gone longest are forgotten first.
pub(super) const GONE_MAX: usize = 1024;
/// How long those are remembered that said goodbye. A member that died may still have what others do not, or what was
/// forgotten since, so it is remembered for longer.
pub(super) const GONE_GRACE: Duration = Duration::from_secs(24 * 3600);
/// How long observers are remembered that are gone: for people who look at the list of members. They had nothing.
const OBSERVER_GRACE: Duration = Duration::from_secs(60);

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) state: Announced,
    pub(crate) role: Role,
    pub(crate) weight: u32,
    pub(crate) accepting: bool,
    pub(crate) http: Option<String>,
    pub(crate) ledger: LedgerMark,
    /// Digest of its catalog; `None` of a version that has none.
    pub(crate) catalog: Option<u64>,
    /// How many replicas more than usual which keys should have, for they are asked for very often there.
    pub(crate) hot: BTreeMap<Key, u8>,
    /// Digest of the dead that it remembers; `None` of a version that does not tell.
    pub(crate) gone: Option<u64>,
    /// What its wall clock said a while ago, in milliseconds since 1970; `None` of a version that does not tell.
    pub(crate) clock: Option<u64>,
    /// What it serves; `None` of observers, of data sources that do not say, and of a version that does not tell.
    pub(crate) serves: Option<Serves>,
}

/// The states that a member can announce, in their order; death it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Announced {
    Joining,
    Serving,
    /// About to stop, to be back soon.
    Leaving,
    /// Goodbye, until soon.
    Away,
    Draining,
    /// Goodbye for good.
    Left,
}

/// What a member is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Holder,
    Observer,
}

/// How far a ledger has come, and a digest of what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LedgerMark {
    pub(crate) version: u64,
    pub(crate) digest: u64,
}

impl Facts {
    /// As gossip carries them.
    pub(crate) fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let state = match self.state {
            Announced::Joining => "joining",
            Announced::Serving => "serving",
            Announced::Leaving => "leaving",
            Announced::Away => "away",
            Announced::Draining => "draining",
            Announced::Left => "left",
        };
        let role = match self.role {
            Role::Holder => "holder",
            Role::Observer => "observer",
        };
        let catalog = self.catalog.map(|digest| ("catalog", format!("{digest:016x}")));
        let gone = self.gone.map(|digest| ("gone", format!("{digest:016x}")));
        let clock = self.clock.map(|ms| ("clock", ms.to_string()));
        let serves = self.serves.as_ref().map(|serves| ("serves", serves.to_text()));
        let pairs = vec![
            ("state", state.into()),
            ("role", role.into()),
            ("weight", self.weight.to_string()),
            ("accepting", self.accepting.to_string()),
            ("http", self.http.clone().unwrap_or_default()),
            ("ledger", format!("{}:{:016x}", self.ledger.version, self.ledger.digest)),
        ];
        let hot: Vec<String> = self.hot.iter().map(|(key, extra)| format!("{extra} {key}")).collect();
        pairs
            .into_iter()
            .chain(catalog)
            .chain(gone)
            .chain(clock)
            .chain(serves)
            .chain([("hot", hot.join("\n"))])
            .collect()
    }

    /// Reads them back. `None` while some have not arrived yet, or if they make no sense.
    pub(crate) fn parse<'a>(read: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let (version, digest) = read("ledger")?.split_once(':')?;
        Some(Self {
            state: match read("state")? {
                "joining" => Announced::Joining,
                "serving" => Announced::Serving,
                "leaving" => Announced::Leaving,
                "away" => Announced::Away,
                "draining" => Announced::Draining,
                "left" => Announced::Left,
                _ => return None,
            },
            role: if read("role")? == "observer" { Role::Observer } else { Role::Holder },
            weight: read("weight")?.parse().ok()?,
            accepting: read("accepting")?.parse().ok()?,
            http: read("http").filter(|http| !http.is_empty()).map(str::to_owned),
            ledger: LedgerMark { version: version.parse().ok()?, digest: u64::from_str_radix(digest, 16).ok()? },
            catalog: read("catalog").and_then(|digest| u64::from_str_radix(digest, 16).ok()),
            gone: read("gone").and_then(|digest| u64::from_str_radix(digest, 16).ok()),
            clock: read("clock").and_then(|ms| ms.parse().ok()),
            serves: read("serves").map(Serves::parse),
            hot: read("hot").unwrap_or_default().lines().filter_map(hot_key).collect(),
        })
    }
}

fn hot_key(line: &str) -> Option<(Key, u8)> {
    let (extra, key) = line.split_once(' ')?;
    Some((Key::new(key).ok()?, extra.parse().ok()?))
}

/// What gossip shows of one start of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) address: SocketAddr,
    pub(crate) alive: bool,
    pub(crate) facts: Facts,
}

impl Observation {
    fn rank(&self) -> (bool, u64) {
        (self.alive, self.incarnation)
    }
}

/// A member that is gone, as another one remembers it, and for how long it has been.
#[derive(Debug, Clone)]
pub(crate) struct Departed {
    pub(crate) seen: Observation,
    pub(crate) age: Duration,
}

#[derive(Debug, Clone)]
struct Entry {
    member: Member,
    ledger: LedgerMark,
    catalog: Option<u64>,
    hot: BTreeMap<Key, u8>,
    gone: Option<u64>,
    /// Whether it has a place on the ring, if it may stand there at all.
    settled: bool,
    /// When it was found to be gone.
    gone_at: Option<Duration>,
    /// For how long it had been gone by then, as others told.
    gone_before: Duration,
}

/// All members that one node knows of.
#[derive(Debug)]
pub(crate) struct Roster {
    me: NodeName,
    /// What this node serves, if it says.
    serves: Option<Serves>,
    repair_delay: Duration,
    brake_policy: BrakePolicy,
    brake: Option<Brake>,
    braked_at: Option<Duration>,
    entries: BTreeMap<NodeName, Entry>,
    /// Members that others remember and that were never heard from here, and since when this node knows.
    rumours: BTreeMap<NodeName, (Duration, Departed)>,
    removals: Removals,
    /// Whether something has changed that the last view does not show.
    is_stale: bool,
    ring: Arc<Ring>,
    on_ring: Vec<(NodeName, u32)>,
    /// Those on the ring that take no new keys.
    full: Vec<NodeName>,
    /// How many replicas more than usual hot keys should have: the most that a live member says.
    extras: Arc<BTreeMap<Key, u8>>,
    since: Duration,
}

impl Roster {
    /// Nobody is known; losses are treated as `config` says.
    pub(crate) fn of(me: &NodeName, config: &NodeConfig) -> Self {
        let brake = BrakePolicy { share: config.mass_failure_share, pause: config.mass_failure_pause };
        Self::new(me.clone(), config.repair_delay, brake)
    }

    fn new(me: NodeName, repair_delay: Duration, brake_policy: BrakePolicy) -> Self {
        Self {
            me,
            serves: None,
            repair_delay,
            brake_policy,
            brake: None,
            braked_at: None,
            entries: BTreeMap::new(),
            rumours: BTreeMap::new(),
            removals: Removals::default(),
            is_stale: false,
            ring: Arc::new(Ring::build([], RingOptions::default())),
            on_ring: Vec::new(),
            full: Vec::new(),
            extras: Arc::default(),
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
            entry.bury(now, MemberState::Dead);
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
        self.believe_rumours(now);
        self.forget_oldest();
        let brake = self.brake;
        self.brake = self.judge_losses(now);
        self.braked_at = self.brake.map(|_| now).or(self.braked_at);
        // Not `||`: both have to be done.
        let ring_changed = self.rebuild_ring(now) | self.note_full();
        let alive = |members: &mut dyn Iterator<Item = &Member>| -> Vec<(NodeName, u64)> {
            // Whoever keeps no keys moves none.
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

    /// Takes in at `now` what another member remembers of those that are gone.
    pub(crate) fn hear_of_gone(&mut self, now: Duration, gone: Vec<Departed>) {
        for departed in gone {
            let seen = &departed.seen;
            if seen.name == self.me || self.removals.covers(&seen.name, seen.incarnation) {
                continue;
            }
            // It was there after it was removed, if it was.
            self.removals.lift(&seen.name);
            let left = seen.facts.state == Announced::Left;
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
                None if left || self.rumours.len() >= GONE_MAX => {}
                None => {
                    let heard = self.rumours.get(&seen.name).map(|(heard, known)| (*heard, known.seen.incarnation));
                    if heard.is_none_or(|(_, incarnation)| incarnation < seen.incarnation) {
                        let since = heard.map_or(now, |(since, _)| since);
                        self.rumours.insert(seen.name.clone(), (since, departed));
                    }
                }
            }
        }
    }

    /// Takes in at `now` which members another one knows to be removed, up to which start, and how long ago.
    pub(crate) fn hear_of_removals(&mut self, now: Duration, removed: Vec<(NodeName, u64, Duration)>) {
        for (name, incarnation, age) in removed {
            let known = self.entries.get(&name).map(|entry| &entry.member);
            let rumoured = self.rumours.get(&name).is_some_and(|(_, known)| known.seen.incarnation > incarnation);
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
        self.rumours.remove(name);
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
    fn believe_rumours(&mut self, now: Duration) {
        let delay = self.repair_delay;
        self.rumours.retain(|name, _| !self.entries.contains_key(name));
        let due = |(heard, _): &(Duration, Departed)| now >= *heard + delay;
        let believed: Vec<NodeName> =
            self.rumours.iter().filter(|(_, rumour)| due(rumour)).map(|(name, _)| name.clone()).collect();
        for name in believed {
            if let Some((heard, Departed { seen, age })) = self.rumours.remove(&name)
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
        let rumours = self.rumours.values().map(|(_, rumour)| (&rumour.seen.name, rumour.seen.incarnation));
        let each = dead.chain(rumours).map(|(name, incarnation)| digest_of(DEAD, name, incarnation));
        each.fold(self.removals.digest(now), |digest, hash| digest ^ hash)
    }

    /// Live members that remember other dead ones than this node does.
    pub(crate) fn remembering_others(&self, now: Duration) -> Vec<NodeName> {
        let own = self.gone_digest(now);
        let others = self.entries.values().filter(|entry| entry.member.name != self.me && !entry.member.observer);
        let live = others.filter(|entry| entry.member.state.is_alive());
        live.filter(|entry| entry.gone.is_some_and(|gone| gone != own)).map(|entry| entry.member.name.clone()).collect()
    }

    /// The ledger marks of the other live members, as gossiped. Observers keep no keys, so nobody follows theirs.
    pub(crate) fn ledger_marks(&self) -> impl Iterator<Item = (&NodeName, u64, LedgerMark)> {
        self.entries
            .values()
            .filter(|entry| entry.member.name != self.me && entry.member.state.is_alive() && !entry.member.observer)
            .map(|entry| (&entry.member.name, entry.member.incarnation, entry.ledger))
    }

    /// Digests of the catalogs of the other live members, as gossiped; not of observers, who may not be asked for them.
    pub(crate) fn catalog_digests(&self) -> impl Iterator<Item = (&NodeName, u64)> {
        let others = self.entries.values().filter(|entry| entry.member.name != self.me && !entry.member.observer);
        let live = others.filter(|entry| entry.member.state.is_alive());
        live.filter_map(|entry| Some((&entry.member.name, entry.catalog?)))
    }

    fn view(&self) -> View {
        let members = self.entries.iter().map(|(name, entry)| (name.clone(), entry.member.clone())).collect();
        View::new(self.me.clone(), members, self.ring.clone(), self.since)
            .with_brake(self.brake)
            .with_extras(self.extras.clone())
    }

    fn take_in(&mut self, now: Duration, seen: Observation) {
        let state = match (seen.facts.state, seen.alive) {
            (Announced::Left, _) => MemberState::Left,
            (Announced::Away, _) => self.away_or_dead(now, &seen.name),
            (_, false) => MemberState::Dead,
            (Announced::Leaving, true) => MemberState::Leaving,
            (Announced::Joining, true) => MemberState::Joining,
            (Announced::Serving, true) => MemberState::Serving,
            (Announced::Draining, true) => MemberState::Draining,
        };
        if !state.is_alive() && self.removals.covers(&seen.name, seen.incarnation) {
            return;
        }
        self.removals.lift(&seen.name);
        let known = self.entries.get(&seen.name);
        if known.is_none() && !state.is_alive() {
            // It may just not have been heard from yet.
            if seen.facts.role != Role::Observer && state == MemberState::Dead && self.rumours.len() < GONE_MAX {
                let (name, age) = (seen.name.clone(), Duration::ZERO);
                self.rumours.entry(name).or_insert((now, Departed { seen, age }));
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

    /// Only who has not lost its place yet counts: the others were dealt with.
    fn judge_losses(&self, now: Duration) -> Option<Brake> {
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
        let mut extras: BTreeMap<Key, u8> = BTreeMap::new();
        let live = self.entries.values().filter(|entry| entry.member.state.is_alive());
        for (key, extra) in live.flat_map(|entry| &entry.hot) {
            let most = extras.entry(key.clone()).or_default();
            *most = (*most).max(*extra);
        }
        let changed = extras != *self.extras;
        if changed {
            self.extras = Arc::new(extras);
        }
        changed
    }

    /// Sees who on the ring is full; whether that is news.
    fn note_full(&mut self) -> bool {
        let is_full = |name: &&NodeName| self.entries.get(*name).is_some_and(|entry| !entry.member.accepting);
        let full: Vec<NodeName> = self.on_ring.iter().map(|(name, _)| name).filter(is_full).cloned().collect();
        let changed = full != self.full;
        self.full = full;
        changed
    }
}

impl Entry {
    fn bury(&mut self, now: Duration, state: MemberState) {
        if self.member.state.is_alive() {
            self.member.state = state;
            (self.gone_at, self.gone_before) = (Some(now), Duration::ZERO);
        }
    }

    /// For how long it has been gone, if it is.
    fn gone_for(&self, now: Duration) -> Option<Duration> {
        Some(self.gone_before.saturating_add(now.saturating_sub(self.gone_at?)))
    }

    /// Whether it is not there, and has not said that it goes for good.
    fn is_missed(&self) -> bool {
        matches!(self.member.state, MemberState::Dead | MemberState::Away)
    }

    fn is_on_ring(&self) -> bool {
        use MemberState::{Joining, Leaving, Serving};
        let present = matches!(self.member.state, Serving | Joining | Leaving) || self.is_missed();
        self.settled && present && self.member.is_eligible()
    }
}

/// Sets deaths apart from removals in a digest.
const DEAD: u64 = 0x676f_6e65;

/// A part of a digest of starts of nodes.
pub(super) fn digest_of(kind: u64, name: &NodeName, incarnation: u64) -> u64 {
    let mut hash = SipHasher13::new_with_keys(kind, incarnation);
    hash.write(name.as_str().as_bytes());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DELAY: Duration = Duration::from_secs(60);
    const BRAKE: BrakePolicy = BrakePolicy { share: 0.5, pause: Duration::from_secs(600) };

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn facts(state: Announced) -> Facts {
        let ledger = LedgerMark { version: 3, digest: 9 };
        Facts {
            state,
            role: Role::Holder,
            weight: 100,
            accepting: true,
            http: Some("http://h:1".into()),
            ledger,
            catalog: Some(7),
            hot: [(Key::new("a key").unwrap(), 1), (Key::new("b").unwrap(), 2)].into(),
            gone: Some(3),
            clock: Some(1_800_000_000_000),
            serves: Some(Serves::everywhere("git")),
        }
    }

    fn seen(who: &str, incarnation: u64, alive: bool, state: Announced) -> Observation {
        Observation {
            name: name(who),
            incarnation,
            address: "127.0.0.1:1".parse().unwrap(),
            alive,
            facts: facts(state),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ring_of(view: &View) -> Vec<&str> {
        view.ring().nodes().iter().map(NodeName::as_str).collect()
    }

    #[test]
    fn facts_survive_gossip() {
        let facts = facts(Announced::Draining);
        let pairs = facts.to_pairs();
        let read = |key: &str| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
        assert_eq!(Facts::parse(read), Some(facts.clone()));
        assert_eq!(Facts::parse(|key| read(key).filter(|_| key != "weight")), None);
        let older = Facts::parse(|key| read(key).filter(|_| !matches!(key, "catalog" | "hot" | "gone" | "clock")));
        assert_eq!(
            older,
            Some(Facts { catalog: None, hot: BTreeMap::new(), gone: None, clock: None, ..facts }),
            "a version without catalogs is a member all the same"
        );
    }

    #[test]
    fn a_member_stands_on_the_ring_when_it_serves() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let view =
            roster.observe(at(0), vec![seen("a", 1, true, Announced::Serving), seen("b", 1, true, Announced::Joining)]);
        assert_eq!(ring_of(&view.unwrap()), ["a"]);
        let both = vec![seen("a", 1, true, Announced::Serving), seen("b", 1, true, Announced::Serving)];
        assert_eq!(ring_of(&roster.observe(at(1), both.clone()).unwrap()), ["a", "b"]);
        assert!(roster.observe(at(2), both).is_none(), "nothing changed");
    }

    #[test]
    fn the_dead_keep_their_place_until_the_repair_delay_is_over() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let b = |alive| vec![seen("a", 1, true, Announced::Serving), seen("b", 1, alive, Announced::Serving)];
        roster.observe(at(0), b(true));
        let view = roster.observe(at(10), b(false)).unwrap();
        assert!(!view.is_alive(&name("b")));
        assert_eq!(ring_of(&view), ["a", "b"]);
        assert!(roster.observe(at(69), b(false)).is_none());
        assert_eq!(ring_of(&roster.observe(at(70), b(false)).unwrap()), ["a"]);
    }

    #[test]
    fn a_restart_within_the_delay_never_leaves_the_ring() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let a = seen("a", 1, true, Announced::Serving);
        roster.observe(at(0), vec![a.clone(), seen("b", 1, true, Announced::Serving)]);
        roster.observe(at(1), vec![a.clone(), seen("b", 1, false, Announced::Serving)]);
        let back = roster.observe(at(2), vec![a, seen("b", 2, true, Announced::Joining)]).unwrap();
        assert_eq!(ring_of(&back), ["a", "b"]);
    }

    #[test]
    fn who_was_never_heard_from_is_a_dead_member_only_after_the_repair_delay() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let b = |alive| vec![seen("b", 1, alive, Announced::Serving)];
        assert!(roster.observe(at(0), b(false)).is_none());
        let view = roster.observe(at(3), b(true)).unwrap();
        assert_eq!(view.since(), at(3));

        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        assert!(roster.observe(at(0), b(false)).is_none());
        assert!(roster.observe(at(59), b(false)).is_none());
        let view = roster.observe(at(60), b(false)).unwrap();
        assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Dead);
        assert!(ring_of(&view).is_empty());
        assert_eq!(view.brake(), None, "it was not lost now");
        assert!(roster.observe(at(61), b(false)).is_none(), "nothing changed");
    }

    fn remembered(who: &str, incarnation: u64, left: bool) -> Departed {
        let seen = seen(who, incarnation, false, if left { Announced::Left } else { Announced::Serving });
        Departed { seen, age: Duration::ZERO }
    }

    #[test]
    fn a_member_that_others_remember_as_dead_is_a_dead_member_here_after_the_repair_delay() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let a = || vec![seen("a", 1, true, Announced::Serving)];
        roster.observe(at(0), a());
        let nothing = roster.gone_digest(at(0));
        roster
            .hear_of_gone(at(1), vec![remembered("b", 4, false), remembered("c", 1, true), remembered("a", 9, false)]);
        let heard = roster.gone_digest(at(1));
        assert_ne!(heard, nothing, "it counts as remembered, so that nobody is asked again");
        assert!(roster.observe(at(60), a()).is_none());
        let view = roster.observe(at(61), a()).unwrap();
        assert_eq!(view.member(&name("b")).map(|member| member.state), Some(MemberState::Dead));
        assert!(view.member(&name("c")).is_none(), "a goodbye of a stranger means nothing");
        assert_eq!((view.brake(), roster.gone_digest(at(61))), (None, heard));
        // One that turns up meanwhile is alive.
        roster.hear_of_gone(at(62), vec![remembered("d", 1, false)]);
        let d = [a(), vec![seen("d", 1, true, Announced::Serving)]].concat();
        roster.observe(at(63), d.clone());
        assert!(roster.observe(at(200), d).is_none(), "nothing changed");
        assert!(roster.view().is_alive(&name("d")));
    }

    #[test]
    fn members_that_remember_the_same_dead_have_nothing_to_ask_each_other() {
        let mut here = Roster::new(name("a"), DELAY, BRAKE);
        let mut there = Roster::new(name("b"), DELAY, BRAKE);
        let pair = |digest| {
            let mut other = seen("b", 1, true, Announced::Serving);
            other.facts.gone = Some(digest);
            vec![seen("a", 1, true, Announced::Serving), other]
        };
        there.observe(at(0), vec![seen("c", 1, true, Announced::Serving)]);
        there.observe(at(1), vec![seen("c", 1, false, Announced::Serving)]);
        here.observe(at(1), pair(there.gone_digest(at(1))));
        assert_eq!(here.remembering_others(at(2)), [name("b")]);
        here.hear_of_gone(at(2), vec![remembered("c", 1, false)]);
        assert!(here.remembering_others(at(2)).is_empty());
        // What one has heard as a goodbye, the other corrects.
        there.hear_of_gone(at(3), vec![remembered("c", 1, true)]);
        assert_eq!(there.view().member(&name("c")).unwrap().state, MemberState::Left);
    }

    #[test]
    fn who_was_removed_is_no_member_until_it_shows_a_sign_of_life() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let with = |incarnation, alive| {
            vec![seen("a", 1, true, Announced::Serving), seen("b", incarnation, alive, Announced::Serving)]
        };
        roster.observe(at(0), with(5, true));
        assert_eq!(roster.remove(at(1), &name("b")), Err(RemoveError::Alive(name("b"))));
        assert_eq!(roster.remove(at(1), &name("c")), Err(RemoveError::Unknown(name("c"))));
        roster.observe(at(2), with(5, false));
        roster.remove(at(3), &name("b")).unwrap();
        let view = roster.observe(at(4), with(5, false)).unwrap();
        assert!(view.member(&name("b")).is_none() && ring_of(&view) == ["a"], "although gossip still tells of it");
        roster.hear_of_gone(at(5), vec![remembered("b", 5, false), remembered("b", 4, false)]);
        assert!(roster.observe(at(5 + 2 * DELAY.as_secs()), with(5, false)).is_none(), "nor others that remember it");
        // A sign of life counts for more, also of the same start: it was cut off.
        for incarnation in [5, 6] {
            assert!(roster.observe(at(300), with(incarnation, true)).unwrap().is_alive(&name("b")));
            roster.hear_of_removals(at(301), vec![(name("b"), incarnation, at(9))]);
            assert!(roster.observe(at(302), with(incarnation, true)).is_none(), "while it lives, no removal counts");
        }
        // It died again: what was removed is an earlier start.
        let view = roster.observe(at(303), with(6, false)).unwrap();
        roster.hear_of_removals(at(304), vec![(name("b"), 5, at(9))]);
        assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Dead);
        assert!(roster.observe(at(304), with(6, false)).is_none());
    }

    #[test]
    fn a_death_is_as_old_here_as_where_it_was_seen() {
        let mut there = Roster::new(name("b"), DELAY, BRAKE);
        there.observe(at(0), vec![seen("c", 1, true, Announced::Serving)]);
        there.observe(at(1), vec![seen("c", 1, false, Announced::Serving)]);
        let GoneMembers { gone, .. } = there.departed(at(1_001));
        assert_eq!(gone.iter().map(|gone| (gone.name.as_str(), gone.age_s)).collect::<Vec<_>>(), [("c", 1_000)]);
        let mut here = Roster::new(name("a"), DELAY, BRAKE);
        let a = || vec![seen("a", 1, true, Announced::Serving)];
        here.observe(at(0), a());
        here.hear_of_gone(at(0), vec![Departed { seen: remembered("c", 1, false).seen, age: at(1_000) }]);
        here.observe(at(60), a());
        assert_eq!(here.dead_for(at(60), at(1_060)), [(name("c"), at(60))].into());
        assert!(here.dead_for(at(60), at(1_061)).is_empty());
        here.observe(at(61), [a(), vec![seen("c", 1, true, Announced::Serving)]].concat());
        here.observe(at(62), a());
        assert!(here.dead_for(at(63), at(2)).is_empty(), "it was alive meanwhile");
        here.hear_of_gone(at(100), vec![Departed { seen: remembered("c", 2, false).seen, age: at(5) }]);
        let listed = |age| here.dead_for(at(110), at(age)).into_keys().collect::<Vec<_>>();
        assert_eq!(listed(0), [], "it still has its place on the ring");
        here.observe(at(200), a());
        assert_eq!(here.dead_for(at(200), at(105)), [(name("c"), at(100))].into(), "it was started again meanwhile");
        assert!(here.dead_for(at(200), at(106)).is_empty());
    }

    proptest! {
        /// Members that see a few others live and die, remove the dead, and tell each other at random, agree in the end about
        /// who is dead, list nobody who was removed and not seen since, and then have nothing to ask each other.
        #[test]
        fn members_agree_about_the_dead_and_the_removed(
            steps in proptest::collection::vec((0..4u8, 0..3usize, 0..3usize, 0..4u8), 0..60),
        ) {
            let mut rosters: Vec<Roster> = ["a", "b", "c"].map(|who| Roster::new(name(who), DELAY, BRAKE)).into();
            let mut others = [(1, true); 4];
            let shown = |others: &[(u64, bool); 4]| -> Vec<Observation> {
                let live = others.iter().enumerate().filter(|(_, (_, alive))| *alive);
                live.map(|(at, (start, _))| seen(&format!("x{at}"), *start, true, Announced::Serving)).collect()
            };
            let tell = |rosters: &mut Vec<Roster>, from: usize, to: usize, now| {
                let GoneMembers { gone, removed } = rosters[from].departed(now);
                let removed = removed.into_iter().map(|gone| (gone.name, gone.incarnation, at(gone.age_s)));
                let removed = removed.collect();
                let gone = gone.into_iter().map(|gone| Departed {
                    seen: seen(gone.name.as_str(), gone.incarnation, false, Announced::Serving),
                    age: at(gone.age_s),
                });
                let gone = gone.collect();
                rosters[to].hear_of_removals(now, removed);
                rosters[to].hear_of_gone(now, gone);
            };
            let mut now = at(0);
            let mut removed = [0; 4];
            for (what, one, other, which) in steps {
                now += at(1);
                let (start, alive) = &mut others[usize::from(which)];
                match what {
                    0 if *alive => *alive = false,
                    0 => (*start, *alive) = (*start + 1, true),
                    1 => {
                        let who = name(&format!("x{which}"));
                        let known = rosters[one].view().member(&who).map(|member| member.incarnation);
                        if rosters[one].remove(now, &who).is_ok() {
                            let removed = &mut removed[usize::from(which)];
                            *removed = known.unwrap().max(*removed);
                        }
                    }
                    2 => tell(&mut rosters, one, other, now),
                    _ => drop(rosters[one].observe(now, shown(&others))),
                }
            }
            for _ in 0..3 {
                now += DELAY;
                for one in 0..3 {
                    rosters[one].observe(now, shown(&others));
                    (0..3).for_each(|other| tell(&mut rosters, one, other, now));
                }
            }
            let digests: Vec<u64> = rosters.iter().map(|roster| roster.gone_digest(now)).collect();
            prop_assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
            for (which, (start, alive)) in others.into_iter().enumerate() {
                let who = name(&format!("x{which}"));
                let listed: Vec<_> = rosters.iter().map(|roster| roster.view().is_alive(&who)).collect();
                prop_assert_eq!(listed, vec![alive; 3]);
                let dead: Vec<bool> = rosters.iter().map(|roster| roster.view().member(&who).is_some()).collect();
                prop_assert!(dead.iter().all(|one| *one == dead[0]), "{dead:?}");
                prop_assert!(alive || removed[which] < start || !dead[0], "{who} was removed and never seen since");
            }
        }
    }

    #[test]
    fn observers_that_are_gone_are_forgotten_after_a_minute() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let mut observer = seen("o", 1, true, Announced::Serving);
        observer.facts.role = Role::Observer;
        let a = || vec![seen("a", 1, true, Announced::Serving)];
        roster.observe(at(0), [a(), vec![observer]].concat());
        assert!(roster.observe(at(1), a()).unwrap().member(&name("o")).is_some());
        assert!(roster.observe(at(1 + OBSERVER_GRACE.as_secs()), a()).unwrap().member(&name("o")).is_none());
    }

    #[test]
    fn who_left_is_forgotten_after_a_day_unless_gossip_still_knows_it() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let a = || vec![seen("a", 1, true, Announced::Serving)];
        let both = |says| [a(), vec![seen("b", 1, true, says)]].concat();
        roster.observe(at(0), both(Announced::Serving));
        let view = roster.observe(at(1), both(Announced::Left)).unwrap();
        assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Left);
        let day = GONE_GRACE.as_secs();
        assert!(roster.observe(at(day), a()).is_none());
        assert!(roster.observe(at(day + 1), both(Announced::Left)).is_none());
        assert!(roster.observe(at(day + 2), a()).unwrap().member(&name("b")).is_none());
    }

    #[test]
    fn who_died_is_remembered_also_when_gossip_has_forgotten_it_unless_it_was_an_observer() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let a = || vec![seen("a", 1, true, Announced::Serving)];
        let mut observer = seen("o", 1, true, Announced::Serving);
        observer.facts.role = Role::Observer;
        roster.observe(at(0), [a(), vec![seen("b", 1, true, Announced::Serving), observer.clone()]].concat());
        roster.observe(at(1), a()).unwrap();
        let month = 30 * GONE_GRACE.as_secs();
        let view = roster.observe(at(month), a()).unwrap();
        assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Dead);
        assert!(view.member(&name("o")).is_none());
        assert_eq!(ring_of(&view), ["a"]);
        // Nor is one taken in that was gone before.
        observer.alive = false;
        for later in [month, 2 * month] {
            assert!(roster.observe(at(later), [a(), vec![observer.clone()]].concat()).is_none());
        }
    }

    #[test]
    fn those_lost_with_too_many_others_keep_their_place_until_enough_return() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let members = |alive: &str| -> Vec<Observation> {
            let seen = |who: &str| seen(who, 1, alive.contains(who), Announced::Serving);
            ["a", "b", "c"].map(seen).into()
        };
        roster.observe(at(0), members("abc"));
        let view = roster.observe(at(1), members("a")).unwrap();
        assert_eq!(view.brake().map(|brake| (brake.lost, brake.members)), Some((2, 3)));
        assert!(roster.observe(at(300), members("a")).is_none(), "long after the repair delay");
        let view = roster.observe(at(301), members("ab")).unwrap();
        assert_eq!((ring_of(&view), view.brake()), (vec!["a", "b", "c"], None), "one of three is an ordinary loss");
        assert!(roster.observe(at(359), members("ab")).is_none());
        assert_eq!(ring_of(&roster.observe(at(361), members("ab")).unwrap()), ["a", "b"]);
        let view = roster.observe(at(362), members("a")).unwrap();
        assert_eq!(view.brake(), None, "that c is gone was dealt with");
        assert_eq!(ring_of(&roster.observe(at(500), members("a")).unwrap()), ["a"]);
    }

    #[test]
    fn those_lost_with_too_many_others_lose_their_place_in_the_end() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let all = |alive| ["a", "b", "c"].map(|who| seen(who, 1, alive || who == "a", Announced::Serving)).into();
        roster.observe(at(0), all(true));
        roster.observe(at(1), all(false));
        assert!(roster.observe(at(600), all(false)).is_none());
        let view = roster.observe(at(601), all(false)).unwrap();
        assert_eq!((ring_of(&view), view.brake()), (vec!["a"], None));
    }

    #[test]
    fn goodbye_takes_effect_at_once() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        roster.observe(at(0), vec![seen("b", 1, true, Announced::Serving)]);
        let view = roster.observe(at(1), vec![seen("b", 1, true, Announced::Left)]).unwrap();
        assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Left);
        assert!(ring_of(&view).is_empty());
    }

    #[test]
    fn an_older_incarnation_never_replaces_a_newer_one() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        roster.observe(at(0), vec![seen("b", 5, true, Announced::Serving), seen("b", 4, true, Announced::Serving)]);
        roster.observe(at(1), vec![seen("b", 4, true, Announced::Serving)]);
        assert_eq!(roster.view().member(&name("b")).unwrap().incarnation, 5);
    }

    #[test]
    fn of_what_the_live_members_say_of_a_hot_key_the_most_counts() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let says = |who, alive, extra| {
            let mut seen = seen(who, 1, alive, Announced::Serving);
            seen.facts.hot = [(Key::new("k").unwrap(), extra)].into();
            seen
        };
        let k = Key::new("k").unwrap();
        let view = roster.observe(at(0), vec![says("a", true, 1), says("b", true, 2)]).unwrap();
        assert_eq!((view.extra(&k), view.extra(&Key::new("j").unwrap())), (2, 0));
        let view = roster.observe(at(10), vec![says("a", true, 1), says("b", false, 2)]).unwrap();
        assert_eq!((view.extra(&k), view.since()), (1, at(10)));
        let view = roster.observe(at(20), vec![says("a", true, 3), says("b", false, 2)]).unwrap();
        assert_eq!((view.extra(&k), view.since()), (3, at(10)), "the members are the same");
    }

    #[test]
    fn who_is_full_stays_on_the_ring_and_the_members_have_to_settle_again() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let b = |accepting| {
            let mut b = seen("b", 1, true, Announced::Serving);
            b.facts.accepting = accepting;
            vec![seen("a", 1, true, Announced::Serving), b]
        };
        roster.observe(at(0), b(true));
        let view = roster.observe(at(10), b(false)).unwrap();
        assert_eq!(ring_of(&view), ["a", "b"]);
        assert_eq!((view.since(), view.accepting().collect::<Vec<_>>()), (at(10), vec![&name("a")]));
        assert!(roster.observe(at(11), b(false)).is_none(), "nothing changed");
        let view = roster.observe(at(20), b(true)).unwrap();
        assert_eq!((view.since(), view.accepting().count()), (at(20), 2));
    }

    #[test]
    fn who_serves_something_else_never_owns_and_who_says_nothing_may() {
        for (serves, expected) in [
            (Some(Serves::everywhere("files")), &["a"][..]),
            (Some(Serves::everywhere("git")), &["a", "b"]),
            (None, &["a", "b"]),
        ] {
            let mut roster = Roster::new(name("a"), DELAY, BRAKE).serving(facts(Announced::Serving).serves);
            let mut other = seen("b", 1, true, Announced::Serving);
            other.facts.serves = serves;
            let view = roster.observe(at(0), vec![seen("a", 1, true, Announced::Serving), other]).unwrap();
            assert_eq!(ring_of(&view), expected);
            assert_eq!(view.member(&name("b")).unwrap().serves_other, expected.len() == 1);
        }
    }

    #[test]
    fn observers_and_the_weightless_never_own() {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE);
        let mut observer = seen("o", 1, true, Announced::Serving);
        observer.facts.role = Role::Observer;
        let mut light = seen("w", 1, true, Announced::Serving);
        light.facts.weight = 0;
        let view = roster.observe(at(0), vec![observer, light, seen("a", 1, true, Announced::Serving)]).unwrap();
        assert_eq!(ring_of(&view), ["a"]);
        let marks: Vec<_> = roster.ledger_marks().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(marks, ["w"], "nobody waits for the ledger of an observer");
    }
}
