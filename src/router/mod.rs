//! From a request to a node that answers it.
//!
//! ```text
//!   Client / transports --> send.rs: local holder, else better of two; hedge; next on failure
//!                              |            |                 ^
//!            nobody has it     |            | response        | order: choose.rs (pure), by health.rs
//!                              v            v
//!                         ensure.rs     body.rs: replayable requests, held-back and resumable responses
//!                              |
//!                              v
//!                         early.rs: responses that can be had, or can begin, before a node holds the key
//! ```
//!
//! Reading who holds a key, and choosing among them, happens on the caller's task from shared snapshots; the router
//! actor only keeps the health of peers in step with membership.

pub(crate) mod actor;
mod attempts;
mod body;
mod budget;
mod choose;
mod early;
pub(crate) mod ensure;
mod health;
mod lookout;
mod pace;
mod preview;
mod relay;
mod send;
mod serve;
mod transport;

pub use self::transport::{KeyTransport, PathError, PathTransport};
pub(crate) use self::{
    body::{Guarded, read_ahead},
    budget::RetryBudget,
    early::progress_at,
    health::Routes,
    pace::Pace,
    relay::pass_on,
    send::{AnsweredBy, PeerClient, route},
    serve::{report_trouble, serve_local, serve_part},
};
