//! The settings of a provider of files, and what can be wrong with them.

use std::{fmt, io, path::PathBuf};

use crate::providers::{AllowList, OriginCredentials};

/// What a [`Files`](super::Files) provider is set up with. Start from [`FilesConfig::new`] and change what has to differ.
#[derive(Clone)]
pub struct FilesConfig {
    /// A directory, or a URL: `file:///directory`, `https://host/path`, `s3://bucket/path`. S3 takes its credentials and
    /// endpoint from the usual `AWS_*` variables. A plain HTTP server cannot list, so a key depth needs one that speaks
    /// WebDAV. Opening a URL installs ring as the process's rustls provider if it has none.
    pub source: String,
    /// The credentials for an HTTP source whose user and password do not stand in its URL. None by
    /// default.
    pub credentials: OriginCredentials,
    /// Whether hosts that an HTTP source redirects to may be this machine or in private networks. Not by default. The
    /// source itself may be anywhere.
    pub private_origins: bool,
    /// Where copies are kept. Made if needed; one process at a time may use it. It may lie inside a source directory,
    /// and is then not part of it.
    pub data: PathBuf,
    /// Further directories that are never served, such as the node's own, in case they lie inside the source. None by
    /// default. One that does not exist is an error.
    pub except: Vec<PathBuf>,
    /// Whether files and folders of a source directory whose names begin with a dot are part of it. Not by default: among
    /// them are `.git` and `.env`. Links to them under another name are.
    pub hidden: bool,
    /// How many components of a path are the key, at least 1. `None`, the default: all.
    pub key_depth: Option<usize>,
    /// Which keys may be fetched. All by default.
    pub allow: AllowList,
}

impl FilesConfig {
    /// The defaults, for this source and data directory.
    pub fn new(source: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            credentials: OriginCredentials::default(),
            private_origins: false,
            data: data.into(),
            except: Vec::new(),
            hidden: false,
            key_depth: None,
            allow: AllowList::everything(),
        }
    }
}

impl fmt::Debug for FilesConfig {
    /// Leaves out the source, which may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesConfig")
            .field("data", &self.data)
            .field("except", &self.except)
            .field("hidden", &self.hidden)
            .field("key_depth", &self.key_depth)
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}

/// Why a [`Files`](super::Files) provider cannot be set up. Nothing but the data directory was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The source cannot be used.
    #[error("the source {source_name} cannot be used: {reason}")]
    Source {
        /// Which one.
        source_name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key depth is zero.
    #[error("the key depth has to be at least 1")]
    KeyDepth,
    /// The data directory cannot be used.
    #[error("the data directory {path}: {error}")]
    Data {
        /// Which one.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}
