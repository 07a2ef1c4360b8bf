//! The pure core of the registry in etcd: the claims of every node, and which of this node's claims
//! still have to be written.
//!
//! ```text
//!   own claims (wanted) --difference--> batches --transactions--> etcd --watch--> what stands there (own and others')
//!          ^                                ^                                        |
//!          |                                +----------------------------------------+
//!     this node alone                                                                +--> index, assignments
//! ```
//!
//! What etcd holds is learned from the watch alone, never assumed from an answer: so one rule, "write where what stands
//! there is not what is wanted", covers first registration, lost answers, strangers who delete or overwrite, and an etcd
//! that forgot everything. A key whose write is under way is left alone until the watch has gone past that write.
//!
//! Invariants: of this node only its own word counts, and of others only theirs; both mappings of a
//! key are written together; before the first scan of the disk has ended, `ready` in etcd is not
//! taken back, for it may well be true; and an assignment by another program is not removed before
//! this node has tried to carry it out.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    connection::{Entry, Write},
    layout::{Layout, Place, Written},
};
use crate::{
    core::registry::{ClaimState, HolderState},
    key::{Key, NodeName},
};

/// Keys in one transaction: two operations each, and etcd takes 128 unless told otherwise.
pub(super) const BATCH_KEYS: usize = 64;

/// What stands in one of the two mappings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Half {
    #[default]
    Absent,
    Ours(Written),
    /// The value of another program.
    Foreign,
}

impl Half {
    fn read(value: Option<&[u8]>) -> Self {
        match value {
            None => Self::Absent,
            Some(value) => Written::parse(value).map_or(Self::Foreign, Self::Ours),
        }
    }

    fn is(&self, wanted: Option<&Written>) -> bool {
        match (self, wanted) {
            (Self::Absent, None) => true,
            (Self::Ours(written), Some(wanted)) => written == wanted,
            _ => false,
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self, Self::Ours(written) if written.state == ClaimState::Ready)
    }
}

/// One key of this node.
#[derive(Debug, Default)]
struct Own {
    claim: Option<ClaimState>,
    holder: Half,
    assignment: Half,
    writing: Writing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Writing {
    #[default]
    No,
    Sent,
    /// Done in this revision, which the watch has not reached yet.
    Until(i64),
}

/// What another node claims of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Other {
    incarnation: u64,
    state: HolderState,
}

/// How a node stands to a key from now on.
pub(super) type IndexChange = (Key, NodeName, Option<HolderState>);

/// What news from etcd lead to.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) changes: Vec<IndexChange>,
    /// Keys that another program wants this node to update.
    pub(super) assigned: Vec<Key>,
}

/// All that is known.
#[derive(Debug)]
pub(super) struct Claims {
    me: NodeName,
    incarnation: u64,
    layout: Layout,
    scanned: bool,
    own: BTreeMap<Key, Own>,
    /// Own keys that may have to be written.
    dirty: BTreeSet<Key>,
    /// Own keys whose write the watch has to reach.
    unconfirmed: BTreeMap<i64, Vec<Key>>,
    /// The revision that the watch has come to.
    reached: i64,
    assigned: BTreeSet<Key>,
    others: BTreeMap<NodeName, BTreeMap<Key, Other>>,
    incarnations: BTreeMap<NodeName, u64>,
    /// Claims of others that a listing has shown so far.
    listed: Option<BTreeSet<(NodeName, Key)>>,
}

impl Claims {
    pub(super) fn new(me: NodeName, incarnation: u64, layout: Layout) -> Self {
        Self {
            me,
            incarnation,
            layout,
            scanned: false,
            own: BTreeMap::new(),
            dirty: BTreeSet::new(),
            unconfirmed: BTreeMap::new(),
            reached: 0,
            assigned: BTreeSet::new(),
            others: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            listed: None,
        }
    }

    /// What this node claims of `key`.
    pub(super) fn claim(&self, key: &Key) -> Option<&ClaimState> {
        self.own.get(key)?.claim.as_ref()
    }

    /// Claims `key`, or takes the claim back. Returns whether that is a change.
    pub(super) fn set(&mut self, key: &Key, claim: Option<ClaimState>) -> bool {
        if claim.is_none() && !self.own.contains_key(key) {
            return false;
        }
        let own = self.own.entry(key.clone()).or_default();
        let changed = own.claim != claim;
        own.claim = claim;
        self.dirty.insert(key.clone());
        changed
    }

