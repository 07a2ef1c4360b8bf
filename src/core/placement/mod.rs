//! Placement: which nodes a key belongs on. Pure functions of the members, the same on every node.
//!
//! The [`Ring`] says so; everything that plans (balancer, router, updater pool) asks it, by way of the view of the members,
//! which passes over full ones. So two nodes with the same view and the same claims agree on the owners of a key. A
//! [`Forecast`] compares two rings.

mod forecast;
mod ring;

pub(crate) use self::forecast::Forecaster;
pub use self::{
    forecast::{Change, Forecast, NodeForecast},
    ring::{OWNERS_MAX, Preference, Ring, RingOptions, WEIGHT_MAX, WEIGHT_SHARE, Walk},
};
