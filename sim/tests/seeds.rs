//! Whole runs: clean seeds, repeatable seeds, and bugs that are put in and have to be found.

use std::time::Duration;

use datad_sim::{Options, Plant, entropy, run, trace::first_difference};

/// What libraries draw once for the whole process, they draw in a run that nobody looks at.
fn warm_up() {
    let mut options = Options::new(0);
    (options.nodes, options.faulty) = (2, Duration::from_millis(500));
    let _ = run(&options);
}

fn clean(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let outcome = run(&Options::new(seed));
        assert_eq!(outcome.violation, None, "datad-sim run --seed {seed}");
        assert!(outcome.counts.answered > 0, "seed {seed} asked for nothing: {:?}", outcome.counts);
    }
}

#[test]
fn some_seeds_are_clean() {
    clean(1..6);
}

#[test]
fn more_seeds_are_clean() {
    clean(6..11);
}

#[test]
fn a_seed_repeats_itself() {
    if !entropy::is_supported() {
        return;
    }
    warm_up();
    for seed in [11, 12] {
        let mut options = Options::new(seed);
        (options.keep_events, options.faulty) = (true, Duration::from_secs(20));
        let (first, second) = (run(&options), run(&options));
        assert_eq!(first_difference(&first.events, &second.events), None, "seed {seed}");
        assert_eq!((first.hash, first.counts), (second.hash, second.counts), "seed {seed}");
        options.seed += 100;
        assert_ne!(run(&options).hash, first.hash, "another seed is another run");
    }
}

#[test]
fn data_that_vanishes_behind_a_nodes_back_is_found() {
    let finds = |seed| {
        let mut options = Options::new(seed);
        (options.faulty, options.plant) = (Duration::from_secs(20), Some(Plant::SilentLoss));
        run(&options).violation.map(|violation| violation.property) == Some(2)
    };
    // Not in every run is anything held at the moment when the data goes.
    assert!((1..9).any(finds));
}

#[test]
fn bytes_that_nobody_published_are_found() {
    let mut options = Options::new(3);
    (options.faulty, options.plant) = (Duration::from_secs(20), Some(Plant::WrongBytes));
    let found = run(&options).violation.map(|violation| violation.property);
    assert_eq!(found, Some(9));
}
