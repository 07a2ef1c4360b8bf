//! Golden placements, and what holds of every ring.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn node(number: usize) -> NodeName {
    NodeName::new(format!("node-{number}")).unwrap()
}

fn key(number: usize) -> Key {
    Key::new(format!("example.org/team/repo-{number}")).unwrap()
}

fn ring_of(members: &[(usize, u32)]) -> Ring {
    Ring::build(members.iter().map(|&(number, weight)| (node(number), weight)), RingOptions::default())
}

fn names(preference: Preference<'_>) -> Vec<&str> {
    preference.map(NodeName::as_str).collect()
}

const GOLDEN_1: [&str; 3] = ["node-5", "node-4", "node-1"];
const GOLDEN_2: [&str; 3] = ["node-5", "node-1", "node-4"];
const GOLDEN_A: [&str; 5] = ["node-5", "node-3", "node-2", "node-4", "node-1"];
const GOLDEN_FINGERPRINT: u64 = 0xf442e8850d850492;

#[test]
fn placement_is_the_same_on_every_platform_and_in_every_version() {
    let ring = ring_of(&[(1, 100), (2, 100), (3, 50), (4, 100), (5, 200)]);
    assert_eq!(names(ring.owners(&key(1), 3)), GOLDEN_1);
    assert_eq!(names(ring.owners(&key(2), 3)), GOLDEN_2);
    assert_eq!(names(ring.preference(&Key::new("a").unwrap())), GOLDEN_A);
    assert_eq!(ring.fingerprint(), GOLDEN_FINGERPRINT);
}

#[test]
fn an_empty_ring_has_no_owners() {
    for ring in [ring_of(&[]), ring_of(&[(1, 0)])] {
        assert_eq!(ring.preference(&key(1)).len(), 0);
        assert!(!ring.owns(&node(1), &key(1), 3));
        assert!(ring.nodes().is_empty());
    }
}

#[test]
fn a_name_given_twice_counts_once_with_the_larger_weight() {
    let once = ring_of(&[(1, 100), (2, 200)]);
    for twice in [ring_of(&[(1, 100), (2, 50), (2, 200)]), ring_of(&[(2, 200), (1, 100), (2, 50)])] {
        assert_eq!(once.fingerprint(), twice.fingerprint());
        assert_eq!(once.table, twice.table);
    }
}

#[test]
fn the_fingerprint_tells_members_weights_and_options_apart() {
    let build = |members: &[(usize, u32)], virtual_nodes, depth| {
        let members = members.iter().map(|&(number, weight)| (node(number), weight));
        Ring::build(members, RingOptions { virtual_nodes, depth }).fingerprint()
    };
    let all = [
        build(&[], 256, 16),
        build(&[(1, 100)], 256, 16),
        build(&[(2, 100)], 256, 16),
        build(&[(1, 101)], 256, 16),
        build(&[(1, 100), (2, 100)], 256, 16),
        build(&[(1, 100)], 128, 16),
        build(&[(1, 100)], 256, 8),
    ];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    assert_eq!(build(&[(1, 100), (9, 0)], 256, 16), all[1], "a member off the ring does not count");
}

#[test]
fn the_most_loaded_of_a_hundred_nodes_has_little_more_than_the_mean() {
    let ring = ring_of(&(0..100).map(|number| (number, 100)).collect::<Vec<_>>());
    let mut load = BTreeMap::<_, usize>::new();
    let keys = 100_000;
    for number in 0..keys {
        *load.entry(ring.preference(&key(number)).next().unwrap()).or_default() += 1;
    }
    let most = *load.values().max().unwrap() as f64 / (keys as f64 / 100.0);
    assert!(most <= 1.35, "{most}");
}

#[test]
fn a_weight_scales_the_share() {
    let ring = ring_of(&[(1, 50), (2, 100), (3, 100), (4, 200), (5, 300)]);
    let keys = 50_000;
    for (number, weight) in [(1, 50), (2, 100), (4, 200), (5, 300)] {
        let name = node(number);
        let owned = (0..keys).filter(|&number| ring.owns(&name, &key(number), 1)).count();
        let ratio = owned as f64 / (keys as f64 * f64::from(weight) / 750.0);
        assert!((0.8..=1.2).contains(&ratio), "weight {weight}: {ratio}");
    }
}

#[test]
fn weights_beyond_the_limit_count_as_the_limit() {
    assert_eq!(ring_of(&[(1, WEIGHT_MAX)]).fingerprint(), ring_of(&[(1, u32::MAX)]).fingerprint());
}

