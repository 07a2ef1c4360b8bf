//! Why a provider does not do what the node asked, and what the node makes of that.

use super::body::BoxError;

/// The provider failed. A retry may help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProviderError(pub BoxError);

impl ProviderError {
    /// An error that says `reason`.
    pub fn new(reason: impl Into<BoxError>) -> Self {
        Self(reason.into())
    }
}

impl From<std::io::Error> for ProviderError {
    fn from(error: std::io::Error) -> Self {
        Self(error.into())
    }
}

/// Why a node cannot answer for a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The key is not on this machine. The node withdraws its claim.
    #[error("the key is not held here")]
    NotHeld,
    /// The data cannot be read. The node marks its claim as failed and repairs it later.
    #[error("the data source failed: {0}")]
    Failed(BoxError),
    /// This machine has no descriptors, processes, memory or turns to spare. The error says nothing
    /// about the key: the node that routes the request asks another holder, and the claim stands.
    /// Clients get 503.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// The resource that is lacking.
        reason: String,
        /// When to ask again.
        retry_after: std::time::Duration,
    },
}

impl ServeError {
    /// This machine lacks something for the moment.
    pub(crate) fn shortage(reason: impl ToString) -> Self {
        Self::Overloaded { reason: reason.to_string(), retry_after: std::time::Duration::from_secs(1) }
    }
}

impl From<std::io::Error> for ServeError {
    fn from(error: std::io::Error) -> Self {
        if is_shortage(&error) { Self::shortage(error) } else { Self::Failed(error.into()) }
    }
}

/// Whether this machine lacks open files, processes or memory. Such a lack passes, and says nothing
/// about the operation that failed.
pub(crate) fn is_shortage(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOBUFS];
    error.raw_os_error().is_some_and(|number| shortages.iter().any(|shortage| shortage.raw_os_error() == number))
}

/// Why an update did not happen. Whatever the variant, the previous state of the key still stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The origin says that it has no such key. All clients get 404, and the node remembers this
    /// for a while.
    #[error("the origin has no such key")]
    NotFound,
    /// The operator's rules do not let this key be fetched: 403. Asking again does not help.
    #[error("this key may not be fetched: {0}")]
    Forbidden(String),
    /// The origin has too much to do, or this caller has asked too often, and the origin says when
    /// to come back. Clients get 503 with that time. The node does not ask the origin for the key
    /// before, for at most an hour.
    #[error("{reason}; to be asked again after {after:?}")]
    Later {
        /// What the origin said.
        reason: String,
        /// When to ask it again.
        after: std::time::Duration,
    },
    /// The origin or peer could not be reached or broke off. Clients get 502; the node retries with
    /// back-off.
    #[error("{0}")]
    Unavailable(String),
    /// This machine has no free disk space for the key. Clients get 502; the node retries with
    /// back-off. It looks at its [capacity](super::Provider::capacity) at once, and if its disk is
    /// full, another node fetches the key.
    #[error("{0}")]
    NoRoom(String),
    /// Any other cause. Clients get 502; the node retries with back-off.
    #[error("{0}")]
    Failed(String),
}

impl From<std::io::Error> for UpdateError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::NoRoom(error.to_string()),
            _ if is_shortage(&error) => Self::Unavailable(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_lack_of_resources_is_no_damage_of_a_key() {
        for shortage in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN] {
            assert!(matches!(ServeError::from(Error::from(shortage)), ServeError::Overloaded { .. }), "{shortage}");
            assert!(matches!(UpdateError::from(Error::from(shortage)), UpdateError::Unavailable(_)), "{shortage}");
        }
        assert!(matches!(ServeError::from(Error::from(Errno::IO)), ServeError::Failed(_)));
        assert!(matches!(UpdateError::from(Error::from(Errno::IO)), UpdateError::Failed(_)));
        assert!(matches!(UpdateError::from(Error::from(Errno::NOSPC)), UpdateError::NoRoom(_)));
    }
}
