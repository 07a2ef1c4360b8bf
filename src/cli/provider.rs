//! Which data is spread: the PROVIDER options, and the one place that makes a provider of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::Args;
use datad_gossip::{
    provider::Provider,
    providers::{AllowList, Files, FilesConfig, Git, GitConfig, OriginCredentials},
};
use serde::{Deserialize, Serialize};

use super::{failure::Failure, limits, secret};

#[derive(Args, Clone, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Data (one of --git and --files)")]
pub(crate) struct ProviderOptions {
    /// Git repositories: where a key is fetched from, such as `https://{key}.git` (the key names the host) or
    /// `https://github.com/{key}.git`
    #[arg(long, env = "DATAD_GIT", value_name = "TEMPLATE", hide_env_values = true, conflicts_with = "files")]
    pub(crate) git: Option<String>,
    /// Files: a directory, or the URL of an object store or web server (`s3://bucket/path`, `https://host/path`)
    #[arg(long, env = "DATAD_FILES", value_name = "URL_OR_DIR", hide_env_values = true)]
    pub(crate) files: Option<String>,
    /// With --files: how many leading components of a path are its key, so that everything below travels together.
    /// Without it every file is a key of its own
    #[arg(long, env = "DATAD_KEY_DEPTH", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) key_depth: Option<u16>,
    /// With --files and a directory: also serve files and folders whose names begin with a dot, such as .git and .env
    #[arg(long, env = "DATAD_FILES_HIDDEN", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) files_hidden: Option<bool>,
    /// File with what origins want to see, readable by its owner alone: lines of `HOST USER PASSWORD`, or for git `HOST
    /// helper COMMAND` with a credential helper of git's, or a netrc file. The variable may hold the lines themselves
    #[arg(long, env = "DATAD_ORIGIN_CREDENTIALS", value_name = "F", hide_env_values = true)]
    pub(crate) origin_credentials: Option<String>,
    /// Let hosts that a key or a redirect names be this machine or in private networks. Those that are written here may
    /// be anywhere
    #[arg(long, env = "DATAD_PRIVATE_ORIGINS", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) private_origins: Option<bool>,
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

/// How origins are met.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// What they are shown.
    credentials: OriginCredentials,
    /// Whether those that strangers name may be in private networks.
    private: bool,
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

    /// How origins are met.
    pub(crate) fn upstream(&self) -> Result<Upstream, Failure> {
        Ok(Upstream { credentials: self.credentials()?, private: self.private_origins.unwrap_or_default() })
    }

    fn credentials(&self) -> Result<OriginCredentials, Failure> {
        let text = match (&self.origin_credentials, self.credentials_file()) {
            (_, Some(path)) => secret::read(path)?,
            (text, None) => text.clone().unwrap_or_default(),
        };
        Ok(OriginCredentials::parse(&text).map_err(anyhow::Error::from)?)
    }

    /// The file with the credentials, unless they are given by themselves.
    pub(crate) fn credentials_file(&self) -> Option<&Path> {
        self.origin_credentials.as_deref().filter(|text| !are_credentials(text)).map(Path::new)
    }

    /// Whether a password stands in these options themselves.
    pub(crate) fn hold_secret(&self) -> bool {
        [&self.git, &self.files].into_iter().flatten().any(|url| has_user(url))
            || self.origin_credentials.as_deref().is_some_and(are_credentials)
    }

    /// The options without the passwords that stand in them.
    pub(crate) fn without_secrets(&self) -> Self {
        let bare = |text: &Option<String>| text.as_deref().map(without_user);
        let origin_credentials = self.origin_credentials.clone().filter(|text| !are_credentials(text));
        Self { git: bare(&self.git), files: bare(&self.files), origin_credentials, ..self.clone() }
    }

