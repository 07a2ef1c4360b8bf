//! A seed is the same run in a fresh process as in one that has run others: what libraries draw once for the whole process
//! must not show. A test program of its own, because the first run in a process is what is looked at.

use std::{process::Command, sync::Arc, time::Duration};

use datad_gossip::{key::Key, providers::Memory};
use datad_sim::{
    Options, Simulation,
    machine::entropy,
    run,
    script::draw::{Shape, draw},
};

/// Makes this program print the hashes of its first two runs, by the entry point that it names.
const PRINT: &str = "DATAD_SIM_PRINT_HASHES";

fn own() -> u64 {
    let provider = |_, _| -> Arc<dyn datad_gossip::provider::Provider> {
        Arc::new(Memory::new(|key: Key| async move { Ok(format!("value of {key}").into()) }))
    };
    let keys = ["a", "b/c", "d"].map(|key| Key::new(key).unwrap());
    Simulation::new(7, provider).shape(3, Duration::from_secs(4)).keys(keys).run().hash
}

fn script() -> u64 {
    let shape = Shape { nodes: 3, lasts: Duration::from_secs(4) };
    run(&Options::new(7, draw(7, &shape))).hash
}

fn hashes_of_a_fresh_process(entry: &str) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let arguments = ["--exact", "the_first_run_of_a_process_is_as_any_later_one", "--nocapture"];
    let output = command.args(arguments).env(PRINT, entry).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_once("hash ")).map(|(_, hash)| hash.to_owned()).collect()
}

#[test]
fn the_first_run_of_a_process_is_as_any_later_one() {
    if !entropy::is_supported() {
        return;
    }
    let entries = [("own", own as fn() -> u64), ("script", script)];
    if let Ok(wanted) = std::env::var(PRINT) {
        let (_, entry) = entries.iter().find(|(name, _)| *name == wanted).unwrap();
        for _ in 0..2 {
            println!("\nhash {:016x}", entry());
        }
        return;
    }
    for (name, entry) in entries {
        let fresh = hashes_of_a_fresh_process(name);
        assert_eq!(fresh.len(), 2, "{fresh:?}");
        assert_eq!(fresh[0], fresh[1], "{name}: the first run and the second");
        assert_eq!(fresh[0], format!("{:016x}", entry()), "{name}: a fresh process and this one");
    }
}
