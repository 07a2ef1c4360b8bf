//! Why a node did not start.

use std::net::SocketAddr;

use super::advertise::AdvertiseError;
use crate::{config::ConfigError, net::identity::IdentityError};

/// Why a node did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No credentials were given.
    #[error("a node needs a cluster key or a certificate")]
    NoCredentials,
    /// The credentials are not valid.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The UDP address cannot be used.
    #[error("cannot listen on {listen}/udp: {error}")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// Where other nodes reach this one is not known. Set `advertise`.
    #[error(transparent)]
    Advertise(#[from] AdvertiseError),
    /// The node's own records cannot be read or written.
    #[error("cannot use the data folder: {0}")]
    Disk(std::io::Error),
    /// A live node has this name. Choose another, or stop that one.
    #[error("{0}")]
    NameInUse(String),
    /// The members serve another kind of data. Give the node the same, or another cluster key.
    #[error("{0}")]
    ServesOther(String),
    /// Etcd cannot be used.
    #[cfg(feature = "etcd")]
    #[error(transparent)]
    Etcd(#[from] crate::etcd::EtcdError),
    /// An actor did not start.
    #[error("an actor did not start: {0}")]
    Actor(String),
}
