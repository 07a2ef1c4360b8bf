//! The pure core of the registry in etcd: what every node claims, and what of the own claims has still to be written.
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
//! Invariants: of this node only its own word counts, and of others only theirs; both mappings of a key are written
//! together; before the first scan of the disk has ended, `ready` in etcd is not taken back, for it may well be true; and
//! an assignment by somebody else is not removed before this node has tried to do what it asks for.

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
    /// Somebody else's value.
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
    /// Keys that somebody else wants this node to update.
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

    /// Claims `key`, or takes the claim back. Whether that is news.
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

    /// What somebody assigned has been done, or cannot be done.
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
        // Somebody else's value is not that node's word.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn node(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    /// An etcd of a few names, whose watch tells what it is told.
    #[derive(Default)]
    struct Store {
        names: BTreeMap<String, String>,
        revision: i64,
        events: Vec<(i64, Entry)>,
    }

    impl Store {
        fn write(&mut self, write: &Write) {
            let (name, value) = match write {
                Write::Put { name, value } => (name, Some(value.clone())),
                Write::Delete { name } => (name, None),
            };
            let changed = match &value {
                Some(value) => {
                    self.names.insert(name.clone(), value.clone());
                    true
                }
                None => self.names.remove(name).is_some(),
            };
            if changed {
                let entry = Entry { name: name.clone().into_bytes(), value: value.map(String::into_bytes) };
                self.events.push((self.revision, entry));
            }
        }

        fn transact(&mut self, writes: &[Write]) -> Option<i64> {
            self.revision += 1;
            let before = self.events.len();
            for write in writes {
                self.write(write);
            }
            (self.events.len() > before).then_some(self.revision)
        }

        fn put(&mut self, name: &str, value: &str) {
            self.transact(&[Write::Put { name: name.into(), value: value.into() }]);
        }
    }

    fn claims() -> Claims {
        Claims::new(node("me"), 5, Layout::new("/d/"))
    }

    fn tell(claims: &mut Claims, store: &mut Store) -> Effects {
        let mut effects = Effects::default();
        for (revision, entry) in std::mem::take(&mut store.events) {
            claims.take_in(&entry, |key| key, &mut effects);
            claims.reached(revision);
        }
        effects
    }

    fn list(claims: &mut Claims, store: &mut Store) -> Effects {
        store.events.clear();
        let mut effects = Effects::default();
        claims.begin_listing();
        for (name, value) in &store.names {
            let entry = Entry { name: name.clone().into_bytes(), value: Some(value.clone().into_bytes()) };
            claims.take_in(&entry, |key| key, &mut effects);
        }
        effects.changes.extend(claims.end_listing(store.revision));
        effects
    }

    fn write_all(claims: &mut Claims, store: &mut Store) {
        while let Some((keys, writes)) = claims.next_batch() {
            assert!(writes.len() <= 2 * BATCH_KEYS);
            let revision = store.transact(&writes);
            claims.written(keys, revision);
            tell(claims, store);
        }
    }

    fn names(store: &Store) -> Vec<(&str, &str)> {
        store.names.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn both_mappings_are_written_together_and_taken_back_together() {
        let (mut claims, mut store) = (claims(), Store::default());
        claims.mark_scanned();
        assert!(claims.set(&key("a/b"), Some(ClaimState::Fetching)));
        write_all(&mut claims, &mut store);
        assert_eq!(
            names(&store),
            [("/d/registry/data/a/b/$$nodes/me", "fetching 5"), ("/d/registry/nodes/me/$$keys/a/b", "fetching 5")]
        );
        assert!(claims.set(&key("a/b"), None));
        write_all(&mut claims, &mut store);
        assert!(store.names.is_empty() && claims.own.is_empty() && claims.is_idle());
    }

    #[test]
    fn a_key_changed_while_it_is_written_is_written_again_after_that() {
        let (mut claims, mut store) = (claims(), Store::default());
        claims.set(&key("a"), Some(ClaimState::Fetching));
        let (keys, writes) = claims.next_batch().unwrap();
        claims.set(&key("a"), Some(ClaimState::Ready));
        assert!(claims.next_batch().is_none(), "one write of a key at a time");
        let revision = store.transact(&writes);
        claims.written(keys, revision);
        assert!(claims.next_batch().is_none(), "the watch has not shown it yet");
        tell(&mut claims, &mut store);
        write_all(&mut claims, &mut store);
        assert_eq!(store.names["/d/registry/data/a/$$nodes/me"], "ready");
    }

    #[test]
    fn what_stands_in_etcd_is_presumed_true_until_the_disk_has_been_looked_at() {
        let (mut claims, mut store) = (claims(), Store::default());
        store.put("/d/registry/data/a/$$nodes/me", "ready");
        store.put("/d/registry/nodes/me/$$keys/a", "ready");
        store.put("/d/registry/data/b/$$nodes/me", "fetching 4");
        store.put("/d/registry/nodes/me/$$keys/b", "fetching 4");
        list(&mut claims, &mut store);
        write_all(&mut claims, &mut store);
        assert_eq!(store.names.len(), 2, "what a former start was fetching is void at once");
        claims.set(&key("a"), Some(ClaimState::Ready));
        assert!(claims.next_batch().is_none(), "a restart writes nothing anew");
        claims.set(&key("a"), None);
        claims.mark_scanned();
        write_all(&mut claims, &mut store);
        assert!(store.names.is_empty());
    }

    #[test]
    fn an_assignment_stands_until_it_is_done_and_then_says_what_came_of_it() {
        let (mut claims, mut store) = (claims(), Store::default());
        claims.mark_scanned();
        store.put("/d/registry/nodes/me/$$keys/k", "");
        assert_eq!(tell(&mut claims, &mut store).assigned, [key("k")]);
        assert!(claims.next_batch().is_none());
        claims.disconnected();
        assert_eq!(list(&mut claims, &mut store).assigned, [key("k")], "it is not lost if nobody was listening");
        claims.set(&key("k"), Some(ClaimState::Ready));
        claims.done_with(&key("k"));
        write_all(&mut claims, &mut store);
        assert_eq!(store.names["/d/registry/nodes/me/$$keys/k"], "ready");
        store.put("/d/registry/nodes/me/$$keys/none", "x");
        tell(&mut claims, &mut store);
        claims.done_with(&key("none"));
        write_all(&mut claims, &mut store);
        assert_eq!(store.names.len(), 2, "nothing came of it");
    }

    #[test]
    fn of_others_their_own_word_counts_and_no_longer_than_it_may() {
        let (mut claims, mut store) = (claims(), Store::default());
        store.put("/d/registry/data/k/$$nodes/n1", "ready");
        store.put("/d/registry/data/k/$$nodes/n2", "fetching 7");
        store.put("/d/registry/data/k/$$nodes/n3", "");
        let changes = tell(&mut claims, &mut store).changes;
        let ready = (key("k"), node("n1"), Some(HolderState::Ready));
        let fetching = (key("k"), node("n2"), Some(HolderState::Fetching));
        assert_eq!(changes, [ready, fetching]);
        let restarted = BTreeMap::from([(node("n1"), 9), (node("n2"), 8)]);
        assert_eq!(claims.members(restarted), [(key("k"), node("n2"), None)]);
        assert_eq!(claims.count(|_| true), (BTreeMap::from([(node("me"), 0), (node("n1"), 1), (node("n2"), 0)]), 0));
        store.names.clear();
        let gone: Vec<_> = list(&mut claims, &mut store).changes.into_iter().map(|(_, node, _)| node).collect();
        assert_eq!(gone, [node("n1"), node("n2")]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Claim(u8, Option<ClaimState>),
        Scanned,
        Send,
        Land(bool),
        Watch,
        Lose,
        Stranger(u8, bool, Option<&'static str>),
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        let state = prop_oneof![
            Just(None),
            Just(Some(ClaimState::Ready)),
            Just(Some(ClaimState::Fetching)),
            Just(Some(ClaimState::failed("x", 1)))
        ];
        prop_oneof![
            4 => (0..6u8, state).prop_map(|(key, state)| Step::Claim(key, state)),
            1 => Just(Step::Scanned),
            4 => Just(Step::Send),
            4 => any::<bool>().prop_map(Step::Land),
            4 => Just(Step::Watch),
            1 => Just(Step::Lose),
            2 => (0..6u8, any::<bool>(), proptest::option::of(Just("")))
                .prop_map(|(key, holder, value)| Step::Stranger(key, holder, value)),
            1 => Just(Step::Forget),
        ]
    }

    proptest! {
        /// Whatever is lost, delayed, overwritten or forgotten on the way: in the end etcd says what the node does.
        #[test]
        fn etcd_comes_to_say_what_the_node_does(steps in proptest::collection::vec(step(), 0..120)) {
            let (mut claims, mut store) = (claims(), Store::default());
            let mut flying: Vec<(Vec<Key>, Vec<Write>)> = Vec::new();
            let name = |number: u8| key(&format!("k{number}"));
            for step in steps {
                match step {
                    Step::Claim(number, state) => drop(claims.set(&name(number), state)),
                    Step::Scanned => claims.mark_scanned(),
                    Step::Send => flying.extend(claims.next_batch()),
                    Step::Land(answered) => {
                        if let Some((keys, writes)) = flying.pop() {
                            let revision = store.transact(&writes);
                            if answered { claims.written(keys, revision) }
                        }
                    }
                    Step::Watch => drop(tell(&mut claims, &mut store)),
                    Step::Lose => {
                        claims.disconnected();
                        flying.clear();
                    }
                    Step::Stranger(number, holder, value) => {
                        let layout = Layout::new("/d/");
                        let name = if holder { layout.holder(&name(number), &node("me")) } else { layout.assignment(&node("me"), &name(number)) };
                        let write = value.map_or(Write::Delete { name: name.clone() }, |value| Write::Put { name, value: value.into() });
                        store.transact(&[write]);
                    }
                    Step::Forget => {
                        claims.disconnected();
                        flying.clear();
                        store.names.clear();
                        list(&mut claims, &mut store);
                    }
                }
            }
            // Everything settles.
            claims.mark_scanned();
            claims.disconnected();
            tell(&mut claims, &mut store);
            for number in 0..6 {
                claims.done_with(&name(number));
            }
            write_all(&mut claims, &mut store);
            prop_assert!(claims.is_idle());
            let layout = Layout::new("/d/");
            let mut expected = BTreeMap::new();
            for number in 0..6 {
                if let Some(state) = claims.claim(&name(number)) {
                    let value = Written::new(5, state.clone()).to_string();
                    expected.insert(layout.holder(&name(number), &node("me")), value.clone());
                    expected.insert(layout.assignment(&node("me"), &name(number)), value);
                }
            }
            prop_assert_eq!(&store.names, &expected);
        }
    }
}
