//! Which node a request goes to next (pure): `attempts` decides what to do about one request, `choose` in which order nodes
//! are tried, by `peer_stats`, which every request writes; `budget` bounds what is sent twice, and `copy_rate` what is copied.

mod attempts;
mod budget;
mod choose;
mod copy_rate;
mod peer_stats;

pub(crate) use self::{
    attempts::{Attempts, Step},
    budget::RetryBudget,
    copy_rate::CopyRateLimiter,
    peer_stats::{PeerHealth, PeerStats},
};
