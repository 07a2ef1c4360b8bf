//! What a membership that gossips, or follows those that do, is told.

use std::net::SocketAddr;

use crate::{
    core::membership::{GoneMembers, SeedStatus},
    runtime::{
        mailbox::{Envelope, receives},
        ports::membership::Request,
    },
};

pub(crate) enum Message {
    /// What others ask.
    Asked(Envelope<Request>),
    /// It is time to look at the others again.
    Tick,
    /// Seed names were resolved, in the order of the settings; or why not, in words.
    SeedsResolved(Vec<Result<Vec<SocketAddr>, String>>),
    /// Every seed was tried.
    SeedsTried(Vec<SeedStatus>),
    /// What a member remembers of those that are gone; `None` if it did not answer.
    GoneHeard(Option<GoneMembers>),
}

receives!(Message: Asked(Request));
