//! Every setting of a node, from every place where it can be set, as the program itself understands it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use datad_gossip::config::NodeConfig;
use toml::Value;

use super::{program, run, text};

/// Each field of [`NodeConfig`]: what is said on the command line, and what a file says. None is the default.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("listen", "127.0.0.1:1234", "'127.0.0.1:1234'"),
    ("advertise", "192.0.2.1:1234", "'192.0.2.1:1234'"),
    ("seeds", "a.example:1,b.example:2", "['a.example:1', 'b.example:2']"),
    ("expect_members", "3", "3"),
    ("replicas", "3", "3"),
    ("prefix_replicas", "a/=4,b/=1", "{ 'a/' = 4, 'b/' = 1 }"),
    ("weight", "50", "50"),
    ("updaters", "5", "5"),
    ("repairs", "2", "2"),
    ("repair_bytes_per_second", "1000000", "1000000"),
    ("update_queue", "77", "77"),
    ("update_timeout", "7m", "'7m'"),
    ("request_patience", "8s", "'8s'"),
    ("stalled_fetch_patience", "14s", "'14s'"),
    ("not_found_ttl", "9s", "'9s'"),
    ("repair_delay", "11s", "'11s'"),
    ("dead_kept", "3days", "'3days'"),
    ("mass_failure_share", "0.25", "0.25"),
    ("mass_failure_pause", "3m", "'3m'"),
    ("refresh", "a/=1h:5m..1day", "{ 'a/' = { interval = '1h', min = '5m', max = '1day' } }"),
    ("upstreams", "a/=4@0.5", "{ 'a/' = { concurrency = 4, per_second = 0.5 } }"),
    ("balance_interval", "6m", "'6m'"),
    ("trim_delay", "13s", "'13s'"),
    ("drain_timeout", "14s", "'14s'"),
    ("disk_high", "0.75", "0.75"),
    ("disk_low", "0.5", "0.5"),
    ("last_copies", "keep", "'keep'"),
    ("hot_rate", "99", "99"),
    ("hot_replicas", "1", "1"),
    ("hot_hold", "15s", "'15s'"),
    ("attempts", "4", "4"),
    ("profile", "wan", "'wan'"),
];

/// What a node needs besides.
struct Folder {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl Folder {
    fn new(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, key) = (dir.path().join("node.toml"), dir.path().join("cluster.key"));
        assert!(run(&["keygen", "--out", key.to_str().unwrap()]).status.success());
        fs::write(&file, format!("name = 'n1'\ndata = '/d'\nfiles = '/f'\ncluster_key_file = {key:?}\n{settings}\n"))
            .unwrap();
        Self { dir, file }
    }

    fn file(&self) -> &str {
        self.file.to_str().unwrap()
    }
}

fn defaults() -> serde_json::Map<String, serde_json::Value> {
    let defaults = serde_json::to_value(NodeConfig::default()).unwrap();
    defaults.as_object().unwrap().clone()
}

/// What the program makes of these settings.
fn effective(folder: &Folder, flags: &[String], variables: &[(String, String)]) -> NodeConfig {
    let mut check = program(&["check", "--config", folder.file()]);
    check.args(flags).envs(variables.iter().cloned());
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut printed: toml::Table = text(&output.stdout).parse().unwrap();
    printed.retain(|name, _| defaults().contains_key(name));
    printed.try_into().unwrap()
}

/// Fails for a field that is not among [`SETTINGS`], or is the default there.
fn expected() -> NodeConfig {
    let wanted: BTreeMap<&str, Value> = SETTINGS
        .iter()
        .map(|(name, _, value)| (*name, format!("x = {value}").parse::<toml::Table>().unwrap().remove("x").unwrap()))
        .collect();
    let wanted = Value::try_from(wanted).unwrap().try_into::<NodeConfig>().unwrap();
    let values = serde_json::to_value(&wanted).unwrap();
    for (name, default) in defaults() {
        assert_ne!(values[&name], default, "this test does not set `{name}`: add a value that is not the default");
    }
    wanted
}

fn option(name: &str) -> String {
    if name == "seeds" { "seed".to_owned() } else { name.replace('_', "-") }
}

#[test]
fn every_setting_of_a_node_comes_through_from_flags() {
    let flags: Vec<String> = SETTINGS.iter().map(|(name, said, _)| format!("--{}={said}", option(name))).collect();
    assert_eq!(effective(&Folder::new(""), &flags, &[]), expected());
}

#[test]
fn every_setting_of_a_node_comes_through_from_variables() {
    let variable = |name: &str| format!("DATAD_{}", option(name).to_uppercase().replace('-', "_"));
    let variables: Vec<_> = SETTINGS.iter().map(|(name, said, _)| (variable(name), (*said).to_owned())).collect();
    assert_eq!(effective(&Folder::new(""), &[], &variables), expected());
}