#[test]
fn of_two_points_that_collide_the_smaller_name_stays() {
    let mut points = vec![
        Point { hash: 7, node: 2, number: 0 },
        Point { hash: 7, node: 1, number: 5 },
        Point { hash: 7, node: 1, number: 4 },
        Point { hash: 9, node: 2, number: 1 },
    ];
    points.sort_unstable();
    points.dedup_by_key(|point| point.hash);
    assert_eq!(points.iter().map(|p| (p.hash, p.node, p.number)).collect::<Vec<_>>(), [(7, 1, 4), (9, 2, 1)]);
}

/// What the table is a fast form of: walk clockwise, take each node the first time it is met.
fn walk(points: &[Point], from: usize, depth: usize) -> Vec<u16> {
    let mut list = Vec::new();
    for at in (from..points.len()).chain(0..from) {
        if list.len() < depth && !list.contains(&points[at].node) {
            list.push(points[at].node);
        }
    }
    list
}

fn members() -> impl Strategy<Value = BTreeMap<usize, u32>> {
    proptest::collection::btree_map(0..40usize, prop_oneof![Just(100u32), 0..300u32], 0..25)
}

fn build(members: &BTreeMap<usize, u32>) -> Ring {
    let options = RingOptions { virtual_nodes: 16, ..RingOptions::default() };
    Ring::build(members.iter().map(|(&number, &weight)| (node(number), weight)), options)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn owners_are_distinct_and_as_many_as_there_can_be(members in members(), replicas in 0..20usize) {
        let ring = build(&members);
        let on_ring = members.values().filter(|&&weight| weight > 0).count();
        prop_assert_eq!(ring.nodes().len(), on_ring);
        for number in 0..50 {
            let key = key(number);
            let owners: Vec<_> = ring.owners(&key, replicas).collect();
            prop_assert_eq!(owners.len(), replicas.min(on_ring).min(OWNERS_MAX));
            prop_assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), owners.len());
            for name in ring.nodes() {
                prop_assert_eq!(ring.owns(name, &key, replicas), owners.contains(&name));
            }
        }
    }

    #[test]
    fn the_table_says_what_a_walk_around_the_circle_says(members in members(), depth in 1..6usize) {
        let options = RingOptions { virtual_nodes: 8, depth };
        let named = members.iter().map(|(&number, &weight)| (node(number), weight));
        let points = points(&virtual_nodes_by_name(named, options));
        let depth = depth.min(points.iter().map(|point| point.node).collect::<BTreeSet<_>>().len());
        let table = preference_table(&points, depth);
        for at in 0..points.len() {
            prop_assert_eq!(&table[at * depth..][..depth], &walk(&points, at, depth)[..]);
        }
    }

    #[test]
    fn a_walk_goes_on_where_the_preference_list_ends_and_meets_everybody(members in members(), depth in 1..6usize) {
        let named = || members.iter().map(|(&number, &weight)| (node(number), weight));
        let short = Ring::build(named(), RingOptions { virtual_nodes: 8, depth });
        let long = Ring::build(named(), RingOptions { virtual_nodes: 8, depth: NODES_MAX });
        for number in 0..50 {
            let walked: Vec<_> = short.walk(&key(number)).collect();
            prop_assert_eq!(walked, long.preference(&key(number)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_order_of_the_members_does_not_matter(
        members in members().prop_flat_map(|members| {
            let listed: Vec<_> = members.into_iter().collect();
            (Just(listed.clone()), Just(listed).prop_shuffle())
        }),
    ) {
        let (one, other) = (ring_of(&members.0), ring_of(&members.1));
        prop_assert_eq!(one.fingerprint(), other.fingerprint());
        for number in 0..50 {
            prop_assert_eq!(names(one.preference(&key(number))), names(other.preference(&key(number))));
        }
    }

    #[test]
    fn no_key_moves_between_two_nodes_that_stayed(members in members(), joins in 0..40usize, replicas in 1..5usize) {
        let mut before = members;
        before.remove(&joins);
        let mut after = before.clone();
        after.insert(joins, 100);
        let (without, with, joiner) = (build(&before), build(&after), node(joins));
        for number in 0..200 {
            let old: Vec<_> = without.owners(&key(number), replicas).collect();
            let new: Vec<_> = with.owners(&key(number), replicas).collect();
            // The joiner enters somewhere, at most the last of the others leaves, and the rest keep their order.
            let stayed: Vec<_> = new.iter().filter(|&&name| *name != joiner).copied().collect();
            prop_assert_eq!(&old[..stayed.len()], &stayed[..]);
            prop_assert!(new.contains(&&joiner) || old == new);
        }
    }
}
