//! The settings of a node: a file, overruled by variables, overruled by flags. All three use the same names.
//!
//! ```text
//!   flags, variables --clap--> table --laid over the file's table--> one table
//!   one table --by the names of NodeConfig's fields--> NodeConfig        the rest --> OwnOptions
//! ```
//!
//! Both parts are read by serde as a whole, so no setting can be forgotten on the way.
//!
//! | file | concern |
//! | --- | --- |
//! | `node` | the flags of what the library can be set to |
//! | `own` | what only this program has |

mod node;
mod own;

use std::{fs, path::PathBuf, time::Duration};

use clap::{Args, Command};
use datad_gossip::config::{NodeConfig, RefreshPolicy};
use serde::Serialize;

use self::node::NodeOptions;
pub(crate) use self::own::OwnOptions;
use super::{failure::Failure, secret};

/// Both protocols' port, if none is chosen.
pub(crate) const PORT: u16 = 8400;

/// Settings that exclude or complete one another: one of them, said on the command line, overrules all of them in the
/// file.
const TOGETHER: [&[&str]; 2] = [
    &["git", "files", "key_depth", "files_hidden"],
    &["cluster_key", "cluster_key_file", "tls_cert", "tls_key", "tls_ca"],
];

/// Names that a file may use as well, and what they stand for.
const OTHER_NAMES: [(&str, &str); 3] = [("seed", "seeds"), ("host_name", "host_names"), ("git_allow", "allow")];

/// Where settings come from.
#[derive(Args)]
pub(crate) struct Sources {
    /// TOML file with settings, named as the options are; variables and flags overrule it
    #[arg(long, env = "DATAD_CONFIG", value_name = "F.toml")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    said: Said,
}

/// What flags and variables say.
#[derive(Args, Default, Serialize)]
struct Said {
    #[command(flatten)]
    #[serde(flatten)]
    own: OwnOptions,
    #[command(flatten)]
    #[serde(flatten)]
    node: NodeOptions,
}

/// All settings, from wherever they come.
pub(crate) struct Settings {
    pub(crate) node: NodeConfig,
    pub(crate) own: OwnOptions,
}

impl Sources {
    /// Reads the file, if there is one, and lays flags and variables over it.
    ///
    /// # Errors
    /// Wrong usage: the file cannot be read, or a setting is unknown or out of range.
    pub(crate) fn read(&self) -> Result<Settings, Failure> {
        let text = self.config.as_ref().map(fs::read_to_string).transpose();
        let read = text.map_err(Into::into).and_then(|text| self.over(text.as_deref().unwrap_or_default()));
        let settings = read.map_err(|error| {
            let file = self.config.as_ref().map_or_else(String::new, |path| format!("{}: ", path.display()));
            Failure::Usage(format!("{file}{}", format!("{error:#}").trim_end()))
        })?;
        settings.node.check().map_err(|error| Failure::Usage(error.to_string()))?;
        settings.own.check()?;
        Ok(settings)
    }

    fn over(&self, text: &str) -> anyhow::Result<Settings> {
        let alone = Settings::from_table(Said::default().over_file(text)?)?;
        if let Some(path) = self.config.as_ref().filter(|_| alone.own.hold_secret()) {
            secret::check(path)?;
        }
        Settings::from_table(self.said.over_file(text)?)
    }
}

impl Said {
    /// What was said, laid over the file that reads `text`.
    fn over_file(&self, text: &str) -> anyhow::Result<toml::Table> {
        let table: toml::Table = text.parse()?;
        let known = names();
        let mut merged = toml::Table::new();
        for (name, value) in table {
            let name = name.replace('-', "_");
            let name = OTHER_NAMES.iter().find(|(other, _)| *other == name).map_or(name, |(_, own)| (*own).to_owned());
            let all = || known.join(", ");
            anyhow::ensure!(known.contains(&name), "there is no setting `{name}`; these are: {}", all());
            anyhow::ensure!(merged.insert(name.clone(), value).is_none(), "`{name}` is set twice");
        }
        let said = toml::Table::try_from(self)?;
        for together in TOGETHER {
            if together.iter().any(|name| said.contains_key(*name)) {
                merged.retain(|name, _| !together.contains(&name));
            }
        }
        merged.extend(said);
        Ok(merged)
    }
}

