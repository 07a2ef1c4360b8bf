//! The heads of requests for data and of their responses; the bodies follow them as raw bytes.

use serde::{Deserialize, Serialize};

use super::refusal::Rejection;
use crate::key::{Key, NodeName};

/// What for a request is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// A client's: goes to the provider's `serve`.
    Serve,
    /// Another node's, copying the key: goes to the provider's `export`.
    Export,
    /// A client's, to be passed on to this node, which the sender cannot reach. Once only.
    Relay { to: NodeName },
    /// A client's, to be answered from what an update has brought so far: goes to the provider's `serve_part`.
    Part,
}

/// The head of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestHead {
    pub(crate) key: Key,
    pub(crate) purpose: Purpose,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// The head of an HTTP response, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ResponseHead {
    Answer { status: u16, headers: Vec<(String, Vec<u8>)> },
    Refused(Rejection),
}
