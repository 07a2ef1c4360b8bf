//! What requests of clients and peers make happen, whichever actor they need for it.

pub(crate) mod drain;
pub(crate) mod pull;
pub(crate) mod sole_copies;
pub(crate) mod update;
