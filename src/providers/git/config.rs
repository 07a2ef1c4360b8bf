//! The settings of a provider of git repositories, and what can be wrong with them.

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::providers::{AllowList, OriginCredentials};

/// What a [`Git`](super::Git) provider is set up with. Start from [`GitConfig::new`] and change what has to differ.
#[derive(Clone)]
pub struct GitConfig {
    /// Where a key is fetched from: an `http`, `https` or `file` URL that contains `{key}` once, either as its host and
    /// path (`https://{key}.git`) or in its path (`https://github.com/{key}.git`). A user and password in it are sent
    /// to that host only, and kept out of arguments and files.
    pub template: String,
    /// The credentials for origins whose user and password do not stand in the template. None by
    /// default.
    pub credentials: OriginCredentials,
    /// Where mirrors are kept. Made if needed; one process at a time may use it.
    pub data: PathBuf,
    /// Which keys may be fetched. All by default. With a template that starts with `{key}`, any
    /// client that can reach the node chooses the host, so restrict it wherever clients are not
    /// trusted; patterns may write the host in any case.
    pub allow: AllowList,
    /// Whether hosts that a key names may be this machine or in private networks. Not by default: services there trust
    /// all who reach them. A host in the template may be anywhere. Needs git 2.37 to hold against names that resolve
    /// to something else from one moment to the next.
    pub private_origins: bool,
    /// The git program. `git` by default, looked up in `PATH`; 2.31 or later.
    pub program: PathBuf,
    /// The program `datad-gossip`, called as `PROGRAM child LIFELINE -- git ...`: it ends git, and all that git has
    /// started, when this process is gone. `None`, the default: git is started directly, and survives a process that is
    /// killed for as long as it has something to do, also in mirrors that are swept at the next start.
    pub supervisor: Option<PathBuf>,
    /// How many requests are served at a time, at least 2; further ones wait a while. A quarter of these is for other nodes that
    /// copy a mirror. 64 by default: each is a git process that may use a core and, for large repositories, some hundred
    /// megabytes.
    pub serving_max: usize,
    /// How long objects are kept after no reference leads to them any more, as force pushes leave them; whole seconds. Two weeks
    /// by default. It begins when a refresh looks for them, about a fourteenth of this time after they became unreachable.
    pub unreachable_kept: Duration,
    /// How long a transfer may stand still before it is given up; whole seconds. 5 minutes by
    /// default: a large origin thinks for a while before it sends anything.
    pub stall: Duration,
}

impl GitConfig {
    /// The defaults, for this template and data directory.
    pub fn new(template: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            template: template.into(),
            credentials: OriginCredentials::default(),
            data: data.into(),
            allow: AllowList::everything(),
            private_origins: false,
            program: "git".into(),
            supervisor: None,
            serving_max: 64,
            unreachable_kept: Duration::from_secs(14 * 24 * 60 * 60),
            stall: Duration::from_secs(300),
        }
    }
}

impl fmt::Debug for GitConfig {
    /// Leaves out the template, which may carry a password, and says only the hosts that there are credentials for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitConfig")
            .field("credentials", &self.credentials)
            .field("data", &self.data)
            .field("allow", &self.allow)
            .field("private_origins", &self.private_origins)
            .field("program", &self.program)
            .field("supervisor", &self.supervisor)
            .field("serving_max", &self.serving_max)
            .field("unreachable_kept", &self.unreachable_kept)
            .field("stall", &self.stall)
            .finish_non_exhaustive()
    }
}

/// Why a [`Git`](super::Git) provider cannot be set up. Nothing but the data directory was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// The template breaks a rule; write another one.
    #[error("the git template cannot be used: {0}")]
    Template(String),
    /// The data directory cannot be used.
    #[error("the data directory {path}: {error}")]
    Data {
        /// Which one.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// git lacks a part without which repositories cannot be served or fetched. Install it.
    #[error(
        "git has no {part} in {folder}: install the package `git` (Debian, Ubuntu), `git-core` (Fedora, RHEL) or `git-daemon` \
         (Alpine), which has it"
    )]
    Incomplete {
        /// The program that is missing.
        part: &'static str,
        /// Where git looks for its parts.
        folder: PathBuf,
    },
    /// The git program cannot be run.
    #[error("{program} cannot be run: {error}")]
    Program {
        /// Which one.
        program: PathBuf,
        /// What happened.
        error: io::Error,
    },
}
