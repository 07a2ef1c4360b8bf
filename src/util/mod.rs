//! What several parts need and no library has in this form.
//!
//! `codec` writes and reads messages, `published` is a snapshot that one task replaces and all others read, `places` shares
//! places out among callers, and `timers` keeps one time for each key.

pub(crate) mod codec;
pub(crate) mod places;
pub(crate) mod published;
pub(crate) mod timers;
