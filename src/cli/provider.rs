//! Which data is spread: the PROVIDER options, and the one place that makes a provider of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::Args;
use datad_gossip::{
    provider::Provider,
    providers::{AllowList, Files, FilesConfig, Git, GitConfig},
};
use serde::{Deserialize, Serialize};

use super::{Failure, limits};

#[derive(Args, Clone, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Data (one of --git and --files)")]
pub(crate) struct ProviderOptions {
    /// Git repositories: where a key is fetched from, such as `https://{key}.git` (the key names the host) or
    /// `https://github.com/{key}.git`
    #[arg(long, env = "DATAD_GIT", value_name = "TEMPLATE", conflicts_with = "files")]
    pub(crate) git: Option<String>,
    /// Files: a directory, or the URL of an object store or web server (`s3://bucket/path`, `https://host/path`)
    #[arg(long, env = "DATAD_FILES", value_name = "URL_OR_DIR")]
    pub(crate) files: Option<String>,
    /// With --files: how many leading components of a path are its key, so that everything below travels together.
    /// Without it every file is a key of its own
    #[arg(long, env = "DATAD_KEY_DEPTH", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) key_depth: Option<u16>,
    /// With --files and a directory: also serve files and folders whose names begin with a dot, such as .git and .env
    #[arg(long, env = "DATAD_FILES_HIDDEN", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) files_hidden: Option<bool>,
    /// Which keys may be fetched, `*` standing for anything: `github.com/my-org/*`. All, if not given
    #[arg(long, env = "DATAD_ALLOW", value_name = "PATTERN", visible_alias = "git-allow")]
    #[arg(num_args = 1.., value_delimiter = ',')]
    #[serde(alias = "git_allow")]
    pub(crate) allow: Option<Vec<String>>,
}

/// Where the data comes from, after the options were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Git { template: String },
    Files { source: String, key_depth: Option<usize>, hidden: bool },
}

impl ProviderOptions {
    /// What the options ask for.
    pub(crate) fn origin(&self) -> Result<Origin, Failure> {
        match (&self.git, &self.files) {
            (Some(_), Some(_)) => Err(Failure::Usage("--git and --files cannot be used together".into())),
            (None, None) => Err(Failure::Usage(
                "say which data to spread: --git 'https://{key}.git', or --files with a directory or URL".into(),
            )),
            (Some(_), None) if self.files_hidden.is_some() => {
                Err(Failure::Usage("--files-hidden belongs to --files".into()))
            }
            (Some(_), None) if self.key_depth.is_some() => {
                Err(Failure::Usage("--key-depth belongs to --files; with --git a repository is a key".into()))
            }
            (Some(template), None) => Ok(Origin::Git { template: template.clone() }),
            (None, Some(source)) => Ok(Origin::Files {
                source: source.clone(),
                key_depth: self.key_depth.map(usize::from),
                hidden: self.files_hidden.unwrap_or_default(),
            }),
        }
    }

    /// The options without a user and password that stand in a URL.
    pub(crate) fn without_secrets(&self) -> Self {
        let bare = |text: &Option<String>| text.as_deref().map(without_user);
        Self { git: bare(&self.git), files: bare(&self.files), ..self.clone() }
    }

    /// The options as another process of this program wants them.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: &str| arguments.push(format!("--{name}={value}"));
        if let Some(template) = &self.git {
            option("git", template);
        }
        if let Some(source) = &self.files {
            option("files", source);
        }
        if let Some(depth) = self.key_depth {
            option("key-depth", &depth.to_string());
        }
        if let Some(hidden) = self.files_hidden {
            option("files-hidden", &hidden.to_string());
        }
        for pattern in self.allow.iter().flatten() {
            option("allow", pattern);
        }
        arguments
    }
}

/// `text` without what stands before an `@` in the host of a URL.
fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}://{}{path}", host.rsplit_once('@').map_or(host, |(_, host)| host))
}

/// Opens the provider, which keeps what it holds in a folder of its own below `data`. Nothing below `except` is ever
/// served. Blocks.
pub(crate) fn open(
    origin: Origin,
    allow: Vec<String>,
    data: &Path,
    except: Vec<PathBuf>,
) -> anyhow::Result<Arc<dyn Provider>> {
    let allow = AllowList::new(allow);
    match origin {
        Origin::Git { template } => {
            let mut config = GitConfig::new(template, data.join("git"));
            config.allow = allow;
            config.serving_max = limits::shares().exchanges;
            // This program, also when its file has been replaced meanwhile.
            config.supervisor = Some("/proc/self/exe".into()).filter(|link: &PathBuf| link.exists());
            Ok(Arc::new(Git::open(config).context("cannot serve git repositories")?))
        }
        Origin::Files { source, key_depth, hidden } => {
            let mut config = FilesConfig::new(source, data.join("files"));
            config.hidden = hidden;
            (config.allow, config.key_depth, config.except) = (allow, key_depth, except);
            Ok(Arc::new(Files::open(config).context("cannot serve files")?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_kind_of_data_is_wanted() {
        let git = ProviderOptions { git: Some("https://{key}.git".into()), ..ProviderOptions::default() };
        let files = ProviderOptions { files: Some(".".into()), key_depth: Some(2), ..ProviderOptions::default() };
        assert_eq!(git.origin().unwrap(), Origin::Git { template: "https://{key}.git".into() });
        assert_eq!(files.origin().unwrap(), Origin::Files { source: ".".into(), key_depth: Some(2), hidden: false });
        for wrong in [
            ProviderOptions::default(),
            ProviderOptions { files: files.files, ..git.clone() },
            ProviderOptions { key_depth: Some(1), ..git },
        ] {
            assert!(matches!(wrong.origin(), Err(Failure::Usage(_))));
        }
    }

    #[test]
    fn options_survive_the_way_to_another_process() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            provider: ProviderOptions,
        }
        let options = ProviderOptions {
            files: Some("-odd name".into()),
            key_depth: Some(3),
            allow: Some(vec!["a/*".into(), "b".into()]),
            git: None,
            files_hidden: Some(true),
        };
        let line = std::iter::once("x".to_owned()).chain(options.to_arguments());
        let parsed = <Line as clap::Parser>::try_parse_from(line).unwrap().provider;
        assert_eq!((parsed.files, parsed.key_depth, parsed.allow), (options.files, options.key_depth, options.allow));
        assert_eq!(parsed.files_hidden, Some(true));
    }
}
