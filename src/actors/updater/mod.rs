//! The updater pool: runs the provider's updates, few at once, urgent ones first, each key once.
//!
//! ```text
//!   Ensure / Refresh / Remove --> actor --> flights (pure: who waits, what runs, what is remembered)
//!                                   |  jobs, by priority
//!   upstreams (pure: who may ask an origin now?) --+
//!   shares (pure: which key does a free updater take?)
//!                                   v
//!                           ractor factory of `updaters` workers --> job.rs: provider.update in a task of its own,
//!                                   |                               step by step as fetch_plan (pure) says
//!                                   |
//!                                   v
//!                        Finished --> claims in the ledger, waiters answered
//! ```

mod actor;
mod job;
mod others;

pub(crate) use self::actor::Updater;
