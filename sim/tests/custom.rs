//! A provider of one's own under the faults of a seed, as the README shows it.

use std::{sync::Arc, time::Duration};

use datad_gossip::{key::Key, providers::Memory};
use datad_sim::Simulation;

fn simulation(seed: u64) -> Simulation {
    // The seconds are few because this is a debug build; leave `shape` out for a minute of five machines.
    let keys = ["a", "b/c", "d"].map(|key| Key::new(key).unwrap());
    Simulation::new(seed, |_machine, _left_by_crash| {
        Arc::new(Memory::new(|key: Key| async move { Ok(format!("value of {key}").into()) }))
    })
    .shape(5, Duration::from_secs(20))
    .keys(keys)
}

#[test]
fn my_provider_survives() {
    for seed in 1..4 {
        let outcome = simulation(seed).judge(|key, bytes| bytes == format!("value of {key}").as_bytes()).check();
        assert!(outcome.requests.good > 0);
    }
}

#[test]
fn answers_that_the_judge_refuses_are_violations() {
    let outcome = simulation(1).judge(|_, _| false).run();
    assert_eq!(outcome.violation.map(|violation| violation.property), Some(9));
}

/// A project that uses the crate without the flag that it needs is told what to write, and where.
#[test]
fn without_its_flag_the_crate_says_what_to_put_where() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs");
    let out = tempfile::tempdir().unwrap();
    let compile = |flags: &[&str]| {
        let mut rustc = std::process::Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--out-dir"]);
        let output = rustc.arg(out.path()).args(flags).arg(root).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = compile(&[]);
    assert!(said.contains("--cfg tokio_unstable") && said.contains(".cargo/config.toml"), "{said}");
    assert!(!compile(&["--cfg", "tokio_unstable"]).contains(".cargo/config.toml"));
}
