//! Which updates run (pure): few at once, urgent ones first, each key once.
//!
//! `flights` knows which callers wait, which updates run and which failures to remember;
//! `origin_limits` which origin an update may ask now; `shares` which key a free updater takes;
//! `fetch_plan` whether the key comes from a peer or the origin, at once or after other nodes;
//! `ensured` is how the update ended.

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
