//! Putting a node together: the only place that names actors.
//!
//! | file | concern |
//! | --- | --- |
//! | `coordination` | which membership and which registry: by gossip or through etcd |
//! | `supervisor` | starts the actors, and brings them back when they fail |
//! | `peer_server` | what a node answers to its peers |
//! | `advertise`, `incarnation` | where others reach this start of the node, and the number of it |
//! | `launch` | all of these in their order |

mod advertise;
mod coordination;
mod incarnation;
mod launch;
mod peer_server;
mod start_error;
mod supervisor;

pub use self::{advertise::AdvertiseError, start_error::StartError, supervisor::StopReason};
pub(crate) use self::{
    coordination::Coordination,
    launch::{Plan, Running},
};
