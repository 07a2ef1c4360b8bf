//! The parts of a provider of files, and how they are set up.

use std::{fmt, sync::Arc};

use super::{
    cache::Cache,
    config::{FilesConfig, FilesError},
    incoming::Incoming,
    source::Source,
};
use crate::{
    key::Key,
    provider::UpdateError,
    providers::{AllowList, key_store::KeyStore},
};

/// A provider of files; see the module.
///
/// ```
/// use datad_gossip::{
///     provider::Provider,
///     providers::{Files, FilesConfig},
/// };
///
/// let folder = tempfile::tempdir()?;
/// let mut config = FilesConfig::new("https://mirror.example/pub", folder.path());
/// config.key_depth = Some(2);
/// let files = Files::open(config)?;
/// assert_eq!(files.key_of("/debian/dists/stable/Release")?.as_str(), "debian/dists");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Files {
    pub(super) source: Arc<Source>,
    pub(super) key_depth: Option<usize>,
    pub(super) allow: AllowList,
    pub(super) cache: Arc<Cache>,
    pub(super) incoming: Incoming,
}

impl fmt::Debug for Files {
    /// Leaves out the source, which may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key_depth, allow, .. } = self;
        f.debug_struct("Files").field("key_depth", key_depth).field("allow", allow).finish_non_exhaustive()
    }
}

impl Files {
    /// Checks the configuration, opens the data directory and sweeps out what a crash left in it. Blocks for as long as
    /// that takes.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn open(config: FilesConfig) -> Result<Self, FilesError> {
        if config.key_depth == Some(0) {
            return Err(FilesError::KeyDepth);
        }
        let at = |error| FilesError::Data { path: config.data.clone(), error };
        let shelf = KeyStore::open(&config.data).map_err(at)?;
        let mut except = vec![shelf.root().to_owned()];
        for path in config.except {
            except.push(path.canonicalize().map_err(|error| FilesError::Data { path, error })?);
        }
        let source = Source::open(&config.source, &config.credentials, config.private_origins, &except, config.hidden)?;
        Ok(Self {
            source: Arc::new(source),
            key_depth: config.key_depth,
            allow: config.allow,
            cache: Arc::new(Cache::new(shelf)),
            incoming: Incoming::default(),
        })
    }

    /// Whether `key` may be fetched.
    pub(super) fn check(&self, key: &Key) -> Result<(), UpdateError> {
        self.allow.check(key)?;
        if self.key_depth.is_some_and(|depth| key.components().count() > depth) {
            return Err(UpdateError::Forbidden("a key has no more components than the key depth".to_owned()));
        }
        Ok(())
    }

    /// Whether `key` stands for everything below it.
    pub(super) fn is_prefix(&self, key: &Key) -> bool {
        self.key_depth.is_some_and(|depth| key.components().count() >= depth)
    }
}
