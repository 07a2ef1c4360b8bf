//! One QUIC endpoint: everything a node says to another node, and hears from it.
//!
//! ```text
//!  gossip   calls   feeds   data          what the actors and the router see: `Net`, `Peer`
//!     \       |       |      /
//!   peers: one connection to each address, dialled when needed, shared by all
//!     |
//!   accept (serve.rs): handshake, hello, then one task a stream, answered by `PeerService`
//!     |
//!   quinn endpoint on the socket and runtime that the `World` provides
//! ```
//!
//! Invariants: a [`Peer`] exists only after its certificate was verified and found to carry its name; whatever arrives
//! on a connection is attributed to that name and no other. At most one dial to an address runs at a time, and a failed
//! one is not repeated before its back-off. Every wait on a peer has a deadline.

mod certificates;
mod connections;
mod credentials;
mod endpoint;
mod errors;
mod exchange;
mod gossip;
pub(crate) mod identity;
mod peer;
mod peer_service;
mod refusal;
mod serve;
mod slot;
#[cfg(test)]
mod tests;
mod transport;
pub(crate) mod wire;

pub(crate) use self::{
    endpoint::Net,
    errors::{CallError, DialError},
    exchange::ExchangeError,
    peer::Peer,
    peer_service::PeerService,
};
