//! Which updates run (pure): few at once, urgent ones first, each key once.
//!
//! `flights` knows who waits, what runs and what is remembered of failures; `origin_limits` which origin may be asked now;
//! `shares` which key a free updater takes; `fetch_plan` whether that comes from a peer or the origin, at once or after
//! others; `ensured` is how it ended.

mod ensured;
pub(crate) mod fetch_plan;
mod flights;
mod origin_limits;
mod shares;

pub(crate) use self::{
    ensured::Ensured,
    flights::{Admission, FETCH_MAX, Flights, LATER_MAX, Origin, Work},
    origin_limits::Upstreams,
    shares::Shares,
};