impl Settings {
    fn from_table(table: toml::Table) -> anyhow::Result<Self> {
        let of_node = node_names();
        let (mut node, own): (toml::Table, toml::Table) =
            table.into_iter().partition(|(name, _)| of_node.contains(name));
        node.entry("listen").or_insert_with(|| format!("0.0.0.0:{PORT}").into());
        let mut settings = Self { node: node.try_into()?, own: own.try_into()? };
        if settings.own.provider.git.is_some() && settings.node.refresh.is_empty() {
            settings.node.refresh.insert(String::new(), refresh_of_mirrors());
        }
        Ok(settings)
    }

    /// All of them as a file that sets them, without what is secret.
    pub(crate) fn to_text(&self) -> anyhow::Result<String> {
        let mut table = toml::Table::try_from(&self.node)?;
        table.extend(toml::Table::try_from(self.own.without_secrets())?);
        Ok(toml::to_string(&table)?)
    }
}

/// How often an origin of git repositories is asked for news, if nothing is said: users of a mirror expect what was pushed
/// to be there in minutes. It is one question a repository, and fewer for those that do not change.
fn refresh_of_mirrors() -> RefreshPolicy {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let mut policy = RefreshPolicy::every(minutes(5));
    (policy.min, policy.max) = (Some(minutes(1)), Some(minutes(60)));
    policy
}

/// The fields of [`NodeConfig`].
fn node_names() -> Vec<String> {
    let fields = serde_json::to_value(NodeConfig::default()).expect("settings are plain data");
    fields.as_object().expect("a struct has fields").keys().cloned().collect()
}

