//! What others ask of the router: nothing yet. Requests read what it publishes.

/// The router has no requests yet, so no caller can build one.
pub(crate) enum Request {}
