//! The messages of both membership actors: the one that gossips, and the observer's.

use std::net::SocketAddr;

use crate::{
    core::membership::{GoneMembers, SeedStatus},
    runtime::{
        mailbox::{Envelope, receives},
        ports::membership::Request,
    },
};

pub(crate) enum Message {
    /// A request from another actor.
    Asked(Envelope<Request>),
    /// It is time to look at the others again.
    Tick,
    /// The addresses of the seed names, in the order of the settings; or the reason why they could
    /// not be resolved.
    SeedsResolved(Vec<Result<Vec<SocketAddr>, String>>),
    /// Every seed was tried.
    SeedsTried(Vec<SeedStatus>),
    /// The gone members that another member remembers; `None` if it did not answer.
    GoneHeard(Option<GoneMembers>),
}

receives!(Message: Asked(Request));
