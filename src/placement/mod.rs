//! Placement: which nodes a key belongs on. Pure functions of the members, the same on every node.
//!
//! Today this is the [`Ring`]; everything that plans (balancer, router, updater pool) asks it and nothing else, so two
//! nodes with the same member view always agree on the owners of a key.

mod ring;

pub use ring::{OWNERS_MAX, Preference, Ring, RingOptions, WEIGHT_MAX, WEIGHT_SHARE};