#[test]
fn every_setting_of_a_node_comes_through_from_a_file() {
    let lines: Vec<String> = SETTINGS.iter().map(|(name, _, value)| format!("{name} = {value}")).collect();
    assert_eq!(effective(&Folder::new(&lines.join("\n")), &[], &[]), expected());
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same_without_the_password_of_an_origin() {
    let folder = Folder::new("listen = '127.0.0.1:1'\nreplicas = 3\nrefresh = { 'a/' = { interval = '1h' } }");
    let mut check = program(&["check", "--config", folder.file()]);
    let first = check.env("DATAD_FILES", "https://me:canary@host.example/x").output().unwrap().stdout;
    assert!(text(&first).contains("https://host.example/x") && !text(&first).contains("canary"), "{}", text(&first));
    let again = folder.dir.path().join("again.toml");
    fs::write(&again, &first).unwrap();
    assert_eq!(text(&run(&["check", "--config", again.to_str().unwrap()]).stdout), text(&first));
}

#[test]
fn settings_that_cannot_be_are_named_before_anything_is_started() {
    for (setting, complaint) in [
        ("mass_failure_share = 1.5", "`mass_failure_share` is 1.5, but has to be 0.0 to 1.0"),
        ("repairs = 0", "`repairs` is 0, but has to be 1 to 1,024"),
        ("requests_max = 0", "`requests_max` is 0, but has to be 1 to 1000000"),
        ("key_depth = 0", "`key_depth` is 0"),
        ("repairs = 'three'", "repairs"),
        ("repair = 3", "there is no setting `repair`"),
        ("listen = '0.0.0.0:1'", "--advertise"),
        ("advertise = '0.0.0.0:1'", "--advertise"),
    ] {
        for command in ["check", "serve"] {
            let output = run(&[command, "--config", Folder::new(setting).file()]);
            assert_eq!(output.status.code(), Some(2), "{command} {setting}: {}", text(&output.stderr));
            assert!(text(&output.stderr).contains(complaint), "{command} {setting}: {}", text(&output.stderr));
        }
    }
    for (log, complaint) in
        [("inof", "`inof` is not a level"), ("info,debg", "`debg` is not a level"), ("a=loud", "a=loud")]
    {
        let output = run(&["--log", log, "check", "--config", Folder::new("").file()]);
        assert_eq!(output.status.code(), Some(2), "{log}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(complaint), "{log}: {}", text(&output.stderr));
    }
    let output = run(&["check", "--config", "/nowhere/at/all.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nowhere/at/all.toml"), "{}", text(&output.stderr));
}

#[test]
fn a_secret_on_the_command_line_is_refused_with_what_to_do_and_not_repeated() {
    for (arguments, instead) in [
        (&["serve", "--cluster-key", "canary"][..], "--cluster-key-file"),
        (&["check", "--git", "https://me:canary@host.example/{key}"], "--origin-credentials F"),
        (&["dev", "--files=http://canary@host.example/"], "DATAD_ORIGIN_CREDENTIALS"),
        (&["dev", "--origin-credentials", "host.example me canary"], "name a file"),
        (&["status", "--at", "http://me:canary@host.example"], "--admin-token-file"),
        #[cfg(feature = "etcd")]
        (&["serve", "--etcd", "http://a:1,http://me:canary@host.example"], "--etcd-password-file"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        let complaint = text(&output.stderr);
        assert!(complaint.contains(instead) && !complaint.contains("canary"), "{arguments:?}: {complaint}");
    }
}

#[test]
fn a_file_with_a_password_is_read_only_if_it_is_for_its_owner_alone() {
    for setting in [
        "git = 'https://me:canary@host.example/{key}'",
        "origin_credentials = 'host.example me canary'",
        "cluster_key = '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.toml");
        let files = if setting.starts_with("git") { "" } else { "files = '/f'\n" };
        fs::write(&file, format!("name = 'n1'\nlisten = '127.0.0.1:1'\ndata = '/d'\n{files}{setting}\n")).unwrap();
        let check = |mode| {
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            let mut check = program(&["check", "--config", file.to_str().unwrap()]);
            if !setting.starts_with("cluster_key") {
                check.env("DATAD_CLUSTER_KEY", "0".repeat(64));
            }
            check.output().unwrap()
        };
        let refused = check(0o644);
        assert_eq!(refused.status.code(), Some(2), "{setting}");
        let complaint = text(&refused.stderr);
        assert!(complaint.contains("chmod 600") && !complaint.contains("canary"), "{complaint}");
        let accepted = check(0o600);
        assert_eq!(accepted.status.code(), Some(0), "{setting}: {}", text(&accepted.stderr));
        assert!(!text(&accepted.stdout).contains("canary"), "{}", text(&accepted.stdout));
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    let folder = Folder::new("seeds = ['a.example:1']\nreplicas = 3");
    let empty = ["DATAD_SEED", "DATAD_REPLICAS", "DATAD_HTTP", "DATAD_ALLOW", "DATAD_LOG", "DATAD_ADVERTISE"];
    let empty: Vec<_> = empty.iter().map(|name| ((*name).to_owned(), String::new())).collect();
    let config = effective(&folder, &[], &empty);
    assert_eq!((config.seeds, config.replicas), (vec!["a.example:1".to_owned()], 3));
}
