//! Spreads an existing data source over a cluster.
mod actors;
pub mod api;
mod client;
pub mod config;
mod core;
mod durable;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod gateway;
mod hop;
pub mod key;
mod net;
mod node;
mod operations;
pub mod provider;
pub mod providers;
mod route_error;
mod runtime;
mod transport;
mod util;
mod wiring;
pub mod world;

pub use self::core::{
    balancer::{IntendedAction, Intention},
    catalog::{IntentError, Lacking, Pin, Recorded},
    membership::{ClockDifference, Member, MemberState, RemoveError, SeedStatus, View},
    placement, registry,
    registry::HoldingState,
};
pub use client::{Client, DrainError, Holding, Location, MemberStatus, Nodes, RemovedMember, Shortage, Status};
pub use net::identity::{ClusterKey, Credentials, IdentityError};
pub use node::{Node, NodeBuilder};
pub use operations::{
    drain::Drained,
    explain::{Explanation, Insight, Place, Silent},
    update::UpdatedReplica,
};
pub use route_error::{Attempt, AttemptError, RouteError};
pub use runtime::lifecycle::ActorKind;
pub use transport::{KeyTransport, PathError, PathTransport};
pub use wiring::{AdvertiseError, StartError, StopReason};
