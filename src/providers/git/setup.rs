//! The parts of a provider of git repositories, and how they are set up.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::OnceCell;

use super::{
    backend::Backend,
    config::{GitConfig, GitError},
    describing::Describing,
    making::Making,
    process::Program,
    readers::Readers,
    store::Mirrors,
    template::Template,
};
use crate::providers::{AllowList, OriginCredentials, key_store::KeyStore};

/// The part of what is served at a time that is kept for other nodes.
const EXPORT_SHARE: usize = 4;

/// A provider of git repositories; see the module.
///
/// ```no_run
/// use datad_gossip::providers::{Git, GitConfig};
///
/// let mut config = GitConfig::new("https://github.com/{key}.git", "/var/lib/mirrors");
/// config.serving_max = 16;
/// let git = Git::open(config)?;
/// # Ok::<(), datad_gossip::providers::GitError>(())
/// ```
pub struct Git {
    pub(super) template: Template,
    pub(super) credentials: OriginCredentials,
    pub(super) private_origins: bool,
    pub(super) allow: AllowList,
    pub(super) mirrors: Mirrors,
    pub(super) backend: Backend,
    pub(super) exports: Backend,
    pub(super) describing: Describing,
    /// Repositories of nothing, by the format of their objects' names.
    pub(super) blanks: [OnceCell<PathBuf>; 2],
}

impl fmt::Debug for Git {
    /// Leaves out the template, which may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { credentials, private_origins, allow, .. } = self;
        f.debug_struct("Git")
            .field("credentials", credentials)
            .field("private_origins", private_origins)
            .field("allow", allow)
            .finish_non_exhaustive()
    }
}

impl Git {
    /// Checks the configuration, opens the data directory and sweeps out what a crash left in it. Blocks for as long as
    /// that takes.
    ///
    /// # Errors
    /// See [`GitError`].
    pub fn open(config: GitConfig) -> Result<Self, GitError> {
        let template = Template::parse(&config.template)?.with_private(config.private_origins);
        check_program(&config.program, template.is_http())?;
        let at = |error| GitError::Data { path: config.data.clone(), error };
        let shelf = Arc::new(KeyStore::open(&config.data).map_err(at)?);
        let program = Program::new(config.program, config.supervisor, shelf.root(), config.stall).map_err(at)?;
        let copies_max = config.serving_max.div_ceil(EXPORT_SHARE);
        let readers = Readers::default();
        let serving_max = config.serving_max.saturating_sub(copies_max);
        let backend = Backend::new(program.clone(), serving_max, readers.clone());
        let exports = Backend::new(program.clone(), copies_max, readers.clone());
        let unreachable_kept = config.unreachable_kept;
        let allow = if template.host_in_key() { config.allow.with_hosts() } else { config.allow };
        let credentials = config.credentials;
        let (private_origins, mirrors) =
            (config.private_origins, Mirrors { program, shelf, readers, unreachable_kept, making: Making::default() });
        let (describing, blanks) = Default::default();
        Ok(Self { template, credentials, private_origins, allow, mirrors, backend, exports, describing, blanks })
    }
}

/// Whether there is a git, with the parts that distributions put into packages of their own.
fn check_program(program: &Path, speaks_http: bool) -> Result<(), GitError> {
    let failed = |error| GitError::Program { program: program.to_owned(), error };
    let output = std::process::Command::new(program).arg("--exec-path").output().map_err(failed)?;
    if !output.status.success() {
        return Err(failed(io::Error::other(format!("it ended with {}", output.status))));
    }
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let parts = [("git-http-backend", true), ("git-remote-https", speaks_http)];
    match parts.into_iter().find(|(part, needed)| *needed && !folder.join(part).exists()) {
        Some((part, _)) => Err(GitError::Incomplete { part, folder }),
        None => Ok(()),
    }
}
