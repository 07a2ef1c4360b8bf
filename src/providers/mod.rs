//! The data sources that come in the box, each a [`Provider`](crate::provider::Provider):
//!
//! | provider | a key is | held as |
//! | --- | --- | --- |
//! | [`Git`] | a repository | a bare mirror, served by git's own `http-backend` |
//! | [`Files`] | an object, or all objects below a prefix | checksummed copies and a manifest |
//! | [`Memory`] | some bytes | in RAM; for tests, examples and simulation |
//!
//! Which keys may be fetched at all is the operator's choice, an [`AllowList`], and so is what origins are shown:
//! [`OriginCredentials`].
//!
//! What lies on disk is laid out by `key_store`: a key is named by its hash, so it never becomes a path, and `a` and `a/b`
//! can both be held.

#[cfg(any(feature = "files", feature = "git"))]
mod allow;
#[cfg(any(feature = "files", feature = "git"))]
mod client;
#[cfg(any(feature = "files", feature = "git"))]
mod credentials;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "git")]
pub mod git;
#[cfg(any(feature = "files", feature = "git"))]
mod key_store;
#[cfg(any(feature = "files", feature = "git"))]
mod later;
mod memory;
#[cfg(any(feature = "files", feature = "git"))]
mod reach;
#[cfg(test)]
mod testing;

use sha2::{Digest, Sha256};

use crate::provider::UpdateError;

#[cfg(any(feature = "files", feature = "git"))]
pub use allow::AllowList;
#[cfg(any(feature = "files", feature = "git"))]
pub use credentials::{CredentialsError, OriginCredentials};
#[cfg(feature = "files")]
pub use files::{Files, FilesConfig, FilesError};
#[cfg(feature = "git")]
pub use git::{Git, GitConfig, GitError};
pub use memory::{Memory, Origin};

/// What an answer of an origin says about whether it has the key.
///
/// # Errors
/// The origin says neither.
fn there_is<T>(answer: Result<T, UpdateError>) -> Result<Option<bool>, UpdateError> {
    match answer {
        Ok(_) => Ok(Some(true)),
        Err(UpdateError::NotFound) => Ok(Some(false)),
        Err(UpdateError::Forbidden(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A short name of `data` for [`Description::version`](crate::provider::Description): 48 bits of its SHA-256, enough to
/// tell the few versions apart that replicas of one key may have.
fn version_of(data: &[u8]) -> String {
    hex::encode(&Sha256::digest(data)[..6])
}
