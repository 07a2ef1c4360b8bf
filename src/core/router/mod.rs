//! Which node a request goes to next (pure): `attempts` decides what to do about one request, `choose` in which order nodes
//! are tried, by `health`, which every request writes; `budget` bounds what is sent twice, and `pace` what is copied.

mod attempts;
mod budget;
mod choose;
mod health;
mod pace;

pub(crate) use self::{
    attempts::{Attempts, Step},
    budget::RetryBudget,
    health::{PeerHealth, Routes},
    pace::Pace,
};
