//! Spreads an existing data source over a cluster.
pub mod key;
pub mod placement;
pub mod provider;
pub mod providers;
pub mod registry;
