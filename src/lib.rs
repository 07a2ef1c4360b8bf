//! Spreads an existing data source over a cluster.
pub mod config;
pub mod key;
mod net;
pub mod provider;
pub mod world;
