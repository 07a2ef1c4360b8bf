//! From a request to a node that answers it.
//!
//! ```text
//!   Client / transports --> course.rs: local holder, else better of two; hedge; next on failure
//!     (send.rs)                |            |                 ^
//!            nobody has it     |            | response        | order: choose.rs (pure), by health.rs
//!                              v            v
//!                         ensure.rs     hold_back.rs, resumable.rs: responses that survive their holder
//!                              |
//!                              v
//!                         early.rs: responses that can be had, or can begin, before a node holds the key
//! ```
//!
//! Reading who holds a key, and choosing among them, happens on the caller's task from shared snapshots; the router
//! actor only keeps the health of peers in step with membership.

pub(crate) mod actor;
mod attempt;
mod attempts;
mod budget;
mod choose;
mod course;
mod early;
pub(crate) mod ensure;
mod failure;
mod guarded;
mod health;
mod hold_back;
mod holders;
mod lookout;
mod pace;
mod paced;
mod peer_client;
mod preview;
mod relay;
mod replay;
mod resumable;
mod send;
#[cfg(test)]
mod send_tests;
mod serve;
mod transport;

pub use self::transport::{KeyTransport, PathError, PathTransport};
pub(crate) use self::{
    budget::RetryBudget,
    course::AnsweredBy,
    early::progress_at,
    guarded::Guarded,
    health::Routes,
    pace::Pace,
    peer_client::PeerClient,
    relay::pass_on,
    send::route,
    serve::{report_trouble, serve_local, serve_part},
};
