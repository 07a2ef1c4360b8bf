//! A small etcd, to see what a node writes there and what it makes of what it reads.

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
