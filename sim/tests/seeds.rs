//! Whole runs: clean seeds, repeatable seeds, scenarios, and seeds that once failed.

use std::{sync::Arc, time::Duration};

use datad_sim::{
    Options, Script,
    machine::entropy,
    model::{What, first_difference},
    run,
    script::{
        draw::{Shape, draw},
        scenarios,
    },
    trace::Keep,
};

fn shape(seconds: u64) -> Shape {
    Shape { nodes: 5, lasts: Duration::from_secs(seconds) }
}

#[test]
fn some_seeds_are_clean() {
    // In a debug build, which checks more and is slow. Many more run in a release build.
    for seed in 1..3 {
        let outcome = run(&Options::new(seed, draw(seed, &shape(20))));
        assert!(outcome.violation.is_none(), "{}", outcome.line());
        assert!(outcome.requests.good > 0, "nothing was asked for: {}", outcome.line());
    }
}

#[test]
fn a_seed_repeats_itself_event_for_event() {
    if !entropy::is_supported() {
        return;
    }
    let mut options = Options::new(11, draw(11, &shape(15)));
    options.keep = Keep::All;
    let (first, second) = (run(&options), run(&options));
    assert_eq!(first_difference(&first.events, &second.events), None);
    assert_eq!(first.hash, second.hash);
    // The hash does not depend on what is kept.
    options.keep = Keep::Hash;
    assert_eq!(run(&options).hash, first.hash);
    options.seed += 100;
    assert_ne!(run(&options).hash, first.hash, "another seed is another run");
}

#[test]
fn a_leaked_source_of_randomness_is_caught() {
    let mut options = Options::new(5, draw(5, &shape(10)));
    (options.keep, options.leak) = (Keep::All, true);
    let (first, second) = (run(&options), run(&options));
    assert!(first_difference(&first.events, &second.events).is_some());
    assert_ne!(first.hash, second.hash);
}

#[test]
fn the_expectations_of_a_scenario_are_demanded() {
    let mut script = scenarios::load("thundering-herd").unwrap();
    script.expect.fetches_max = Some(0);
    let outcome = run(&Options::new(1, script));
    assert_eq!(outcome.violation.map(|violation| violation.property), Some(6));
}

#[test]
fn members_that_are_removed_leave_a_cluster_that_agrees() {
    let mut options = Options::new(1, scenarios::load("removed-members").unwrap());
    options.keep = Keep::All;
    let outcome = run(&options);
    assert!(outcome.violation.is_none(), "{}", outcome.line());
    let removed = outcome.events.iter().filter(|event| matches!(event.what, What::Node { now: "removed", .. }));
    assert_eq!(removed.count(), 3, "all removals were carried out");
}

#[test]
fn when_all_disks_are_full_only_copies_go_and_nothing_that_is_pinned() {
    let outcome = run(&Options::new(1, scenarios::load("all-disks-full").unwrap()));
    assert!(outcome.violation.is_none(), "{}", outcome.line());
    assert!(outcome.updates.evicted > 0, "no only copy went: {}", outcome.line());
}

#[test]
fn a_cluster_whose_machines_are_cut_off_for_good_is_judged_by_its_core() {
    let text = "lasts = \"20s\"\n\
        [[fault]]\nat = \"5s\"\nkind = \"cut\"\nfrom = [\"n1\"]\nto = [\"n2\", \"n3\", \"n4\", \"n5\"]\n\
        [[fault]]\nat = \"6s\"\nkind = \"pause\"\nnode = \"n2\"\n\
        [node]\nrepair_delay = \"2s\"\n[traffic]\nper_second = 10.0";
    let script: Arc<Script> = Script::parse(text).unwrap().into();
    for seed in 1..4 {
        let outcome = run(&Options::new(seed, script.clone()));
        assert!(outcome.violation.is_none(), "{}", outcome.line());
    }
}
