//! What others ask of the router: nothing yet. Requests read what it publishes.

/// There are no requests: nobody can build one.
pub(crate) enum Request {}