/// All names that a file may use.
fn names() -> Vec<String> {
    let options = Said::augment_args(Command::new("names"));
    options.get_arguments().map(|option| option.get_id().as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use datad_gossip::Credentials;

    use super::*;
    use crate::cli::provider::Origin;

    fn said(arguments: &[&str]) -> Said {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            said: Said,
        }
        <Line as clap::Parser>::try_parse_from(std::iter::once(&"x").chain(arguments)).unwrap().said
    }

    fn merged(arguments: &[&str], file: &str) -> Settings {
        Settings::from_table(said(arguments).over_file(file).unwrap()).unwrap()
    }

    fn read(arguments: &[&str], file: &str) -> Result<Settings, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("file.toml");
        fs::write(&config, file).unwrap();
        Sources { config: Some(config), said: said(arguments) }.read()
    }

    #[test]
    fn every_field_of_a_nodes_config_is_an_option() {
        let lacking: Vec<_> = node_names().into_iter().filter(|name| !names().contains(name)).collect();
        assert!(lacking.is_empty(), "no flag sets {lacking:?}");
    }

    #[test]
    fn flags_overrule_the_file_one_by_one() {
        let file = "name = \"a\"\nreplicas = 3\nrepair-delay = \"2s\"\nseeds = [\"x:1\"]\nfiles = \"/srv\"\n";
        let Settings { node, own } = merged(&["--replicas", "1", "--weight", "50"], file);
        assert_eq!((node.replicas, node.weight, node.repair_delay), (1, 50, Duration::from_secs(2)));
        assert_eq!(node.seeds, ["x:1"]);
        assert_eq!(own.node_name().unwrap().as_str(), "a");
        assert_eq!(own.origin().unwrap(), Origin::Files { source: "/srv".into(), key_depth: None, hidden: false });
    }

    #[test]
    fn freshness_and_limits_read_the_same_in_a_file_and_on_the_command_line() {
        let file = r#"
            [refresh]
            "" = { interval = "1h", min = "5m", max = "1day" }
            "github.com/" = { interval = "10m" }
            [upstreams]
            "github.com/" = { concurrency = 4, per_second = 0.5 }
            "gitlab.com/" = { per_second = 2.0 }
        "#;
        let arguments = [
            "--refresh",
            "1h:5m..1d,github.com/=10m",
            "--upstreams",
            "github.com/=4@0.5",
            "--upstreams",
            "gitlab.com/=@2",
        ];
        let said = merged(&arguments, "").node;
        assert_eq!(said, merged(&[], file).node);
        assert_eq!((said.refresh.len(), said.upstreams.len()), (2, 2));
        assert_eq!(said, merged(&arguments, "refresh = { x = { interval = \"1s\" } }").node);
        assert!(matches!(read(&["--refresh", "1h:2h..3h"], ""), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_choice_of_data_or_membership_overrules_all_of_it_in_the_file() {
        let file =
            "files = \"/srv\"\nkey_depth = 2\ntls_cert = \"c\"\ntls_key = \"k\"\ntls_ca = \"a\"\nseed = [\"x:1\"]";
        let key = "0".repeat(64);
        let settings = merged(&["--git", "https://{key}.git", "--cluster-key", &key, "--seed", "y:2,z:3"], file);
        assert_eq!(settings.own.origin().unwrap(), Origin::Git { template: "https://{key}.git".into() });
        assert!(matches!(settings.own.credentials().unwrap(), Credentials::ClusterKey(_)));
        assert_eq!(settings.node.seeds, ["y:2", "z:3"]);
    }

    #[test]
    fn what_is_printed_sets_the_same_again_and_holds_no_secret() {
        let key = "0123456789abcdef".repeat(4);
        let settings = merged(&["--repairs", "2", "--refresh", "a/=1h", "--requests-max", "7"], "");
        let own = OwnOptions { cluster_key: Some(key.clone()), ..settings.own.clone() };
        let text = Settings { own, ..settings }.to_text().unwrap();
        assert!(!text.contains(&key), "{text}");
        let again = merged(&[], &text);
        assert_eq!((again.node.repairs, again.node.refresh.len(), again.own.requests_max), (2, 1, Some(7)));
    }

    #[test]
    fn a_file_may_hold_nothing_else() {
        let error = said(&[]).over_file("replica = 3").err().unwrap().to_string();
        assert!(error.contains("`replica`") && error.contains("replicas"), "{error}");
        for wrong in ["replicas = \"many\"", "replicas", "seed = [\"a:1\"]\nseeds = [\"a:1\"]"] {
            assert!(matches!(read(&[], wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn what_is_out_of_its_range_is_refused_with_the_range_wherever_it_is_said() {
        for (name, value, range) in [
            ("replicas", "0", "1 to 8"),
            ("repairs", "2000", "1 to 1,024"),
            ("mass_failure_share", "1.5", "0.0 to 1.0"),
            ("requests_max", "0", "1 to 1000000"),
        ] {
            let flag = format!("--{}={value}", name.replace('_', "-"));
            for settings in [read(&[&flag], ""), read(&[], &format!("{name} = {value}"))] {
                let Err(Failure::Usage(complaint)) = settings else { panic!("{name} = {value} was taken") };
                assert!(
                    complaint.contains(&format!("`{name}` is {value}")) && complaint.contains(range),
                    "{complaint}"
                );
            }
        }
        let Err(Failure::Usage(complaint)) = read(&[], "key_depth = 0") else { panic!("a depth of 0 was taken") };
        assert!(complaint.contains("`key_depth` is 0"), "{complaint}");
    }

    #[test]
    fn mirrors_of_git_are_refreshed_unless_something_else_is_said() {
        let of_all = |arguments: &[&str]| merged(arguments, "").node.refresh.get("").map(|policy| policy.interval);
        let git = ["--git", "https://{key}.git"];
        assert_eq!(of_all(&git), Some(Duration::from_secs(300)));
        assert_eq!(of_all(&[&git[..], &["--refresh", "0s"]].concat()), Some(Duration::ZERO));
        assert_eq!(of_all(&[&git[..], &["--refresh", "a/=1h"]].concat()), None);
        assert_eq!(of_all(&["--files", "/f"]), None);
    }
}
