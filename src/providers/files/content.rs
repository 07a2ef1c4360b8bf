//! What a source gives and says of an object.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::provider::UpdateError;

/// What the source says of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// In bytes; `None` if the source does not know before it has given all.
    pub(crate) size: Option<u64>,
    /// Seconds since the Unix epoch; 0 if the source does not say.
    pub(crate) modified: u64,
    /// Changes with the content; empty if the source says nothing of the kind.
    pub(crate) validator: String,
}

/// The content of an object, and what it is said to be.
pub(crate) struct Content {
    pub(crate) upstream: Upstream,
    pub(crate) representation: Representation,
    pub(crate) bytes: BoxStream<'static, Result<Bytes, UpdateError>>,
}

/// What a source says of how an object is represented.
#[derive(Debug, Default)]
pub(crate) struct Representation {
    pub(crate) content_type: Option<String>,
    /// Whether the content type was said of this object, and is not what a store says of all.
    pub(crate) is_exact: bool,
    /// Further fields of HTTP, by their names in lower case: how it is encoded, for how long it may be cached.
    pub(crate) fields: BTreeMap<String, String>,
}

/// Seconds since the Unix epoch.
pub(crate) fn seconds_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