    /// The options as another process of this program wants them: as variables, for they may hold a password, and
    /// arguments are for everyone to read.
    pub(crate) fn to_variables(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        let mut option = |name: &str, value: &str| variables.push((format!("DATAD_{name}"), value.to_owned()));
        if let Some(template) = &self.git {
            option("GIT", template);
        }
        if let Some(source) = &self.files {
            option("FILES", source);
        }
        if let Some(depth) = self.key_depth {
            option("KEY_DEPTH", &depth.to_string());
        }
        if let Some(hidden) = self.files_hidden {
            option("FILES_HIDDEN", &hidden.to_string());
        }
        if let Some(private) = self.private_origins {
            option("PRIVATE_ORIGINS", &private.to_string());
        }
        if let Some(credentials) = &self.origin_credentials {
            option("ORIGIN_CREDENTIALS", credentials);
        }
        if let Some(patterns) = &self.allow {
            option("ALLOW", &patterns.join(","));
        }
        variables
    }
}

/// Whether `text` is credentials, and not the name of a file with them.
pub(crate) fn are_credentials(text: &str) -> bool {
    text.trim().contains(char::is_whitespace) && !Path::new(text).exists()
}

/// Whether `text` is a URL with a user, and perhaps a password.
pub(crate) fn has_user(text: &str) -> bool {
    without_user(text) != text
}

/// `text` without what stands before an `@` in the host of a URL.
pub(crate) fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}://{}{path}", host.rsplit_once('@').map_or(host, |(_, host)| host))
}

/// Opens the provider, which keeps what it holds in a folder of its own below `data`. Nothing below `except` is ever
/// served. Blocks.
pub(crate) fn open(
    origin: Origin,
    allow: Vec<String>,
    upstream: Upstream,
    data: &Path,
    except: Vec<PathBuf>,
) -> anyhow::Result<Arc<dyn Provider>> {
    let allow = AllowList::new(allow);
    match origin {
        Origin::Git { template } => {
            let mut config = GitConfig::new(template, data.join("git"));
            (config.allow, config.credentials) = (allow, upstream.credentials);
            config.private_origins = upstream.private;
            config.serving_max = limits::shares().exchanges;
            // This program, also when its file has been replaced meanwhile.
            config.supervisor = Some("/proc/self/exe".into()).filter(|link: &PathBuf| link.exists());
            Ok(Arc::new(Git::open(config).context("cannot serve git repositories")?))
        }
        Origin::Files { source, key_depth, hidden } => {
            let mut config = FilesConfig::new(source, data.join("files"));
            (config.hidden, config.credentials) = (hidden, upstream.credentials);
            config.private_origins = upstream.private;
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
    fn every_option_survives_the_way_to_another_process() {
        let options = ProviderOptions {
            git: Some("g".into()),
            files: Some("-odd name".into()),
            key_depth: Some(3),
            files_hidden: Some(true),
            private_origins: Some(true),
            origin_credentials: Some("host user password".into()),
            allow: Some(vec!["a/*".into(), "b".into()]),
        };
        let variables = options.to_variables();
        let command = ProviderOptions::augment_args(clap::Command::new("x"));
        for argument in command.get_arguments() {
            let name = argument.get_env().unwrap().to_str().unwrap();
            assert!(variables.iter().any(|(variable, _)| variable == name), "{name} is left behind");
        }
        assert!(variables.contains(&("DATAD_ALLOW".into(), "a/*,b".into())));
    }

    #[test]
    fn a_password_is_recognised_wherever_it_stands_and_shown_nowhere() {
        let clean = ProviderOptions { git: Some("https://host/{key}@x".into()), ..ProviderOptions::default() };
        assert!(!clean.hold_secret());
        for options in [
            ProviderOptions { git: Some("https://me:canary@host/{key}".into()), ..ProviderOptions::default() },
            ProviderOptions { files: Some("https://canary@host/x".into()), ..ProviderOptions::default() },
            ProviderOptions { origin_credentials: Some("host me canary".into()), ..clean },
        ] {
            assert!(options.hold_secret());
            let shown = serde_json::to_string(&options.without_secrets()).unwrap();
            assert!(!shown.contains("canary") && (shown.contains("https://host")), "{shown}");
        }
    }
}
