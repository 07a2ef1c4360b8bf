//! Every decision, as plain functions: no runtime, no network, no files; time and randomness come in as arguments.
//!
//! | folder | what it decides |
//! | --- | --- |
//! | `placement` | which nodes a key belongs on |
//! | `membership` | which nodes are members |
//! | `registry` | which nodes have which key, as every node knows it |
//! | `catalog` | what clients ask for keys |
//! | `balancer` | what a node should hold and let go |
//! | `updater` | which updates run |
//! | `refresh` | when a key is asked for again |
//! | `router` | which node a request goes to |
//!
//! Each may import those above it.

pub(crate) mod balancer;
pub(crate) mod catalog;
pub(crate) mod membership;
pub mod placement;
pub(crate) mod refresh;
pub mod registry;
pub(crate) mod router;
pub(crate) mod updater;