    /// Own keys in this state.
    pub(super) fn own_in(&self, state: &ClaimState) -> Vec<Key> {
        let matching = self.own.iter().filter(|(_, own)| own.claim.as_ref() == Some(state));
        matching.map(|(key, _)| key.clone()).collect()
    }

    /// The first scan of the disk has ended: what is not claimed is not here.
    pub(super) fn mark_scanned(&mut self) {
        self.scanned = true;
        self.dirty.extend(self.own.keys().cloned());
    }

    /// An assignment has been carried out, or cannot be.
    pub(super) fn done_with(&mut self, key: &Key) {
        self.assigned.remove(key);
        self.dirty.insert(key.clone());
    }

    /// Whether etcd says of `key` what this node does.
    pub(super) fn is_recorded(&self, key: &Key) -> bool {
        self.own.get(key).is_none_or(|own| self.missing(key, own).is_none())
    }

    /// Nothing to be written, or on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.dirty.is_empty() && self.unconfirmed.is_empty() && self.assigned.is_empty()
    }

    /// A listing of everything begins.
    pub(super) fn begin_listing(&mut self) {
        self.listed = Some(BTreeSet::new());
        self.unconfirmed.clear();
        for own in self.own.values_mut() {
            (own.holder, own.assignment, own.writing) = (Half::Absent, Half::Absent, Writing::No);
        }
    }

    /// The listing was complete: what it did not show is gone.
    pub(super) fn end_listing(&mut self, revision: i64) -> Vec<IndexChange> {
        self.reached = revision;
        let Some(listed) = self.listed.take() else { return Vec::new() };
        let mut gone = Vec::new();
        for (node, claims) in &mut self.others {
            // One lookup a key, in order of both; the node's name is cloned for nothing but that.
            claims.retain(|key, _| {
                let stays = listed.contains(&(node.clone(), key.clone()));
                if !stays {
                    gone.push((key.clone(), node.clone(), None));
                }
                stays
            });
        }
        self.dirty.extend(self.own.keys().cloned());
        gone
    }

    /// The connection is gone, and with it the answers to what was being written. The watch will tell.
    pub(super) fn disconnected(&mut self) {
        self.unconfirmed.clear();
        for (key, own) in &mut self.own {
            if own.writing != Writing::No {
                own.writing = Writing::No;
                self.dirty.insert(key.clone());
            }
        }
    }

    /// Takes in what stands under one name, from a listing or the watch. `intern` gives keys their one allocation.
    pub(super) fn take_in(&mut self, entry: &Entry, intern: impl Fn(Key) -> Key, effects: &mut Effects) {
        let value = entry.value.as_deref();
        match self.layout.place(&entry.name) {
            Some(Place::Holder { key, node }) if node == self.me => {
                let key = intern(key);
                self.own.entry(key.clone()).or_default().holder = Half::read(value);
                self.dirty.insert(key);
            }
            Some(Place::Assignment { node, key }) if node == self.me => {
                let key = intern(key);
                let half = Half::read(value);
                if half == Half::Foreign {
                    self.assigned.insert(key.clone());
                    effects.assigned.push(key.clone());
                }
                self.own.entry(key.clone()).or_default().assignment = half;
                self.dirty.insert(key);
            }
            Some(Place::Holder { key, node }) => self.take_in_other(node, intern(key), value, effects),
            // Of others, the mapping from keys to nodes says the same. Members are not in here.
            _ => {}
        }
    }

    fn take_in_other(&mut self, node: NodeName, key: Key, value: Option<&[u8]>, effects: &mut Effects) {
        // A value of another program is not that node's claim.
        let written = value.and_then(Written::parse);
        let claim = written.map(|written| Other { incarnation: written.incarnation, state: written.tag() });
        if let (Some(listed), Some(_)) = (&mut self.listed, claim) {
            listed.insert((node.clone(), key.clone()));
        }
        let before = match claim {
            Some(claim) => self.others.entry(node.clone()).or_default().insert(key.clone(), claim),
            None => self.others.get_mut(&node).and_then(|claims| claims.remove(&key)),
        };
        if before != claim {
            let state = claim.and_then(|claim| standing(claim, self.incarnations.get(&node)));
            effects.changes.push((key, node, state));
        }
    }

    /// The watch has come to this revision.
    pub(super) fn reached(&mut self, revision: i64) {
        self.reached = revision;
        let later = self.unconfirmed.split_off(&(revision + 1));
        let confirmed = std::mem::replace(&mut self.unconfirmed, later);
        for key in confirmed.into_values().flatten() {
            if let Some(own) = self.own.get_mut(&key)
                && matches!(own.writing, Writing::Until(until) if until <= revision)
            {
                own.writing = Writing::No;
                self.dirty.insert(key);
            }
        }
    }

    /// These starts of other nodes are known. What former ones were about to do is void.
    pub(super) fn members(&mut self, incarnations: BTreeMap<NodeName, u64>) -> Vec<IndexChange> {
        let before = std::mem::replace(&mut self.incarnations, incarnations);
        let mut changes = Vec::new();
        for (node, claims) in &self.others {
            let (old, new) = (before.get(node), self.incarnations.get(node));
            if old != new {
                let unsettled = claims.iter().filter(|(_, claim)| claim.state != HolderState::Ready);
                changes.extend(unsettled.map(|(key, claim)| (key.clone(), node.clone(), standing(*claim, new))));
            }
        }
        changes
    }

    /// The next keys to write, and how. Ask until there is nothing.
    pub(super) fn next_batch(&mut self) -> Option<(Vec<Key>, Vec<Write>)> {
        let (mut keys, mut writes) = (Vec::new(), Vec::new());
        while keys.len() < BATCH_KEYS {
            let Some(key) = self.dirty.pop_first() else { break };
            let Some(own) = self.own.get(&key) else { continue };
            match self.missing(&key, own) {
                _ if own.writing != Writing::No => {}
                Some(missing) => {
                    writes.extend(missing);
                    self.own.get_mut(&key).expect("it was there a line ago").writing = Writing::Sent;
                    keys.push(key);
                }
                None if own.claim.is_none() && own.holder == Half::Absent && own.assignment == Half::Absent => {
                    self.own.remove(&key);
                }
                None => {}
            }
        }
        (!keys.is_empty()).then_some((keys, writes))
    }

    /// What has to be written for etcd to say of `key` what this node does; `None` if nothing.
    fn missing(&self, key: &Key, own: &Own) -> Option<[Write; 2]> {
        let wanted = own.claim.clone().map(|state| Written::new(self.incarnation, state));
        if own.holder.is(wanted.as_ref()) && own.assignment.is(wanted.as_ref()) {
            return None;
        }
        let (holder, assignment) = (self.layout.holder(key, &self.me), self.layout.assignment(&self.me, key));
        match wanted {
            Some(wanted) => {
                let put = |name| Write::Put { name, value: wanted.to_string() };
                Some([put(holder), put(assignment)])
            }
            None => {
                let presumed = !self.scanned && (own.holder.is_ready() || own.assignment.is_ready());
                let delete = |name| Write::Delete { name };
                (!presumed && !self.assigned.contains(key)).then(|| [delete(holder), delete(assignment)])
            }
        }
    }

    /// A batch was written in `revision`, or changed nothing.
    pub(super) fn written(&mut self, keys: Vec<Key>, revision: Option<i64>) {
        let sent: Vec<Key> = keys
            .into_iter()
            .filter(|key| {
                let own = self.own.get_mut(key).filter(|own| own.writing == Writing::Sent);
                own.is_some_and(|own| {
                    own.writing = Writing::Until(revision.unwrap_or_default());
                    true
                })
            })
            .collect();
        // Nothing to wait for: what happened instead has been seen, or will be as a change of its own.
        let revision = revision.unwrap_or(self.reached);
        self.unconfirmed.entry(revision).or_default().extend(sent);
        if revision <= self.reached {
            self.reached(self.reached);
        }
    }

    /// How many keys each other node has ready, and how many are being fetched by those that `live` says live.
    pub(super) fn count(&self, live: impl Fn(&NodeName) -> bool) -> (BTreeMap<NodeName, usize>, usize) {
        let mut ready = BTreeMap::new();
        let own = self.own.values().filter_map(|own| own.claim.as_ref());
        ready.insert(self.me.clone(), own.clone().filter(|claim| **claim == ClaimState::Ready).count());
        let mut fetching = own.filter(|claim| **claim == ClaimState::Fetching).count();
        for (node, claims) in &self.others {
            let incarnation = self.incarnations.get(node);
            let counted =
                |wanted| claims.values().filter(|claim| standing(**claim, incarnation) == Some(wanted)).count();
            ready.insert(node.clone(), counted(HolderState::Ready));
            if live(node) {
                fetching += counted(HolderState::Fetching);
            }
        }
        (ready, fetching)
    }
}

/// What another's claim is worth, given which start of that node is known.
fn standing(claim: Other, incarnation: Option<&u64>) -> Option<HolderState> {
    let void = claim.state != HolderState::Ready && incarnation.is_some_and(|known| *known > claim.incarnation);
    (!void).then_some(claim.state)
}
