//! The first exchange on a connection: who dials, and whether that node is let in.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::key::NodeName;

/// Who dials. The name has to be one that the dialler's certificate carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) revision: u16,
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) advertise: SocketAddr,
}

/// Who was dialled, or why the dialler is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HelloReply {
    Welcome(Hello),
    Refused(HelloRefusal),
}

/// Why a peer is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum HelloRefusal {
    /// The certificate does not carry the name.
    #[error("the certificate is not for the name {claimed}")]
    WrongName { claimed: NodeName },
    /// A live node has that name already.
    #[error("a live node at {at} is already called {name}")]
    NameInUse { name: NodeName, at: SocketAddr },
    /// An older start of a node that has started again since.
    #[error("a newer incarnation of {name} is known")]
    Stale { name: NodeName },
    /// Too many connections from that name.
    #[error("too many connections")]
    TooMany,
    /// As [`HelloRefusal::Stale`], with what is known, so that the dialler can begin anew after it.
    #[error("incarnation {incarnation} of {name} is known, which is newer")]
    Outdated { name: NodeName, incarnation: u64 },
}
