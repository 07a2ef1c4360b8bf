//! Freshness: held keys are asked for at their origin now and then, by the policy of the settings.
//!
//! ```text
//!   updater: an update ended, did it change anything? --+--> schedule (pure): when is which key due?
//!   a walk over all keys: what is held and unknown? ----+        |
//!                                                                v  due, and this node is its first holder
//!                                        one holder asks the origin, then the others copy from it
//! ```
//!
//! Every holder keeps the time of every key that it holds, and sets it anew whenever it was brought up to date, from the
//! origin or from a peer. Only the first holder by preference acts on it. So another takes over where it stood when the
//! first one dies, and nobody has to agree on anything.

pub(crate) mod actor;
mod schedule;
