//! What each feature of the library brings along: who embeds a node builds what it uses and nothing else.

use std::{collections::BTreeSet, process::Command};

/// The crates that the library is built of with these features alone.
fn crates(features: &str) -> BTreeSet<String> {
    let tree = ["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(tree).args(["--no-default-features", "--features", features]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

/// Which of the dear crates are among those of these features.
fn dear(features: &str) -> Vec<&'static str> {
    const DEAR: [&str; 13] = [
        "axum",
        "clap",
        "etcd-client",
        "flate2",
        "hyper",
        "object_store",
        "prometheus-client",
        "reqwest",
        "serde_json",
        "tikv-jemallocator",
        "toml",
        "tracing-subscriber",
        "url",
    ];
    let crates = crates(features);
    DEAR.into_iter().filter(|name| crates.contains(*name)).collect()
}

#[test]
fn a_node_alone_brings_none_of_the_dear_crates() {
    let found = crates("");
    assert!(found.contains("quinn") && found.contains("ractor"), "{found:?}");
    assert!(found.len() < 160, "{} crates: {found:?}", found.len());
    assert_eq!(dear(""), Vec::<&str>::new());
}

#[test]
fn each_feature_brings_what_it_needs_alone() {
    let web = ["hyper", "url"];
    for (feature, own) in [
        ("gateway", &["axum", "serde_json"][..]),
        ("metrics", &["axum", "prometheus-client", "serde_json"]),
        ("git", &["flate2", "reqwest"]),
        ("files", &["object_store", "reqwest", "serde_json"]),
        ("cli", &["clap", "reqwest", "serde_json", "tikv-jemallocator", "toml", "tracing-subscriber"]),
        ("etcd", &["axum", "etcd-client", "serde_json"]),
    ] {
        let expected: BTreeSet<&str> = own.iter().copied().chain(web).collect();
        assert_eq!(dear(feature).into_iter().collect::<BTreeSet<_>>(), expected, "{feature}");
    }
}
